"""From a checked identity to a permit: who may do what on which node. Pure: no reactor, no I/O."""
