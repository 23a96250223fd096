"""Limits on how often one source may try a password or a token. The auth server locks users; this spares it work."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from teleconch.errors import LimitExceeded

ATTEMPTS: Final = 30  # that one source may make at once
REFILL: Final = 2.0  # seconds after which it may make one more
SOURCES: Final = 8192  # remembered at a time; a few hundred bytes each
TOLD_AGAIN: Final = 60.0  # seconds between two log lines about the refusals of one source
AT_ONCE: Final = 32  # attempts of all sources that wait for the auth server


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that an IPv6 host can take its addresses from."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class TooOften(LimitExceeded):
    """One source made too many attempts. ``worth_a_line``: the log has not told of this source for a while."""

    def __init__(self, worth_a_line: bool) -> None:
        super().__init__("Too many attempts from your address: wait a minute and try again.")
        self.worth_a_line = worth_a_line


class Attempts:
    """A bucket of attempts per source, in a table of bounded size. ``seconds`` gives a clock's reading."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # source -> (attempts spent, when, when the log was told last)
        self._spent: OrderedDict[str, tuple[float, float, float]] = OrderedDict()
        self._running = 0

    def __len__(self) -> int:
        return len(self._spent)

    def __enter__(self) -> None:
        if self._running >= AT_ONCE:
            raise LimitExceeded("Too many people log in at this moment: try again in some seconds.")
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1

    def take(self, host: str) -> None:
        """Count one attempt from ``host``. TooOften when it made too many."""
        source, now = source_of(host), self._seconds()
        spent, when, told = self._spent.pop(source, (0.0, now, -math.inf))
        spent = max(0.0, spent - (now - when) / REFILL)
        refused = spent + 1 > ATTEMPTS
        worth_a_line = refused and now - told >= TOLD_AGAIN
        self._spent[source] = (spent if refused else spent + 1, now, now if worth_a_line else told)
        while len(self._spent) > SOURCES:
            self._spent.popitem(last=False)
        if refused:
            raise TooOften(worth_a_line)
