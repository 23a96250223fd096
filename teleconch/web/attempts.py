"""Limits on how often one source may try a password or a token. The auth server does the lock-outs; this saves it
work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from teleconch.errors import LimitExceeded
from teleconch.rate import Buckets, Rate

ATTEMPTS: Final = 30  # that one source may make at once for one name
REFILL: Final = 2.0  # seconds after which it may make one more
SOURCE_ATTEMPTS: Final = 300  # that one source may make at once for all names: an office shares an address
SOURCE_REFILL: Final = 1.0
REMEMBERED: Final = 8192  # sources, and pairs of source and name; a few hundred bytes each
TOLD_AGAIN: Final = 60.0  # seconds between two log lines about the refusals of one source


class TooOften(LimitExceeded):
    """One source made too many attempts. ``worth_a_line``: the log has not mentioned this source for a while."""

    def __init__(self, worth_a_line: bool) -> None:
        super().__init__("Too many attempts from your address: wait a minute and try again.")
        self.worth_a_line = worth_a_line


class AttemptLimits:
    """A bucket of attempts per source, and one per source and name, in tables of bounded size. ``seconds`` reads a
    clock."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._pairs = Buckets(Rate(ATTEMPTS, REFILL), REMEMBERED)
        self._sources = Buckets(Rate(SOURCE_ATTEMPTS, SOURCE_REFILL), REMEMBERED)
        self._lines = Buckets(Rate(1, TOLD_AGAIN), REMEMBERED)

    def __len__(self) -> int:
        return len(self._pairs) + len(self._sources) + len(self._lines)

    def take(self, source: str, name: str) -> None:
        """Count one attempt from ``source`` (``admission.source_of``) at ``name``. TooOften if it made too many."""
        now = self._seconds()
        for buckets, key in ((self._pairs, (source, name)), (self._sources, (source, ""))):
            if not buckets.spend(key, now):
                raise TooOften(self._lines.spend((buckets is self._pairs, *key), now))
