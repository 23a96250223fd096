"""What tsh is made of.

::

    what is kept          profile (~/.tsh), identity (files of -i), known_hosts; standing: who goes, and until when
    logging in            login, web ── trust (who the proxy is), prompts; agent (the user's ssh-agent); status
    the way to a proxy    address, tcp, http_proxy

    tsh ssh               road ── link (ssh's core)           one socket, SSH in SSH; no Twisted, as that starts slowly
                            │       └ way (the outer channel)
                            └ console ── session              console: a Screen on stdin and stdout (stdio, terminal,
                                                              background); session: the words of RFC 4254 section 6
    all else, on a reactor
                          reach ── cluster (auth API)         a connection to the proxy, and on to nodes
                            ├ session_channel ── session      sessions, on reactor_console or lines (several nodes)
                            ├ forward/                        -L, -R, -D, -A
                            └ copy/                           tsh scp

    openssh_config        what tsh config prints
"""
