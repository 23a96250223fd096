"""A client of the auth API: one connection, opened when it is needed, over several addresses and again after a loss."""

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

from teleconch import defaults
from teleconch.api.codec import METHODS, Method, decode_events, decode_result, encode_arguments
from teleconch.api.connection import ClientBroker, endpoint_of, open_connection
from teleconch.api.interface import NodeReceiver, Watch
from teleconch.api.tls import ClientTLS
from teleconch.api.wire import OK, Answer, Exposed, error_answer, read_answer
from teleconch.errors import BadParameter, ConnectionProblem, LimitExceeded, TeleconchError
from teleconch.places import Places
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates, JoinRequest, Ping, RenewRequest
from teleconch.resources.lockout import Lockout
from teleconch.resources.login import ClusterStatus, LoginRequest, SignedHost, Signup, SignupToken, UserCertificates
from teleconch.resources.node import Node, NodePage, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User

log = Logger()

_CALLS_MAX: Final = 32  # in progress at once
_WAITING_MAX: Final = 1000  # calls that wait for their turn


class _Watching(Exposed):
    """The receiver that the server calls, and the ``Watch`` that the caller holds."""

    def __init__(self, receiver: NodeReceiver) -> None:
        self._receiver = receiver
        self._broker: ClientBroker | None = None
        self._handle: Any = None
        self._over = False

    def runs(self, broker: ClientBroker, handle: Any) -> None:
        self._broker, self._handle = broker, handle
        if not self._over:
            broker.lost.addCallback(lambda _: self.ended())

    async def answer(self, name: str, arguments: tuple[Any, ...]) -> Answer:
        if name == "watch_ended":
            self.ended()
        elif name == "node_events" and len(arguments) == 1 and isinstance(arguments[0], bytes):
            if not self._over:
                self._receiver.node_events(decode_events(arguments[0]))
        else:
            return error_answer(BadParameter("A receiver of changes has no such method."))
        return (OK,)

    def ended(self) -> None:
        if not self._over:
            self._over = True
            self._receiver.watch_ended()

    def stop(self) -> None:
        if self._over:
            return
        self._over = True
        if self._broker is not None:
            stopped = self._broker.call(self._handle, "stop")
            stopped.addErrback(lambda _: None)  # a server that is gone has stopped
            self._handle = None


