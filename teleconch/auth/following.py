"""Stored records as they are now, whichever auth server writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.auth.state import State, found
from teleconch.backend.interface import Event, Item, Watch
from teleconch.errors import Unavailable

log = Logger()

Record = TypeVar("Record")

_AGAIN_AFTER: Final = 1.0  # seconds after the backend's watch has ended


class Following(Generic[Record]):
    """The records of ``kind`` below ``prefix``: ``records`` maps the rest of their keys to them. ``changed`` is called
    with the keys that changed or were read again. If a record cannot be read, the last one stays in place."""

    def __init__(
        self,
        state: State,
        prefix: str,
        kind: type[Record],
        clock: IReactorTime,
        changed: Callable[[Collection[str]], None],
    ) -> None:
        self._state = state
        self._prefix = prefix
        self._kind = kind
        self._clock = clock
        self._changed = changed
        self.records: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}
        self._watch: Watch | None = None
        self._following: Deferred[None] | None = None

    async def start(self) -> None:
        """Read everything, then follow the changes. Unavailable."""
        watch = await self._read()
        self._following = Deferred.fromCoroutine(self._follow(watch))
        self._following.addErrback(self._ended)

    async def stop(self) -> None:
        """Stop following. Idempotent."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await following
        if self._watch is not None:
            self._watch.stop()

    async def _read(self) -> Watch:
        """Open a new watch and read everything stored. Whatever went in the meantime counts as changed."""
        watch = await self._state.watch(self._prefix)
        try:
            items = await self._state.items(self._prefix)
        except BaseException:
            watch.stop()
            raise
        self._watch = watch
        gone = self.records.keys() - {self._name(item.key) for item in items}
        for name in gone:
            self._forget(name)
        for item in items:
            self._take(item)
        self._changed((*gone, *(self._name(item.key) for item in items)))
        return watch

    async def _follow(self, watch: Watch) -> None:
        while True:
            try:
                while True:
                    events = await watch.events()
                    for event in events:
                        self._apply(event)
                    self._changed(dict.fromkeys(self._name(event.key) for event in events))
            except Unavailable as error:
                log.warn("{prefix} is read again: {error}", prefix=self._prefix, error=str(error))
            while True:
                await deferLater(self._clock, _AGAIN_AFTER)
                try:
                    watch = await self._read()
                    break
                except Unavailable as error:
                    log.error("{prefix} cannot be read: {error}", prefix=self._prefix, error=str(error))

    def _apply(self, event: Event) -> None:
        if event.item is not None:
            self._take(event.item)
            return
        name = self._name(event.key)
        if self._revisions.get(name, event.revision) < event.revision:
            self._forget(name)

    def _take(self, item: Item) -> None:
        name = self._name(item.key)
        if self._revisions.get(name, -1) >= item.revision:
            return
        try:
            self.records[name] = found(item, self._kind).record
        except Unavailable as error:
            log.error("a record is left as it was: {error}", error=str(error))
            return
        self._revisions[name] = item.revision

    def _forget(self, name: str) -> None:
        del self.records[name], self._revisions[name]

    def _name(self, key: str) -> str:
        return key.removeprefix(self._prefix)

    def _ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("{prefix} is no longer followed", failure=failure, prefix=self._prefix)
