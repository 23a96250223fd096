"""HTTPS on the proxy: what a person or ``tsh`` needs before they have a certificate (ping, login, sign-up).

::

    TCP ── site.py (limits, deadlines) ── TLS (tls.py) ── HTTP ── app.py (routes)
                                                                   │      │
                                                    pages.py (HTML) ┘      └ answers.py (JSON, errors, headers)
                                                                   │
                                                             attempts.py (per source)
                                                                   │
                                                     Logins, Cluster of the auth API
"""
