"""The node: an SSH server that runs sessions as OS users, and pings the auth server."""
