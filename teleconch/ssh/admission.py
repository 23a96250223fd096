"""Who may connect, before anyone knows who it is: counts of connections, in total, by source and by user.

A flood of peers that never authenticate must not keep others out: where there are too many of them, the oldest goes,
for who means to log in is done within a second.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from teleconch.ssh.limits import Limits

_QUIET_SECONDS = 60.0  # between two log lines about refused connections


class Connecting(Protocol):
    """A connection, as far as it concerns admission."""

    def abortConnection(self) -> None: ...


def source_of(address: Any) -> str:
    """What counts as one source: an IPv4 address, an IPv6 /64; one for all that is neither."""
    try:
        parsed = ipaddress.ip_address(getattr(address, "host", ""))
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Admission:
    """Counts one server's connections against its :class:`Limits`."""

    log = Logger()

    def __init__(self, limits: Limits, now: Callable[[], float], service: str = "ssh") -> None:
        self._limits = limits
        self._now = now
        self._service = service  # whose connections these are, for the log
        self._sources: dict[Connecting, str] = {}
        self._users: dict[Connecting, str] = {}
        self._waiting: dict[Connecting, str] = {}  # not authenticated yet, oldest first
        self._by_source: Counter[str] = Counter()
        self._waiting_by_source: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()
        self._silent_until = float("-inf")
        self._unlogged = 0

    def may_connect(self, address: Any) -> bool:
        """Whether a new connection from ``address`` is taken at all."""
        limits, source = self._limits, source_of(address)
        if len(self._sources) >= limits.max_connections:
            return self._refuse("there are too many connections", source)
        if limits.max_connections_per_source and self._by_source[source] >= limits.max_connections_per_source:
            return self._refuse("there are too many connections from this source", source)
        return True

    def connected(self, connection: Connecting, address: Any) -> None:
        """A new connection; the oldest of too many that have not authenticated is closed."""
        limits, source = self._limits, source_of(address)
        self._sources[connection] = self._waiting[connection] = source
        self._by_source[source] += 1
        self._waiting_by_source[source] += 1
        if self._waiting_by_source[source] > limits.max_unauthenticated_per_source:
            oldest = next(one for one, its in self._waiting.items() if its == source)
            self._refuse("too many connections from this source have not logged in", source)
        elif len(self._waiting) > limits.max_unauthenticated:
            oldest = next(iter(self._waiting))
            self._refuse("too many connections have not logged in", self._waiting[oldest])
        else:
            return
        self._stop_waiting(oldest)
        oldest.abortConnection()

    def authenticated(self, connection: Connecting, user: str) -> bool:
        """``connection`` is ``user``'s; False where that user has too many."""
        self._stop_waiting(connection)
        if self._limits.max_connections_per_user and self._by_user[user] >= self._limits.max_connections_per_user:
            return False
        self._users[connection] = user
        self._by_user[user] += 1
        return True

    def gone(self, connection: Connecting) -> None:
        """``connection`` has ended."""
        self._stop_waiting(connection)
        _subtract(self._by_source, self._sources.pop(connection, None))
        _subtract(self._by_user, self._users.pop(connection, None))

    def _stop_waiting(self, connection: Connecting) -> None:
        _subtract(self._waiting_by_source, self._waiting.pop(connection, None))

    def _refuse(self, why: str, source: str) -> bool:
        self._unlogged += 1
        if self._now() >= self._silent_until:
            self._silent_until = self._now() + _QUIET_SECONDS
            count, self._unlogged = self._unlogged, 0
            self.log.warn(
                "connection refused: {error} ({count} since the last such line)",
                event="session.rejected",
                service=self._service,
                error=why,
                count=count,
                addr_remote=source,
            )
        return False


def _subtract(counter: Counter[str], key: str | None) -> None:
    if key is not None:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
