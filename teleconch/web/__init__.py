"""HTTPS on the proxy: ping, login for tsh, the sign-up page."""
