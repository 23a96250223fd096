"""Forwarding at the user's end of ``tsh ssh``.

::

    -L, -D   outward.LocalListeners ── ends.LocalEnd ──> channel to the node
                                       socks.py says where, with -D
    -R, -A   inward.Inward <── channel from the node ──> ends.LocalEnd ── socket here
"""
