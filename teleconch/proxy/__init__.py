"""The proxy: an SSH server that routes to registered nodes and relays raw bytes."""
