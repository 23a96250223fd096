"""The node: an SSH server that runs sessions as OS users, and pings the auth server.

::

    service.NodeServer ── heartbeat.Heartbeat (labels, label_run) ── auth API: pings
        │ listener and realm
    server.NodeUser ── access permit ── session.SessionChannel     one for each SSH session channel: its requests
                                            │
                                        teleconch.session          the live session, in which channels take part
                                            │
                                        program.UserProgram        what runs in it
                                            │        │ wires (streams, pty): pipes or a terminal, and the bytes
                                            │        │
                                        process.Launcher (start)   the daemon's end
                                            │ one socket           ─────────────────────────────────────────
                                        launcher                   a small process, as root where the node is
                                            └ login                who may enter (accounts, greeting, pam), and
                                                                   records; then its children become the user and exec.
                                                                   With PAM, one stays to close the session (attend)
"""
