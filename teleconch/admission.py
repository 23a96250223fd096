"""Who may connect: counts connections in total, by source, and by identity once that is known.

The listeners of SSH, HTTPS and the auth API share this. A connection whose owner is unknown waits at a step: it has
said nothing, or it speaks, or it has keys. Each step has its own queue, so a crowd that says nothing cannot push out
anyone who has come further. When a queue is full, the source with the most connections loses its oldest one: a real
login is done within a second, and one source cannot push out another.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.logger import Logger

_QUIET_SECONDS: Final = 60.0  # between log lines about refused connections


class Connecting(Protocol):
    """What admission needs of a connection."""

    def abortConnection(self) -> None: ...


_C = TypeVar("_C")


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 /64, in which one host can have as many addresses as it
    likes; empty for anything else."""
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _source(address: Any) -> str:
    return source_of(getattr(address, "host", ""))


@frozen
class Room:
    """How many may be in one queue in total, and how many of one source."""

    total: int
    per_source: int


@frozen
class Bounds:
    """``steps`` are those of connections whose owner is unknown, in order.

    0 for ``per_source`` or ``per_identity`` means no bound. With ``oldest_goes``, an identity with too many loses its
    oldest connection; if there are too many in all, the identity with the most does. Otherwise the new connection is
    refused.
    """

    connections: int
    steps: tuple[Room, ...]
    per_source: int = 0
    per_identity: int = 0
    oldest_goes: bool = False


class Queue(Generic[_C]):
    """The connections that wait at one step, by source, oldest first."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._source_of: dict[_C, str] = {}
        self._by_source: dict[str, dict[_C, None]] = {}
        self._crowds: dict[int, dict[str, None]] = {}  # count -> the sources with that count
        self._most = 0

    def __len__(self) -> int:
        return len(self._source_of)

    def __contains__(self, one: _C) -> bool:
        return one in self._source_of

    def source(self, one: _C) -> str:
        return self._source_of[one]

    def add(self, one: _C, source: str) -> _C | None:
        """``one`` waits from now on. Returns the one that has to make room, which stays until it is removed."""
        self._source_of[one] = source
        here = self._by_source.setdefault(source, {})
        here[one] = None
        self._moved(source, len(here) - 1, len(here))
        if len(here) <= self._room.per_source:
            if len(self) <= self._room.total:
                return None
            here = self._by_source[next(iter(self._crowds[self._most]))]
        return next(iter(here))

    def remove(self, one: _C) -> str | None:
        """``one`` no longer waits. Returns its source, or ``None`` if it did not wait here."""
        source = self._source_of.pop(one, None)
        if source is not None:
            here = self._by_source[source]
            del here[one]
            self._moved(source, len(here) + 1, len(here))
            if not here:
                del self._by_source[source]
        return source

    def _moved(self, source: str, before: int, after: int) -> None:
        crowds = self._crowds
        if before:
            del crowds[before][source]
            if not crowds[before]:
                del crowds[before]
        if after:
            crowds.setdefault(after, {})[source] = None
        if after > self._most or (before not in crowds and before == self._most):
            self._most = after


class Admission:
    """Counts one listener's connections against its :class:`Bounds`. ``service`` names the listener in the log."""

    log = Logger()

    def __init__(self, bounds: Bounds, now: Callable[[], float], service: str) -> None:
        self._bounds = bounds
        self._now = now
        self._service = service
        self._sources: dict[Connecting, str] = {}
        self._by_source: Counter[str] = Counter()
        self._steps: tuple[Queue[Connecting], ...] = tuple(Queue(room) for room in bounds.steps)
        self._step: dict[Connecting, int] = {}  # of the connections that wait
        known = bounds.connections
        if bounds.oldest_goes:
            # Less what may wait, so that waiting connections cannot keep these out.
            known = max(1, known - sum(room.total for room in bounds.steps))
        # The connections whose owner is known, by identity instead of by source.
        self._known: Queue[Connecting] = Queue(Room(known, bounds.per_identity or known))
        self._silent_until = float("-inf")
        self._unlogged = 0

    def __len__(self) -> int:
        return len(self._sources)

    def waiting(self) -> int:
        """How many connections have no known owner yet."""
        return len(self._step)

    def may_connect(self, address: Any) -> bool:
        """Whether a new connection from ``address`` is accepted at all."""
        bounds = self._bounds
        if len(self._sources) >= bounds.connections:
            return self._refuse("there are too many connections", _source(address))
        if bounds.per_source and self._by_source[_source(address)] >= bounds.per_source:
            return self._refuse("there are too many connections from this source", _source(address))
        return True

    def connected(self, connection: Connecting, address: Any) -> None:
        """Add a new connection, which waits at the first step."""
        source = _source(address)
        self._sources[connection] = source
        self._by_source[source] += 1
        self._wait(connection, 0, source)

    def advanced(self, connection: Connecting, step: int) -> None:
        """``connection`` waits at this step from now on, unless it no longer waits."""
        before = self._step.get(connection)
        if before is not None and before != step:
            source = self._steps[before].remove(connection)
            assert source is not None
            self._wait(connection, step, source)

    def _wait(self, connection: Connecting, step: int, source: str) -> None:
        self._step[connection] = step
        queue = self._steps[step]
        leaving = queue.add(connection, source)
        if leaving is not None:
            self._refuse("too many connections have not logged in", queue.source(leaving))
            self.gone(leaving)
            leaving.abortConnection()

    def authenticated(self, connection: Connecting, identity: str) -> bool:
        """``connection`` belongs to ``identity``. Returns False if there are too many and no older one makes
        room."""
        self._stop_waiting(connection)
        leaving = self._known.add(connection, identity)
        if leaving is None:
            return True
        if not self._bounds.oldest_goes:
            self._known.remove(connection)
            return False
        self._refuse("one user or host has too many connections", self._known.source(leaving))
        self.gone(leaving)
        leaving.abortConnection()
        return True

    def used(self, connection: Connecting) -> None:
        """``connection`` counts as its identity's newest from now on, so that idle ones go first."""
        identity = self._known.remove(connection)
        if identity is not None:
            self._known.add(connection, identity)

    def gone(self, connection: Connecting) -> None:
        """``connection`` has ended."""
        self._stop_waiting(connection)
        self._known.remove(connection)
        source = self._sources.pop(connection, None)
        if source is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def _stop_waiting(self, connection: Connecting) -> None:
        step = self._step.pop(connection, None)
        if step is not None:
            self._steps[step].remove(connection)

    def _refuse(self, why: str, source: str) -> bool:
        self._unlogged += 1
        if self._now() >= self._silent_until:
            self._silent_until = self._now() + _QUIET_SECONDS
            count, self._unlogged = self._unlogged, 0
            self.log.warn(
                "connection refused: {error} ({count} since the last such line)",
                service=self._service,
                error=why,
                count=count,
                addr_remote=source,
            )
        return False
