"""The node: an SSH server that runs sessions as OS users, and pings the auth server.

::

    service.NodeServer ── heartbeat.Heartbeat ── auth API (pings)
        │ realm and listener
    server.NodeRealm ── access permit ── session.SessionChannel   one per SSH session channel
                                             │ streams (pipes), pty
                                         process.Launcher         in the daemon
                                             │ one socket
                                         launcher                 a small root process: forks, becomes the
                                             └ accounts           user (accounts) and execs the shell
"""
