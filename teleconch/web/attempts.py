"""Limits on how often one source may try a password or a token. The auth server locks users; this spares it work."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from teleconch.errors import LimitExceeded

ATTEMPTS: Final = 30  # that one source may make at once for one name
REFILL: Final = 2.0  # seconds after which it may make one more
SOURCE_ATTEMPTS: Final = 300  # that one source may make at once for all names: an office shares an address
SOURCE_REFILL: Final = 1.0
REMEMBERED: Final = 8192  # sources, and pairs of source and name; a few hundred bytes each
TOLD_AGAIN: Final = 60.0  # seconds between two log lines about the refusals of one source


class TooOften(LimitExceeded):
    """One source made too many attempts. ``worth_a_line``: the log has not told of this source for a while."""

    def __init__(self, worth_a_line: bool) -> None:
        super().__init__("Too many attempts from your address: wait a minute and try again.")
        self.worth_a_line = worth_a_line


class Attempts:
    """A bucket of attempts per source, and one per source and name, in tables of bounded size. ``seconds`` gives a
    clock's reading."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._sources = _Buckets(SOURCE_ATTEMPTS, SOURCE_REFILL)
        self._pairs = _Buckets(ATTEMPTS, REFILL)

    def __len__(self) -> int:
        return len(self._sources.spent) + len(self._pairs.spent)

    def take(self, source: str, name: str) -> None:
        """Count one attempt from ``source`` (``admission.source_of``) at ``name``. TooOften when it made too many."""
        now = self._seconds()
        for buckets, key in ((self._pairs, (source, name)), (self._sources, (source, ""))):
            refused, worth_a_line = buckets.take(key, now)
            if refused:
                raise TooOften(worth_a_line)


class _Buckets:
    def __init__(self, most: int, refill: float) -> None:
        self._most = most
        self._refill = refill
        # (source, name) -> (attempts spent, when, when the log was told last)
        self.spent: OrderedDict[tuple[str, str], tuple[float, float, float]] = OrderedDict()

    def take(self, key: tuple[str, str], now: float) -> tuple[bool, bool]:
        """Whether this attempt is one too many, and whether the log has not told of it for a while."""
        spent, when, told = self.spent.pop(key, (0.0, now, -math.inf))
        spent = max(0.0, spent - (now - when) / self._refill)
        refused = spent + 1 > self._most
        worth_a_line = refused and now - told >= TOLD_AGAIN
        self.spent[key] = (spent if refused else spent + 1, now, now if worth_a_line else told)
        while len(self.spent) > REMEMBERED:
            self.spent.popitem(last=False)
        return refused, worth_a_line
