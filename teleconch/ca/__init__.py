"""Issue and check SSH and TLS certificates. Pure: no reactor, no I/O."""
