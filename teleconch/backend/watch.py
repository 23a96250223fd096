"""Watches: each has a bounded queue of changes; a watch that falls behind is ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred

from teleconch.backend.interface import Event, check_prefix
from teleconch.errors import Unavailable

_STOPPED = "This watch was stopped."
_CLOSED = "The store was closed; watch again when it is back."
_SLOW = "This watch fell behind and missed changes; read everything again and watch again."


class QueuedWatch:
    """One watcher's queue. ``done`` is called once, when the watch has ended."""

    def __init__(self, prefix: str, limit: int, done: Callable[[QueuedWatch], None]) -> None:
        self.prefix = prefix
        self._limit = limit
        self._done = done
        self._events: deque[Event] = deque()
        self._waiting: Deferred[None] | None = None
        self._ended: str | None = None

    def tell(self, events: Iterable[Event]) -> None:
        """Queue the changes that are below the prefix."""
        if self._ended is not None:
            return
        self._events.extend(event for event in events if event.key.startswith(self.prefix))
        if len(self._events) > self._limit:
            self.end(_SLOW)
        elif self._events:
            self._wake()

    def end(self, sentence: str) -> None:
        """End the watch, for the reason in ``sentence``. Waiting changes are dropped."""
        if self._ended is None:
            self._ended = sentence
            self._events.clear()
            self._done(self)
            self._wake()

    def stop(self) -> None:
        self.end(_STOPPED)

    async def events(self) -> tuple[Event, ...]:
        while not self._events:
            if self._ended is not None:
                raise Unavailable(self._ended)
            assert self._waiting is None, "one caller at a time"
            self._waiting = Deferred()
            try:
                await self._waiting
            finally:
                self._waiting = None
        events = tuple(self._events)
        self._events.clear()
        return events

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


class Watches:
    """All the watches of one store."""

    def __init__(self) -> None:
        self._watches: list[QueuedWatch] = []

    def add(self, prefix: str, limit: int) -> QueuedWatch:
        """A new watch. BadParameter for a prefix that does not end in ``/``."""
        check_prefix(prefix)
        watch = QueuedWatch(prefix, limit, self._watches.remove)
        self._watches.append(watch)
        return watch

    def tell(self, events: Iterable[Event]) -> None:
        """Queue some changes for every watch, oldest first."""
        events = tuple(events)
        for watch in tuple(self._watches):
            watch.tell(events)

    def close(self) -> None:
        """End all watches."""
        for watch in tuple(self._watches):
            watch.end(_CLOSED)
