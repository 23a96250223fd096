"""Keeps one watch on the auth server's nodes running, and the directory in step with it."""

from __future__ import annotations

import random
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.interface import NodeReceiver, Watch
from teleconch.defaults import BACKOFF_FIRST, BACKOFF_MAX, PAGE_SIZE
from teleconch.errors import TeleconchError
from teleconch.proxy.directory import Directory
from teleconch.resources.node import NodeEvent, NodePage

log = Logger()


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

    def node_events(self, events: tuple[NodeEvent, ...]) -> None:
        if not self.over:
            self._directory.apply(events)

    def watch_ended(self) -> None:
        if not self.over:
            self.over = True
            self.ended.callback(None)


class DirectoryWatch(Service):
    """Watches while it runs; after an end it watches again, with back-off and full jitter."""

    def __init__(
        self, clock: IReactorTime, nodes: NodeSource, directory: Directory, chance: random.Random | None = None
    ) -> None:
        self._clock = clock
        self._nodes = nodes
        self._directory = directory
        self._chance = chance or random.SystemRandom()
        self._task: Deferred[None] | None = None

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
                await self._drop_the_gone()
                if not receiver.over:
                    self._directory.confirmed()
                    wait = BACKOFF_FIRST
                    log.info("watching {count} nodes", count=len(self._directory))
                await receiver.ended
                log.info("the watch on the nodes ended; watching again")
            except TeleconchError as error:
                log.warn("the nodes cannot be watched: {error}", error=str(error))
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the boundary: without a new try the proxy would route on old news for ever
                log.failure("the nodes cannot be watched")
            finally:
                receiver.over = True
                self._directory.lost()
                if watch is not None:
                    watch.stop()
            await deferLater(self._clock, self._chance.uniform(0, wait))
            wait = min(wait * 2, BACKOFF_MAX)

    async def _drop_the_gone(self) -> None:
        """Forget the nodes that went while nobody watched. Asks only if the new watch left some of the old untold."""
        gone = set(self._directory.unconfirmed())
        after: str | None = ""
        while gone and after is not None:
            page = await self._nodes.list_nodes(after, PAGE_SIZE)
            gone.difference_update(status.node.uuid for status in page.nodes)
            after = page.next
        self._directory.forget(gone)
