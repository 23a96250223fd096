"""How fast hosts may join with one token from one address, so that who finds a token cannot fill the cluster."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from teleconch import defaults
from teleconch.auth.records import digest
from teleconch.errors import LimitExceeded
from teleconch.resources.addresses import plain_ip
from teleconch.resources.secret import Secret

_KEPT: Final = 4096  # pairs of token and address


def _source(address: str) -> str:
    """An IPv4 address, or the /64 from which an IPv6 host can take as many addresses as it likes."""
    plain = plain_ip(address)
    return str(ipaddress.ip_network((plain, 64), strict=False) if plain is not None and plain.version == 6 else plain)


class JoinRate:
    """A bucket of :data:`defaults.JOINS_AT_ONCE` for each token and address, refilled at a steady pace."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # what is left, and when

    def take(self, token: Secret, address: str) -> None:
        """One join. LimitExceeded when the bucket is empty."""
        key, now = (digest(token), _source(address)), self._now()
        left, then = self._buckets.pop(key, (float(defaults.JOINS_AT_ONCE), now))
        left = min(defaults.JOINS_AT_ONCE, left + max(0.0, now - then) * defaults.JOINS_PER_SECOND)
        refused = left < 1
        self._buckets[key] = (left if refused else left - 1, now)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        if refused:
            raise LimitExceeded(
                f"More than {defaults.JOINS_AT_ONCE} hosts have joined from {address or 'one address'} with this token"
                " in a short time: this one tries again by itself. If you did not start them, remove the token with"
                " `tctl tokens rm`."
            )
