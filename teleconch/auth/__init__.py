"""The auth server's use cases, and the checks in front of them. The only package that touches stored state.

::

    api ──▶ authorized.py ──▶ server.py ──┬── hosts.py ──── tokens.py        join, renew
            checks each call   finds the  ├── presence.py ─ nodes.py         heartbeat, list
                               use case   ├── sources.py ── directory.py     watch
                                          ├── users.py, signup.py            who may log in
                                          ├── login.py ──── lockout.py, passwords.py, otp.py
                                          ├── cluster.py, signing.py
                                          └── certificates.py ── authorities.py ──▶ ca
                                                     │
     following.py, records.py: what is stored ── state.py ──▶ backend
"""
