"""Keeps one watch on the auth server running, and a copy of what it reports up to date."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.backoff import full_jitter
from teleconch.api.copy import Copy
from teleconch.api.interface import Watch, Watches
from teleconch.errors import AccessDenied, TeleconchError
from teleconch.resources.kind import Change, Kind

log = Logger()

FIRST_PICTURE: Final = 10.0  # seconds

T = TypeVar("T")


class _Receiver(Generic[T]):
    """Receives for one watch. What arrives after the watch was given up is ignored."""

    def __init__(self, copy: Copy[T], whole: Callable[[], None]) -> None:
        self._copy = copy
        self._whole = whole
        self.ended: Deferred[None] = Deferred()
        self.over = False

    def changes(self, changes: tuple[Change[T], ...]) -> None:
        if not self.over:
            self._copy.apply(changes)

    def whole(self) -> None:
        if not self.over:
            self._copy.whole()
            self._whole()

    def watch_ended(self) -> None:
        if not self.over:
            self.over = True
            self.ended.callback(None)


class Watcher(Service, Generic[T]):
    """Watches ``kind`` while it runs. When a watch ends it begins another, with back-off and full jitter.

    ``refused`` is called with the auth server's sentence when it refuses this host, and with "" once it no longer does.
    """

    def __init__(
        self,
        clock: IReactorTime,
        api: Watches,
        kind: Kind[T],
        copy: Copy[T],
        chance: random.Random | None = None,
        refused: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._clock = clock
        self._api = api
        self._kind = kind
        self._copy = copy
        self._chance = chance or random.SystemRandom()
        self._refused = refused
        self._task: Deferred[None] | None = None
        self._failures = 0
        self._tried = False
        self._waiters: list[Deferred[None]] = []

    def first_picture(self, seconds: float = FIRST_PICTURE) -> Deferred[None]:
        """Fires when the copy is complete for the first time, or else when the first attempt at that has failed, or
        after ``seconds``."""
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

    def _stopped(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            log.failure("the watch on the {kind} ended", failure=failure, kind=self._kind.name)

    async def _run(self) -> None:
        name = self._kind.name
        while True:
            receiver = _Receiver(self._copy, self._is_whole)
            watch: Watch | None = None
            try:
                self._copy.begin()
                watch = await self._api.watch(self._kind, receiver)
                await receiver.ended
                log.info("the watch on the {kind} ended; watching again", kind=name)
            except TeleconchError as error:
                log.warn("the {kind} cannot be watched: {error}", kind=name, error=str(error))
                if isinstance(error, AccessDenied):
                    self._refused(str(error))
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the boundary: without another attempt old news would stay
                log.failure("the {kind} cannot be watched", kind=name)
            finally:
                receiver.over = True
                self._copy.lost()
                self._settled()
                if watch is not None:
                    watch.stop()
            wait = full_jitter(self._chance, self._failures)
            self._failures += 1
            await deferLater(self._clock, wait)

    def _is_whole(self) -> None:
        self._failures = 0
        self._refused("")
        self._settled()
        log.info("watching {count} {kind}", count=len(self._copy), kind=self._kind.name)
