"""The sessions of this process, by id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from teleconch.errors import AlreadyExists
from teleconch.session.live import Live, Outcome
from teleconch.session.program import Program

T = TypeVar("T")


class Present(Generic[T]):
    """Those that are present, for anyone who waits until none is."""

    def __init__(self) -> None:
        self._all: set[T] = set()
        self._waiting: list[Deferred[None]] = []

    def add(self, each: T) -> None:
        """One has come."""
        self._all.add(each)

    def discard(self, each: T) -> None:
        """One has gone. Idempotent."""
        self._all.discard(each)
        if not self._all:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def empty(self) -> Deferred[None]:
        """Fires when none is left. May be cancelled."""
        deferred: Deferred[None] = Deferred(lambda cancelled: self._waiting.remove(cancelled))
        if self._all:
            self._waiting.append(deferred)
        else:
            deferred.callback(None)
        return deferred

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._all))


class Registry(Present[Live]):
    """Sessions that are not over."""

    def __init__(self) -> None:
        super().__init__()
        self._by_id: dict[str, Live] = {}

    def begin(self, id: str, program: Program, told: Callable[[Outcome], None]) -> Live:
        """A session of ``program``, which is not started yet. ``told`` is called when it is over. AlreadyExists."""
        if id in self._by_id:
            raise AlreadyExists("There is a session with this id.")

        def over(end: Outcome) -> None:
            told(end)
            del self._by_id[id]
            self.discard(live)

        live = self._by_id[id] = Live(id, program, over)
        self.add(live)
        return live

    def get(self, id: str) -> Live | None:
        """The session with this id, if it runs here."""
        return self._by_id.get(id)
