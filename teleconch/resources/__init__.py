"""Frozen values of the cluster (user, token, node, authority, ...) and their YAML. Pure: no reactor, no I/O."""
