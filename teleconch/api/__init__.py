"""The auth API: interface, wire (Perspective Broker on TLS), server and client."""
