"""Keeps one watch on the auth server's nodes running, and the directory in step with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.interface import NodeReceiver, Watch
from teleconch.defaults import BACKOFF_FIRST, BACKOFF_MAX, PAGE_SIZE
from teleconch.errors import AccessDenied, TeleconchError
from teleconch.proxy.directory import Directory
from teleconch.resources.node import NodeEvent, NodePage

log = Logger()

FIRST_PICTURE: Final = 10.0  # seconds


class NodeSource(Protocol):
    """What is needed of ``api.interface.Nodes``."""

    async def list_nodes(self, after: str, limit: int) -> NodePage: ...
    async def watch_nodes(self, receiver: NodeReceiver) -> Watch: ...


class _Receiver:
    """The ears of one watch. What a watch says after it was given up is not listened to."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.ended: Deferred[None] = Deferred()
        self.over = False
        self.gone: set[str] = set()  # told of while the list is read beside the watch
        self.comparing = True

    def node_events(self, events: tuple[NodeEvent, ...]) -> None:
        if not self.over:
            self._directory.apply(events)
            if self.comparing:
                self.gone.update(event.uuid for event in events if event.status is None)

    def watch_ended(self) -> None:
        if not self.over:
            self.over = True
            self.ended.callback(None)


class DirectoryWatch(Service):
    """Watches while it runs; after an end it watches again, with back-off and full jitter.

    ``refused`` is called with the auth server's sentence where it refuses this host, and with an empty one once it
    does not.
    """

    def __init__(
        self,
        clock: IReactorTime,
        nodes: NodeSource,
        directory: Directory,
        chance: random.Random | None = None,
        refused: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._refused = refused
        self._clock = clock
        self._nodes = nodes
        self._directory = directory
        self._chance = chance or random.SystemRandom()
        self._task: Deferred[None] | None = None
        self._tried = False
        self._waiters: list[Deferred[None]] = []

    def first_picture(self, seconds: float = FIRST_PICTURE) -> Deferred[None]:
        """Fires when the directory is whole for the first time; at the latest when the first try to make it so has
        failed, or after ``seconds``."""
        if self._tried:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._waiters.remove(waiter))
        self._waiters.append(waiter)
        return waiter.addTimeout(seconds, self._clock, lambda *_: None)

    def _settled(self) -> None:
        self._tried = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._task = Deferred.fromCoroutine(self._run())
        self._task.addErrback(self._stopped)

    async def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await task

    @staticmethod
    def _stopped(failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            log.failure("the watch on the nodes ended", failure=failure)

    async def _run(self) -> None:
        wait = BACKOFF_FIRST
        while True:
            receiver = _Receiver(self._directory)
            watch: Watch | None = None
            try:
                self._directory.begin()
                watch = await self._nodes.watch_nodes(receiver)
                await self._compare(receiver)
                if not receiver.over:
                    self._directory.confirmed()
                    self._refused("")
                    self._settled()
                    wait = BACKOFF_FIRST
                    log.info("watching {count} nodes", count=len(self._directory))
                await receiver.ended
                log.info("the watch on the nodes ended; watching again")
            except TeleconchError as error:
                log.warn("the nodes cannot be watched: {error}", error=str(error))
                if isinstance(error, AccessDenied):
                    self._refused(str(error))
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the boundary: without a new try the proxy would route on old news for ever
                log.failure("the nodes cannot be watched")
            finally:
                receiver.over = True
                self._directory.lost()
                self._settled()
                if watch is not None:
                    watch.stop()
            await deferLater(self._clock, self._chance.uniform(0, wait))
            wait = min(wait * 2, BACKOFF_MAX)

    async def _compare(self, receiver: _Receiver) -> None:
        """Read the list beside the watch, which tells it piece by piece: then none is missing, and those that went
        while nobody watched are forgotten. Not needed where the directory was whole and was told anew at once."""
        directory = self._directory
        gone = set(directory.unconfirmed())
        after: str | None = "" if gone or not directory.complete else None
        while after is not None and not receiver.over:
            page = await self._nodes.list_nodes(after, PAGE_SIZE)
            gone.difference_update(status.node.uuid for status in page.nodes)
            untold = (each for each in page.nodes if directory.by_uuid(each.node.uuid) is None)
            directory.apply(NodeEvent(each.node.uuid, each) for each in untold if each.node.uuid not in receiver.gone)
            after = page.next
        receiver.comparing = False
        receiver.gone.clear()
        if not receiver.over:
            directory.forget(gone)
