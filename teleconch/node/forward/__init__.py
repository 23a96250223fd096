"""Forwarding on the node: TCP and Unix sockets both ways, the agent, X11.

::

    server.NodeUser ── forwarding.Forwarding        one for each connection ── gate.Gate: each kind, each connection
         │                 │  │  └ inward: listeners; each connection taken opens a channel toward the client
         │                 │  └─── outward: sockets that are connected already, as ends
    session.SessionChannel └────── errands.Errands  daemon's end
         └ session.SessionForwarding     │ one socket: JSON, and sockets as descriptors
              (agent, x11)               │ ──────────────────────────────────────────────────────────────
                                      child         a process as the user, started on first need
                                         ├ dialling     connects: every address of a name
                                         └ listening    binds: TCP, paths, the agent's folder, displays

The bytes go between channel and socket in the daemon (``ssh.relay``); the child only makes the sockets, with the user's
rights, and removes what it made in the file system when the connection ends, however it ends.
"""
