"""The nodes as they are now, told to whoever watches: each change as it comes, offline by the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch import defaults
from teleconch.api.interface import NodeReceiver
from teleconch.auth.presence import status_of
from teleconch.auth.records import PRESENCE, Presence
from teleconch.auth.state import State, found
from teleconch.backend.interface import Event, Item
from teleconch.backend.interface import Watch as BackendWatch
from teleconch.errors import Unavailable
from teleconch.resources.node import NodeEvent, NodeStatus

log = Logger()

_AGAIN_AFTER: Final = 1.0  # seconds, when the backend's watch has ended
_RETELL_BEFORE: Final = defaults.PRESENCE_TTL / 2  # before the end that was told last


class Directory:
    """Follows the stored presences and tells receivers.

    A node is told when it appears, changes, goes offline or comes back, and when it is gone. One that only pings is
    told again every few minutes, so that the ``expires`` that was told is not over while it lives.
    """

    def __init__(self, state: State, clock: IReactorTime) -> None:
        self._state = state
        self._clock = clock
        self._presences: dict[str, tuple[Presence, int]] = {}  # with revisions
        self._told: dict[str, NodeStatus] = {}
        self._receivers: list[_Receiving] = []
        self._watch: BackendWatch | None = None
        self._following: Deferred[None] | None = None

    async def start(self) -> None:
        """Read every node, and follow from there on."""
        self._watch = await self._read()
        self._following = Deferred.fromCoroutine(self._follow(self._watch))
        self._following.addErrback(_ended)

    async def stop(self) -> None:
        """End every watch."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await following
        if self._watch is not None:
            self._watch.stop()
        for receiving in tuple(self._receivers):
            receiving.end()

    async def watch_nodes(self, receiver: NodeReceiver) -> _Receiving:
        """Tell every node as it is, then each change. Unavailable before :meth:`start` or after :meth:`stop`."""
        if self._following is None:
            raise Unavailable("The auth server is starting or stopping; try again in a moment.")
        receiving = _Receiving(receiver, self._receivers.remove)
        self._receivers.append(receiving)
        events = [NodeEvent(uuid, status) for uuid, status in sorted(self._told.items())]
        receiving.tell(events[: defaults.PAGE_SIZE])
        for start in range(defaults.PAGE_SIZE, len(events), defaults.PAGE_SIZE):
            receiving.tell(events[start : start + defaults.PAGE_SIZE])
        return receiving

    def tick(self) -> None:
        """Tell what changed by the clock alone."""
        self._tell(tuple(self._presences))

    async def _read(self) -> BackendWatch:
        """A new watch, and everything that is stored; what went in between is told."""
        watch = await self._state.watch(PRESENCE)
        try:
            items = await self._state.items(PRESENCE)
        except BaseException:
            watch.stop()
            raise
        gone = self._presences.keys() - {_uuid(item.key) for item in items}
        for uuid in gone:
            del self._presences[uuid]
        for item in items:
            self._take(item)
        self._tell((*gone, *(_uuid(item.key) for item in items)))
        return watch

    async def _follow(self, watch: BackendWatch) -> None:
        while True:
            try:
                while True:
                    events = await watch.events()
                    for event in events:
                        self._apply(event)
                    self._tell(dict.fromkeys(_uuid(event.key) for event in events))
            except Unavailable as error:
                log.warn("the directory reads all nodes again: {error}", error=str(error))
            while True:
                await deferLater(self._clock, _AGAIN_AFTER)
                try:
                    self._watch = watch = await self._read()
                    break
                except Unavailable as error:
                    log.error("the directory cannot be read: {error}", error=str(error))

    def _apply(self, event: Event) -> None:
        if event.item is not None:
            self._take(event.item)
            return
        known = self._presences.get(_uuid(event.key))
        if known is not None and known[1] < event.revision:
            del self._presences[_uuid(event.key)]

    def _take(self, item: Item) -> None:
        uuid = _uuid(item.key)
        known = self._presences.get(uuid)
        if known is not None and known[1] >= item.revision:
            return
        try:
            self._presences[uuid] = (found(item, Presence).record, item.revision)
        except Unavailable as error:
            log.error("a node cannot be read: {error}", error=str(error))

    def _tell(self, uuids: Iterable[str]) -> None:
        now = self._clock.seconds()
        events = []
        for uuid in uuids:
            known = self._presences.get(uuid)
            if known is None:
                if self._told.pop(uuid, None) is not None:
                    events.append(NodeEvent(uuid, None))
                continue
            status = status_of(known[0], now)
            if _is_news(self._told.get(uuid), status):
                self._told[uuid] = status
                events.append(NodeEvent(uuid, status))
        if events:
            for receiving in tuple(self._receivers):
                receiving.tell(events)


class _Receiving:
    """One receiver, until it stops, fails, or the directory does."""

    def __init__(self, receiver: NodeReceiver, done: Callable[[_Receiving], None]) -> None:
        self._receiver = receiver
        self._done = done
        self._over = False

    def tell(self, events: list[NodeEvent]) -> None:
        if self._over:
            return
        try:
            self._receiver.node_events(tuple(events))
        except Exception:  # noqa: BLE001 - another's code: its failure must not reach the other receivers
            log.failure("a receiver of node events failed; it is told nothing more")
            self.end()

    def end(self) -> None:
        """The directory ends it."""
        if not self._over:
            self.stop()
            try:
                self._receiver.watch_ended()
            except Exception:  # noqa: BLE001 - likewise
                log.failure("a receiver of node events failed at its end")

    def stop(self) -> None:
        if not self._over:
            self._over = True
            self._done(self)


def _is_news(told: NodeStatus | None, status: NodeStatus) -> bool:
    return (
        told is None
        or told.online != status.online
        or told.node != status.node
        or (status.expires > told.expires and status.expires - told.expires >= _RETELL_BEFORE)
    )


def _uuid(key: str) -> str:
    return key.removeprefix(PRESENCE)


def _ended(failure: Failure) -> None:
    if not failure.check(CancelledError):
        log.failure("the directory of nodes has ended", failure=failure)
