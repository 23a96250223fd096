"""teleconch: SSH access to servers through short-lived certificates.

``docs/architecture.rst`` shows the house (which package may import which) and the roads (what happens when).
"""

__version__ = "0.1.0"
