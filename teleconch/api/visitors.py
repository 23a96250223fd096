"""Connections that have shown no valid certificate, or none yet: few, and not for long.

Where there are too many, the oldest makes room, not the newest: members need an instant for their handshake, so a
crowd of half-open connections does not keep them out, even from the same address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import Logger

from teleconch.errors import LimitExceeded

log = Logger()


class Visitors:
    """At most ``total`` connections, ``per_address`` from one address, and ``calls`` calls in progress among them."""

    def __init__(self, total: int, per_address: int, calls: int) -> None:
        self._total = total
        self._per_address = per_address
        self._calls_max = calls
        self._calls = 0
        self._all: OrderedDict[Any, str] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Any, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def entered(self, broker: Any) -> None:
        """A new connection. May end older ones."""
        address = str(getattr(broker.transport.getPeer(), "host", ""))
        self._all[broker] = address
        here = self._by_address.setdefault(address, OrderedDict())
        here[broker] = None
        if len(here) > self._per_address:
            self._evict(next(iter(here)), "too many without a certificate from this address")
        elif len(self._all) > self._total:
            self._evict(next(iter(self._all)), "too many without a certificate")

    def left(self, broker: Any) -> None:
        """A connection is gone or showed a valid certificate."""
        address = self._all.pop(broker, None)
        if address is not None:
            here = self._by_address[address]
            del here[broker]
            if not here:
                del self._by_address[address]

    def _evict(self, broker: Any, why: str) -> None:
        self.left(broker)
        log.info("connection of {addr_remote} ended: {error}", addr_remote=broker.address, error=why)
        broker.abort()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around one call of a peer without a certificate. LimitExceeded."""
        if self._calls >= self._calls_max:
            raise LimitExceeded("Too many hosts join at this moment; try again in a while.")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
