"""Conch made fit: transport, certificates, channels, relay. Knows no user, role or cluster.

::

    server, client ── userauth, auth_client ── connection ── channel ── relay
                       conch: transport (kex, states) ── framing (packet) ── wire

``docs/ssh.rst`` tells how the parts work together.
"""