class AuthClient:
    """Implements every protocol of ``api/interface.py`` by asking an auth server.

    ``addresses`` are ``host:port`` texts or endpoints (a channel of SSH, for example), tried in turn, the one that
    worked last first. A round in which none answers fails the calls that wait for it; the next round begins after a
    back-off with full jitter. A call that takes longer than ``timeout`` seconds fails with ConnectionProblem. A call
    is never sent twice: whoever makes it knows whether that is safe. ``connected`` is told of each new connection.
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

    # -- the connection

    def renewed(self) -> None:
        """The credentials changed: further calls use a new connection; the old one ends after its calls."""
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
            limit = min(defaults.BACKOFF_MAX, defaults.BACKOFF_FIRST * 2 ** min(self._failures, 16))
            self._failures += 1
            self._not_before = self._clock.seconds() + self._chance.random() * limit
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
            self._not_before = self._clock.seconds() + self._chance.random() * defaults.BACKOFF_FIRST

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

    async def _call(self, name: str, *arguments: Any) -> Any:
        method = METHODS[name]
        parts = await self._ask(method, encode_arguments(method, arguments))
        try:
            return decode_result(method, parts)
        except BadParameter as error:
            raise ConnectionProblem(f"{error} Are both sides up to date?") from None

    async def _ask(self, method: Method, argument: object) -> tuple[Any, ...]:
        if len(self._turns.waiting) >= _WAITING_MAX:
            raise LimitExceeded("Too many calls wait for the auth server; try again in a while.")
        started = self._clock.seconds()
        asked = Deferred.fromCoroutine(self._ask_in_turn(method, argument))
        try:
            return await asked.addTimeout(self._timeout, self._clock)
        except defer.TimeoutError:
            raise self._overdue(started) from None

    async def _ask_in_turn(self, method: Method, argument: object) -> tuple[Any, ...]:
        await self._turns.acquire()
        try:
            broker = await self._connection()
            try:
                parts = read_answer(await broker.call(broker.root, method.name, argument))
                if method.streams and isinstance(argument, _Watching) and len(parts) == 1:
                    argument.runs(broker, parts[0])
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
            broker.abort()  # nothing at all came since: the way there is broken
        return ConnectionProblem(f"The auth server did not answer within {self._timeout:g} seconds; try again.")

    # -- Join

    async def join(self, request: JoinRequest) -> HostCertificates:
        return await self._call("join", request)  # type: ignore[no-any-return]

    # -- Cluster

    async def status(self) -> ClusterStatus:
        return await self._call("status")  # type: ignore[no-any-return]

    async def authorities(self) -> tuple[TrustedAuthority, ...]:
        return await self._call("authorities")  # type: ignore[no-any-return]

    # -- Hosts

    async def renew(self, request: RenewRequest) -> HostCertificates:
        return await self._call("renew", request)  # type: ignore[no-any-return]

    async def heartbeat(self, node: Node, instance: str) -> Ping:
        return await self._call("heartbeat", node, instance)  # type: ignore[no-any-return]

    async def goodbye(self, instance: str) -> None:
        await self._call("goodbye", instance)

    # -- Nodes

    async def list_nodes(self, after: str, limit: int) -> NodePage:
        return await self._call("list_nodes", after, limit)  # type: ignore[no-any-return]

    async def get_node(self, uuid: str) -> NodeStatus:
        return await self._call("get_node", uuid)  # type: ignore[no-any-return]

    async def delete_node(self, uuid: str) -> None:
        await self._call("delete_node", uuid)

    async def watch_nodes(self, receiver: NodeReceiver) -> Watch:
        watching = _Watching(receiver)
        try:
            await self._ask(METHODS["watch_nodes"], watching)
        except BaseException:
            watching.stop()
            raise
        return watching

    # -- Tokens

    async def create_token(self, roles: tuple[str, ...], ttl: float, value: Secret | None) -> Token:
        return await self._call("create_token", roles, ttl, value)  # type: ignore[no-any-return]

    async def list_tokens(self) -> tuple[Token, ...]:
        return await self._call("list_tokens")  # type: ignore[no-any-return]

    async def delete_token(self, value: Secret) -> None:
        await self._call("delete_token", value)

    # -- Users

    async def create_user(self, user: User, ttl: float) -> SignupToken:
        return await self._call("create_user", user, ttl)  # type: ignore[no-any-return]

    async def upsert_user(self, user: User, replace: bool) -> None:
        await self._call("upsert_user", user, replace)

    async def reset_user(self, name: str, ttl: float) -> SignupToken:
        return await self._call("reset_user", name, ttl)  # type: ignore[no-any-return]

    async def unlock_user(self, name: str) -> bool:
        return await self._call("unlock_user", name)  # type: ignore[no-any-return]

    async def get_user(self, name: str) -> User:
        return await self._call("get_user", name)  # type: ignore[no-any-return]

    async def list_users(self) -> tuple[User, ...]:
        return await self._call("list_users")  # type: ignore[no-any-return]

    async def list_lockouts(self) -> tuple[Lockout, ...]:
        return await self._call("list_lockouts")  # type: ignore[no-any-return]

    async def delete_user(self, name: str) -> None:
        await self._call("delete_user", name)

    # -- Logins

    async def login(self, request: LoginRequest) -> UserCertificates:
        return await self._call("login", request)  # type: ignore[no-any-return]

    async def start_signup(self, token: Secret) -> Signup:
        return await self._call("start_signup", token)  # type: ignore[no-any-return]

    async def finish_signup(self, token: Secret, password: Secret, otp: str) -> str:
        return await self._call("finish_signup", token, password, otp)  # type: ignore[no-any-return]

    # -- Signing

    async def sign_user(self, name: str, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        return await self._call("sign_user", name, ssh_public_key, tls_public_key, ttl)  # type: ignore[no-any-return]

    async def sign_host(
        self, names: tuple[str, ...], ssh_public_key: str, tls_public_key: str, ttl: float
    ) -> SignedHost:
        return await self._call("sign_host", names, ssh_public_key, tls_public_key, ttl)  # type: ignore[no-any-return]


def _none_of(problems: list[tuple[str, TeleconchError]]) -> TeleconchError:
    """One error for a round without success: what will not pass by itself comes before what may."""
    for name, error in problems:
        if not isinstance(error, ConnectionProblem):
            return type(error)(f"Auth server {name}: {error}")
    told = "; ".join(f"{name}: {error}" for name, error in problems)
    return ConnectionProblem(f"No auth server could be reached ({told}). Check auth_servers and that auth is running.")
