"""A client of the auth API: one connection, opened on demand to one of several addresses, and again after a loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.backoff import full_jitter
from teleconch.api.codec import Method, decode_changes, decode_result, encode_arguments
from teleconch.api.connection import ClientBroker, endpoint_of, open_connection
from teleconch.api.interface import AuthAPI, Receiver, Watch
from teleconch.api.stubs import stub
from teleconch.api.tls import ClientTLS
from teleconch.api.wire import OK, Answer, Exposed, error_answer, read_answer
from teleconch.errors import BadParameter, ConnectionProblem, LimitExceeded, TeleconchError
from teleconch.places import Places
from teleconch.resources.kind import Kind

log = Logger()

_CALLS_MAX: Final = 32  # in progress at once
_WAITING_MAX: Final = 1000  # calls waiting for their turn


class _Watching(Exposed):
    """Both the receiver that the server calls and the ``Watch`` that the caller holds."""

    def __init__(self, kind: Kind[Any], receiver: Receiver[Any]) -> None:
        self._kind = kind
        self._receiver = receiver
        self._broker: ClientBroker | None = None
        self._handle: Any = None
        self._over = False

    def runs(self, broker: ClientBroker, handle: Any) -> None:
        self._broker, self._handle = broker, handle
        if self._over:
            self._stop()
        else:
            broker.lost.addCallback(lambda _: self.ended())

    async def answer(self, name: str, arguments: tuple[Any, ...]) -> Answer:
        if name == "watch_ended":
            self.ended()
        elif name == "whole":
            if not self._over:
                self._receiver.whole()
        elif name == "changes" and len(arguments) == 1 and isinstance(arguments[0], bytes):
            try:
                changes = decode_changes(self._kind, arguments[0])
            except BadParameter as error:  # a skipped change would be missing for as long as the watch lives
                log.error("the watch of {kind} ends: {error}", kind=self._kind.name, error=str(error))
                self._stop()
                self.ended()
                return error_answer(error)
            if not self._over:
                self._receiver.changes(changes)
        else:
            return error_answer(BadParameter("A receiver of changes has no such method."))
        return (OK,)

    def ended(self) -> None:
        if not self._over:
            self._over = True
            self._receiver.watch_ended()

    def stop(self) -> None:
        if not self._over:
            self._over = True
            self._stop()

    def _stop(self) -> None:
        if self._broker is not None and self._handle is not None:
            stopped = self._broker.call(self._handle, "stop")
            stopped.addErrback(lambda _: None)  # a server that is gone has stopped anyway
            self._handle = None


class AuthClient:
    """A connection to an auth server. ``api`` has every method of ``interface.py``.

    ``addresses`` are ``host:port`` strings or endpoints (an SSH channel, for example). They are tried in turn, starting
    with the one that worked last. If none answers in a round, the calls that wait for it fail, and the next round
    begins after a back-off with full jitter. A call that takes longer than ``timeout`` seconds fails with
    ConnectionProblem. A call is never sent twice, because only the caller knows whether that is safe. ``connected`` is
    called after each new connection.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str | IStreamClientEndpoint],
        tls: ClientTLS,
        *,
        chance: random.Random | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        if not addresses:
            raise BadParameter("An auth server's address is needed: set auth_servers.")
        self._clock = reactor
        self._endpoints = [
            (each, endpoint_of(reactor, each, connect_timeout))
            if isinstance(each, str)
            else (getattr(each, "name", "the auth server"), each)
            for each in addresses
        ]
        self._tls = tls
        self._chance = chance or random.SystemRandom()
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._connected = connected
        self._broker: ClientBroker | None = None
        self._opening: Deferred[None] | None = None
        self._waiters: list[Deferred[ClientBroker]] = []
        self._failures = 0
        self._not_before = 0.0
        self._last_problem = ""
        self._turns = Places(_CALLS_MAX)
        self._closed = False
        self.api: AuthAPI = stub(AuthAPI, self._call)

    # -- the connection

    def renewed(self) -> None:
        """The credentials changed: later calls use a new connection. The old one ends when its calls have ended."""
        if self._broker is not None:
            broker, self._broker = self._broker, None
            broker.retire()

    def close(self) -> None:
        """End the connection and fail what waits for one."""
        self._closed = True
        self._settle(Failure(ConnectionProblem("The connection to the auth server was closed here.")))
        if self._opening is not None:
            self._opening.cancel()
        if self._broker is not None:
            self._broker.close()
            self._broker = None

    async def _connection(self) -> ClientBroker:
        if self._closed:
            raise ConnectionProblem("The connection to the auth server was closed here.")
        if self._broker is not None and not self._broker.disconnected:
            return self._broker
        waiter: Deferred[ClientBroker] = Deferred(self._forget)
        self._waiters.append(waiter)
        if self._opening is None:
            self._opening = Deferred.fromCoroutine(self._open())
            self._opening.addErrback(self._not_opened)
        return await waiter

    def _forget(self, waiter: Deferred[ClientBroker]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _settle(self, result: Any) -> None:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            each.callback(result)

    async def _open(self) -> None:
        wait = self._not_before - self._clock.seconds()
        if wait > 0:
            await deferLater(self._clock, wait)
        try:
            broker = await self._round()
        except TeleconchError as error:
            self._not_before = self._clock.seconds() + full_jitter(self._chance, self._failures)
            self._failures += 1
            self._last_problem = str(error)
            self._opening = None
            self._settle(Failure(error))
            return
        self._failures, self._not_before, self._last_problem = 0, 0.0, ""
        self._opening = None
        self._broker = broker
        broker.lost.addCallback(self._lost, broker)
        self._connected()
        self._settle(broker)

    def _lost(self, _: None, broker: ClientBroker) -> None:
        if self._broker is broker:
            self._broker = None
            # A server that ends connections at once must not be dialled in a tight loop.
            self._not_before = self._clock.seconds() + full_jitter(self._chance, 0)

    def _not_opened(self, failure: Failure) -> None:
        self._opening = None
        if not failure.check(CancelledError):
            log.failure("connecting to the auth server failed", failure=failure)
        self._settle(Failure(ConnectionProblem("Connecting to the auth server failed.")))

    async def _round(self) -> ClientBroker:
        problems: list[tuple[str, TeleconchError]] = []
        for _ in range(len(self._endpoints)):
            name, endpoint = self._endpoints[0]
            try:
                return await open_connection(self._clock, endpoint, self._tls, self._connect_timeout)
            except TeleconchError as error:
                log.info("auth server {address}: {error}", address=name, error=str(error))
                problems.append((name, error))
                self._endpoints.append(self._endpoints.pop(0))
        raise _none_of(problems)

    # -- calls

    async def _call(self, method: Method, arguments: tuple[Any, ...]) -> Any:
        if method.streams:
            return await self._watch(method, *arguments)
        parts = await self._ask(method, encode_arguments(method, arguments))
        try:
            return decode_result(method, parts)
        except BadParameter as error:
            raise ConnectionProblem(f"{error} Are both sides up to date?") from None

    async def _watch(self, method: Method, kind: Kind[Any], receiver: Receiver[Any]) -> Watch:
        watching = _Watching(kind, receiver)
        try:
            await self._ask(method, encode_arguments(method, (kind,)), watching)
        except BaseException:
            watching.stop()
            raise
        return watching

    async def _ask(self, method: Method, data: bytes, watching: _Watching | None = None) -> tuple[Any, ...]:
        if len(self._turns.waiting) >= _WAITING_MAX:
            raise LimitExceeded("Too many calls wait for the auth server; try again in a while.")
        started = self._clock.seconds()
        asked = Deferred.fromCoroutine(self._ask_in_turn(method, data, watching))
        try:
            return await asked.addTimeout(self._timeout, self._clock)
        except defer.TimeoutError:
            raise self._overdue(started) from None

    async def _ask_in_turn(self, method: Method, data: bytes, watching: _Watching | None) -> tuple[Any, ...]:
        await self._turns.acquire()
        try:
            broker = await self._connection()
            try:
                arguments: tuple[object, ...] = (data,) if watching is None else (data, watching)
                parts = read_answer(await broker.call(broker.root, method.name, *arguments))
                if watching is not None and len(parts) == 1:
                    watching.runs(broker, parts[0])
                return parts
            finally:
                broker.answered_or_failed()
        finally:
            self._turns.release()

    def _overdue(self, started: float) -> ConnectionProblem:
        broker = self._broker
        if broker is None:
            return ConnectionProblem(
                self._last_problem or f"No auth server could be reached within {self._timeout:g} seconds."
            )
        if broker.heard < started:
            broker.abort()  # nothing has arrived since the call: the connection is broken
        return ConnectionProblem(f"The auth server did not answer within {self._timeout:g} seconds; try again.")


def _none_of(problems: list[tuple[str, TeleconchError]]) -> TeleconchError:
    """One error for a failed round. A problem that will not go away by itself takes precedence over one that may."""
    for name, error in problems:
        if not isinstance(error, ConnectionProblem):
            return type(error)(f"Auth server {name}: {error}")
    told = "; ".join(f"{name}: {error}" for name, error in problems)
    return ConnectionProblem(f"No auth server could be reached ({told}). Check auth_servers and that auth is running.")
