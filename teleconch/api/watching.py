"""A watch over the wire: changes go to the peer one call at a time, each once the peer has answered the last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.codec import CHUNK, encode_changes
from teleconch.api.interface import Watch
from teleconch.api.wire import OK, Answer, Exposed, WireBroker, error_answer
from teleconch.errors import BadParameter, TeleconchError
from teleconch.resources.kind import Change

log = Logger()

QUEUE_MAX: Final = 50_000  # changes waiting for one watcher
_CHANGES_MAX: Final = 200  # in one call
_WHOLE: Final = object()  # in the queue: here everything has been reported


class PushedWatch(Exposed):
    """Receives what the auth server reports (a ``Receiver``) and passes it on to ``receiver`` at the peer.

    ``check`` raises when the peer may no longer watch, for example because its certificate has expired. A watch that
    ends tells its peer, which then watches again. The peer may call ``stop``.
    """

    def __init__(self, broker: WireBroker, receiver: Any, check: Callable[[], object]) -> None:
        self._broker = broker
        self._receiver = receiver
        self._check = check
        self._queue: deque[Any] = deque()
        self._sending = False
        self._watch: Watch | None = None
        self.over = False

    def runs_as(self, watch: Watch) -> None:
        """Set the auth server's end of the watch, which is stopped together with this one."""
        self._watch = watch
        if self.over:
            watch.stop()

    async def answer(self, name: str, arguments: tuple[Any, ...]) -> Answer:
        if name != "stop" or arguments:
            return error_answer(BadParameter("A watch can only be stopped."))
        self.stop()
        return (OK,)

    def changes(self, changes: tuple[Change[Any], ...]) -> None:
        if self.over:
            return
        if len(self._queue) + len(changes) > QUEUE_MAX:
            self._end("it does not take the changes as fast as they come")
            return
        self._queue.extend(changes)
        self._send()

    def whole(self) -> None:
        if not self.over:
            self._queue.append(_WHOLE)
            self._send()

    def watch_ended(self) -> None:
        self._end("")

    def stop(self) -> None:
        """The peer wants no more, or is gone."""
        self.over = True
        self._queue.clear()
        self._receiver = None  # lets the peer forget its receiver
        if self._watch is not None:
            self._watch.stop()

    def _end(self, why: str) -> None:
        if self.over:
            return
        if why:
            log.warn(
                "the watch of {addr_remote} ends: {error}",
                addr_remote=self._broker.address,
                error=why,
            )
        told = self._broker.call(self._receiver, "watch_ended")
        told.addErrback(lambda _: None)  # a peer that is gone need not be told
        self.stop()

    def _send(self) -> None:
        if self._sending or self.over or not self._queue:
            return
        try:
            self._check()
        except TeleconchError as error:
            self._end(str(error))
            return
        self._sending = True
        if self._queue[0] is _WHOLE:
            self._queue.popleft()
            acknowledged = self._broker.call(self._receiver, "whole")
        else:
            acknowledged = self._broker.call(self._receiver, "changes", self._next_chunk())
        acknowledged.addCallbacks(self._acknowledged, self._failed)

    def _next_chunk(self) -> bytes:
        changes: list[Change[Any]] = []
        size = 0
        while self._queue and self._queue[0] is not _WHOLE and len(changes) < _CHANGES_MAX and size < CHUNK // 2:
            changes.append(self._queue.popleft())
            size += len(encode_changes(changes[-1:]))
        return encode_changes(changes)

    def _acknowledged(self, _: object) -> None:
        self._sending = False
        self._send()

    def _failed(self, failure: Failure) -> None:
        if not self.over:
            log.debug("a watcher went away: {error}", error=failure.getErrorMessage())
            self.stop()
