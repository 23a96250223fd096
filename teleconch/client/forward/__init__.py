"""Forwarding at the user's end of ``tsh ssh``.

::

    -L, -D   outward.Accepted, a connection here ──> ends.ToNode, a channel to the node
                 socks.py says where, with -D
    -R, -A   inward.Inward <── ssh.ends.ToEnd, a channel from the node ──> ends.dial ── a socket here
"""
