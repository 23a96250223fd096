"""Turns at work that takes long: a few at a time, one source after the other, so that a crowd cannot keep anyone out.

Within a source the names take turns as well, and what one source asks about one name is done in sequence. Known pairs
of source and name, which have logged in before, go first. The queue is bounded. When it is full, whoever has most in it
gives way, and a stranger gives way to a known pair that is not waiting yet.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from teleconch.errors import LimitExceeded

WAITING_MAX: Final = 400
_CROWDED: Final = "Too many people are logging in at this moment: try again in a minute."


@define(eq=False)
class _Waiter:
    pair: tuple[str, str]
    line: _Line
    admitted: Deferred[None] = field(factory=Deferred)
    overdue: IDelayedCall | None = None


_Line = OrderedDict[str, OrderedDict[str, deque[_Waiter]]]  # source -> name -> waiters


def _waits(line: _Line, source: str) -> int:
    """How many from ``source`` wait."""
    return sum(map(len, line.get(source, {}).values()))


class Turns:
    """At most ``at_once`` turns run and at most ``waiting_max`` wait, each for ``patience`` seconds by ``clock``."""

    def __init__(self, clock: IReactorTime, at_once: int, patience: float, waiting_max: int = WAITING_MAX) -> None:
        self._clock = clock
        self._at_once = at_once
        self._patience = patience
        self._waiting_max = waiting_max
        self._running: set[tuple[str, str]] = set()
        # The next turn goes to the first source, and its first name.
        self._first: _Line = OrderedDict()
        self._waiting: _Line = OrderedDict()
        self._count = 0
        self._admitting = False

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    @asynccontextmanager
    async def turn(self, source: str, name: str, known: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and hold it; ``known`` pairs go first. LimitExceeded if too many wait, or it takes too
        long."""
        pair = (source, name)
        if self._count >= self._waiting_max:
            self._make_room(pair, known)
        waiter = _Waiter(pair, self._first if known else self._waiting)
        waiter.admitted = Deferred(lambda _: self._remove(waiter))
        waiter.line.setdefault(source, OrderedDict()).setdefault(name, deque()).append(waiter)
        self._count += 1
        self._admit()
        if not waiter.admitted.called:
            waiter.overdue = self._clock.callLater(self._patience, self._refuse, waiter)
        await waiter.admitted
        try:
            yield
        finally:
            self._running.remove(pair)
            self._admit()

    def _admit(self) -> None:
        if self._admitting:  # a turn ended while it was beginning: the loop below goes on
            return
        self._admitting = True
        try:
            while len(self._running) < self._at_once:
                waiter = self._next()
                if waiter is None:
                    return
                self._begin(waiter)
        finally:
            self._admitting = False

    def _begin(self, waiter: _Waiter) -> None:
        self._remove(waiter)
        source, name = waiter.pair
        if source in waiter.line:
            waiter.line.move_to_end(source)
            if name in waiter.line[source]:
                waiter.line[source].move_to_end(name)
        self._running.add(waiter.pair)
        waiter.admitted.callback(None)

    def _next(self) -> _Waiter | None:
        """The waiter whose turn it is. Only pairs that are running at this moment are passed over, and those are
        few."""
        return next(
            (
                queue[0]
                for line in (self._first, self._waiting)
                for source, names in line.items()
                for name, queue in names.items()
                if (source, name) not in self._running
            ),
            None,
        )

    def _make_room(self, pair: tuple[str, str], known: bool) -> None:
        """Refuse the last waiter of whoever has most in the queue. LimitExceeded if that is the newcomer."""
        source, name = pair
        line = self._first if known else self._waiting
        first = known and bool(self._waiting) and name not in line.get(source, ())  # before any number of strangers
        if first:
            line = self._waiting
        largest = max(line, key=lambda each: _waits(line, each), default=source)
        if not first and _waits(line, largest) <= _waits(line, source) + 1:
            largest = source
        names = line.get(largest, OrderedDict())
        longest = max(names.values(), key=len, default=deque[_Waiter]())
        if not longest or (not first and largest == source and len(longest) <= len(names.get(name, ())) + 1):
            raise LimitExceeded(_CROWDED)
        self._refuse(longest[-1])

    def _refuse(self, waiter: _Waiter) -> None:
        self._remove(waiter)
        waiter.admitted.errback(LimitExceeded(_CROWDED))

    def _remove(self, waiter: _Waiter) -> None:
        source, name = waiter.pair
        names = waiter.line[source]
        names[name].remove(waiter)
        self._count -= 1
        if not names[name]:
            del names[name]
        if not names:
            del waiter.line[source]
        if waiter.overdue is not None and waiter.overdue.active():
            waiter.overdue.cancel()


class AtOnce:
    """Counts what is in progress, and refuses, with ``sentence``, more than ``each`` of one key or ``total`` in all."""

    def __init__(self, sentence: str, each: int, total: int | None = None) -> None:
        self._sentence = sentence
        self._each = each
        self._total = total
        self._under_way: Counter[Hashable] = Counter()

    @contextmanager
    def one(self, key: Hashable) -> Iterator[None]:
        """Counts one of ``key`` while the context lasts. LimitExceeded."""
        count = self._under_way
        if count[key] >= self._each or (self._total is not None and count.total() >= self._total):
            raise LimitExceeded(self._sentence)
        count[key] += 1
        try:
            yield
        finally:
            count[key] -= 1
            if not count[key]:
                del count[key]
