"""The proxy: the only host that users reach from outside. It finds a node and relays to it; it can read nothing.

::

    ssh -J proxy node                     watch (auth API)
    ssh ... -s proxy:%h:%p                        │
          │                               api.watcher         keeps a watch running
          ▼                                       │
     server.py  ── request ──▶  router.py  ──▶ directory.py   the nodes, indexed by what users type
          │                        │
          │                     a Node ──▶ access.permit_dial ──▶ DialPermit
          ▼                                                          │
     ssh.relay  ◀────────── bytes, once they began with SSH-2.0- ── roads.py ──▶ dial.py  TCP to the node's address
"""
