"""Speed beside OpenSSH and others, on this machine: ``make bench``, or ``python -m bench --help``."""
