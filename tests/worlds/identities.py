"""A user's keys and certificates after a login."""

from __future__ import annotations

import time

from teleconch.ca.authority import new_authority, trusted
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.ca.tls import issue_user_tls
from teleconch.client.identity import Identity
from tests.worlds.certificates import user_cert

NOW = time.time()
USER_CA = new_authority("user", "example.com", NOW)
HOST_CA = new_authority("host", "example.com", NOW)


def make_identity(user: str = "joe") -> Identity:
    ssh_key, ssh_public = new_ssh_key()
    tls_key, tls_public = new_tls_key()
    cert = user_cert(
        USER_CA,
        ssh_public,
        user=user,
        logins=("root", "joe"),
        traits={"logins": ("root", "joe")},
        extensions=("permit-pty",),
    )
    tls = issue_user_tls(
        USER_CA,
        user=user,
        roles=("user",),
        public_key=tls_public,
        valid_after=NOW - 60,
        valid_before=NOW + 3600,
        serial=1,
    )
    return Identity(ssh_key, cert, tls_key, tls, (trusted(HOST_CA),))
