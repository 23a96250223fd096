"""The auth server's use cases, and the checks in front of them. The only package that touches stored state."""
