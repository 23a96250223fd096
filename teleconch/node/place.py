"""Where sessions run: what all sessions of one node share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred

from teleconch.node.files.programs import Programs
from teleconch.node.forward import bind
from teleconch.node.process import Launcher
from teleconch.node.start import IReactorNode

T = TypeVar("T")


class Live(Generic[T]):
    """Sessions that are not over, or users who are connected."""

    def __init__(self) -> None:
        self._all: set[T] = set()
        self._waiting: list[Deferred[None]] = []

    def add(self, each: T) -> None:
        """One has begun."""
        self._all.add(each)

    def discard(self, each: T) -> None:
        """One is over. Idempotent."""
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


@frozen
class Place(Generic[T]):
    """``new_id`` gives session ids; ``accept_env`` are patterns of variables that clients may set besides the usual;
    ``gateway_ports`` is one of ``forward.bind``'s words."""

    reactor: IReactorNode
    launcher: Launcher
    host_uuid: str
    cluster: str
    new_id: Callable[[], str]
    accept_env: tuple[str, ...] = ()
    gateway_ports: str = bind.NO
    programs: Programs = field(factory=Programs, eq=False, repr=False)
    live: Live[T] = field(factory=Live, eq=False, repr=False)
    users: Live[object] = field(factory=Live, eq=False, repr=False)
