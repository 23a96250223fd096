"""SSH certificates as a cluster issues them; ``changes`` are arguments of what issues them in ``teleconch.ca.ssh``."""

from __future__ import annotations

import itertools
import time
from typing import Any

from teleconch.ca.ssh import PERMITS, issue_host_cert, issue_user_cert
from teleconch.resources.authority import CertAuthority

HOUR = 3600.0
UUID = "52e3e46a-372f-494b-bdd9-a1d25b9d6dec"
_serials = itertools.count(1)


def _now_and_an_hour() -> dict[str, Any]:
    now = time.time()
    return {"valid_after": now - 60, "valid_before": now + HOUR, "serial": next(_serials)}


def user_cert(authority: CertAuthority, public: str, **changes: Any) -> str:
    """Alice's certificate for root, with all that a user may do."""
    given = {
        "user": "alice",
        "logins": ("root",),
        "roles": ("user",),
        "traits": {},
        "extensions": PERMITS,
        **_now_and_an_hour(),
    }
    return issue_user_cert(authority, public_key=public, **(given | changes))


def host_cert(authority: CertAuthority, public: str, **changes: Any) -> str:
    """A node's certificate on loopback."""
    given = {"uuid": UUID, "nodename": "box", "roles": ("node",), "addresses": ("127.0.0.1",), **_now_and_an_hour()}
    return issue_host_cert(authority, public_key=public, **(given | changes))
