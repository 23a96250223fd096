"""How fast hosts may join with one token from one source, so that anyone who finds a token cannot fill the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from teleconch import defaults
from teleconch.admission import source_of
from teleconch.auth.records import digest
from teleconch.errors import LimitExceeded
from teleconch.rate import Buckets, Rate
from teleconch.resources.secret import Secret

_KEPT: Final = 4096  # pairs of token and source


class JoinRate:
    """A bucket of :data:`defaults.JOINS_AT_ONCE` for each token and source, refilled at a steady pace."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets = Buckets(Rate(defaults.JOINS_AT_ONCE, 1 / defaults.JOINS_PER_SECOND), _KEPT)

    def take(self, token: Secret, address: str) -> None:
        """Count one join. LimitExceeded if the bucket is empty."""
        if not self._buckets.spend((digest(token), source_of(address)), self._now()):
            raise LimitExceeded(
                f"More than {defaults.JOINS_AT_ONCE} hosts have joined from {address or 'one address'} with this token"
                " in a short time: this one tries again by itself. If you did not start them, remove the token with"
                " `tctl tokens rm`."
            )
