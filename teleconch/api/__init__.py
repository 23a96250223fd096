"""The auth API: interface, wire (Perspective Broker on TLS), server and client.

::

    interface.py   what can be asked, by noun ──▶ codec.py   arguments and results as JSON, by the annotations
         │
         └── stubs.py   each noun as something that passes calls on ──▶ client.py ── connection.py ─┐
                        (and the auth server's checks, auth/authorized.py)                          │
                                                                                            wire.py, tls.py
         watcher.py, copy.py, cache.py   everything of a kind, kept in step                         │
         watching.py   a watch on the server's side of the wire ◀── server.py ── perspectives.py ───┘

    membership.py ──▶ join.py, upkeep.py ──▶ held.py ──▶ hostfiles.py       a host as a member
"""
