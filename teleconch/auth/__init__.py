"""The auth server's use cases, and the checks in front of them. The only package that touches stored state.

::

    api ──▶ authorized.py ──▶ server.py ──┬── hosts.py ──── tokens.py        join, renew
            checks each call   delegates  ├── presence.py ─ nodes.py         heartbeat, list
                                          ├── directory.py                   watch
                                          ├── users.py, signup.py            who may log in
                                          ├── login.py ──── lockout.py, passwords.py, otp.py
                                          └── certificates.py ── authorities.py ──▶ ca
                                                     │
                      records.py: what is stored ── state.py ──▶ backend
"""
