"""The auth API's server: TLS 1.3, then Perspective Broker with the perspective of the peer's certificate.

The caller's identity is checked at every call, not once per connection: when a certificate expires or an authority is
dropped, a long-lived connection loses its rights.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from attrs import evolve, frozen
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from teleconch import defaults
from teleconch.admission import Admission, Bounds, Room, source_of
from teleconch.api.codec import METHODS, REQUEST_MAX, Method, decode_arguments, encode_result
from teleconch.api.perspectives import described, methods_of
from teleconch.api.tls import ServerTLS, TLSCredentials, peer_chain
from teleconch.api.watching import PushedWatch
from teleconch.api.wire import FAILED, OK, ROOT, Answer, Brokers, Exposed, WireBroker, error_answer
from teleconch.ca.tls import identity_of
from teleconch.errors import AccessDenied, BadParameter, LimitExceeded, TeleconchError, TrustError, Unavailable, quoted
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.turns import AtOnce
from teleconch.visitors import Visitors

log = Logger()

_ENVELOPE: Final = 1024  # bytes of a message in addition to its arguments
_PIECE: Final = 512  # bytes read between two checks that the peer takes its answers: a few small calls


@frozen
class APILimits:
    """Bounds of one server; times in seconds. ``visitors`` bounds the connections that have said nothing yet. Half as
    many may be in the handshake, and half as many may have shown no valid certificate in it. ``per_member`` bounds the
    connections of one user or host.
    """

    connections: int = 16_384
    visitors: int = 1000
    visitors_per_address: int = 500
    per_member: int = 48
    handshake: float = 10.0
    anonymous: float = 30.0
    idle: float = 15 * defaults.MINUTE
    calls: int = 64
    user_calls: int = 8
    anonymous_calls: int = 2
    anonymous_calls_in_total: int = 64
    anonymous_calls_of_one_source: int = 16
    watches: int = 4

    def bounds(self) -> Bounds:
        """The bounds of the server's connections."""
        total = max(1, min(self.visitors, self.connections // 4))  # the rest is for members
        one = max(1, min(self.visitors_per_address, total))
        later = Room(max(1, total // 2), max(1, one // 2))
        return Bounds(self.connections, (Room(total, one), later, later), 0, self.per_member, oldest_goes=True)


_ANONYMOUS = 2  # a step of admission, after the handshake's


class _Root(Exposed):
    """What a peer can call: the methods of its perspective."""

    def __init__(self, server: APIServerFactory, broker: _ServerBroker) -> None:
        self._server = server
        self._broker = broker

    async def answer(self, name: str, arguments: tuple[Any, ...]) -> Answer:
        identity: ApiIdentity | None = None
        try:
            identity = self._broker.identity()
            method = self._method(identity, name)
        except TeleconchError as error:
            self._refused(identity, name, error)
            return error_answer(error)
        try:
            call = self._call(identity, method, arguments)
        except TeleconchError as error:
            self._log(LogLevel.info, name, error)
            return error_answer(error)
        try:
            return await call()
        except TeleconchError as error:  # whoever decided has already reported it
            self._log(LogLevel.warn if isinstance(error, Unavailable) else LogLevel.debug, name, error)
            return error_answer(error)
        except Exception:  # noqa: BLE001  whatever went wrong, the peer learns only that something did
            log.failure("{method} failed for {addr_remote}", method=name, addr_remote=self._broker.address)
            return FAILED

    def _method(self, identity: ApiIdentity, name: str) -> Method:
        if name in methods_of(identity):
            return METHODS[name]
        if identity is ANONYMOUS or name in METHODS:
            raise AccessDenied(f"The auth API's {quoted(name)} is not for {described(identity)}.")
        raise BadParameter(f"The auth API has no {quoted(name)}: are both sides up to date?")

    def _call(
        self, identity: ApiIdentity, method: Method, arguments: tuple[Any, ...]
    ) -> Callable[[], Awaitable[Answer]]:
        """The call, ready to be made. BadParameter, LimitExceeded."""
        api = self._server.authorize(self._broker.located(identity))
        call = getattr(api, method.name)
        if len(arguments) != 1 + method.streams or not isinstance(arguments[0], bytes):
            also = " and a receiver" if method.streams else ""
            raise BadParameter(f"{method.name} takes its arguments as one text{also}.")
        values = decode_arguments(method, arguments[0])
        if method.streams:
            pushed = self._watched(arguments[1])
            return partial(self._watch, partial(call, *values, pushed), pushed)
        return partial(self._serve, identity, method, partial(call, *values))

    async def _serve(self, identity: ApiIdentity, method: Method, call: Callable[[], Awaitable[Any]]) -> Answer:
        if identity is not ANONYMOUS:
            return (OK, *encode_result(method, await call()))
        with ExitStack() as under_way:
            source = source_of(getattr(self._broker.transport.getPeer(), "host", ""))
            try:
                under_way.enter_context(self._server.anonymous_calls.one(source))
            except LimitExceeded as error:
                self._log(LogLevel.info, method.name, error)
                raise
            return (OK, *encode_result(method, await call()))

    def _watched(self, receiver: object) -> PushedWatch:
        """One more watch of the peer. BadParameter, LimitExceeded."""
        if not isinstance(receiver, pb.RemoteReference):
            raise BadParameter("A watch takes a receiver.")
        watches = self._broker.watches
        watches[:] = [each for each in watches if not each.over]
        if len(watches) >= self._server.limits.watches:
            raise LimitExceeded(f"At most {self._server.limits.watches} watches run on one connection.")
        pushed = PushedWatch(self._broker, receiver, self._broker.identity)
        watches.append(pushed)
        return pushed

    async def _watch(self, call: Callable[[], Awaitable[Any]], pushed: PushedWatch) -> Answer:
        try:
            pushed.runs_as(await call())
        except BaseException:
            pushed.stop()
            raise
        if self._broker.disconnected:
            pushed.stop()
        return (OK, pushed)

    def _log(self, level: Any, name: str, error: TeleconchError) -> None:
        failed = "auth API: {method!r} of {addr_remote} failed: {error}"
        log.emit(level, failed, method=name, addr_remote=self._broker.address, error=str(error))

    def _refused(self, identity: ApiIdentity | None, name: str, error: TeleconchError) -> None:
        if identity is not None:
            self._server.refused(self._broker.located(identity), name, str(error))
        else:  # the certificate is not a member's, or no longer
            self._broker.last_answer = True
            self._broker.certificate_refused(error)


@implementer(IHandshakeListener)
class _ServerBroker(WireBroker):
    """One peer. ``last_answer``: end the connection after the next answer."""

    def __init__(self, server: APIServerFactory) -> None:
        super().__init__(False, REQUEST_MAX + _ENVELOPE, server.limits.anonymous_calls, piece=_PIECE)
        self._server = server
        self._certificate: bytes | None = None
        self._handshaken = False
        self._told = False
        self._deadline: Any = None
        self._visitor: Any = None
        self.member = False
        self.last_answer = False
        self.watches: list[PushedWatch] = []
        self.setNameForLocal(ROOT, _Root(server, self))  # type: ignore[no-untyped-call]

    def identity(self) -> ApiIdentity:
        """Who the peer is at this moment. TrustError."""
        if not self._handshaken:
            raise TrustError("The TLS handshake is not complete.")
        if self._certificate is None:
            return ANONYMOUS
        return identity_of(self._certificate, self._server.authorities(), self._server.now())

    def certificate_refused(self, error: TeleconchError) -> None:
        """Report that the peer's certificate is not accepted. Reports once for each connection."""
        if not self._told:
            self._told = True
            self._server.refused(self.located(ANONYMOUS), "", str(error))

    def located(self, identity: ApiIdentity) -> ApiIdentity:
        """``identity`` with the address that its call comes from. A connection from this machine itself has the same
        address at both ends; one that a proxy relays for users does not (``proxy.dial.RELAY_SOURCE``)."""
        peer, own = (getattr(end, "host", "") for end in (self.transport.getPeer(), self.transport.getHost()))
        return evolve(identity, address=peer, here=peer == own != "")

    def connectionMade(self) -> None:
        self._visitor = self.transport.transport  # below TLS
        self._expect_within(self._server.limits.handshake)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        self._handshaken = True
        self._visitor.handshaken()
        self._certificate = next(iter(peer_chain(self.transport)), None)
        self.transport.registerProducer(self, True)
        limits = self._server.limits
        identity = ANONYMOUS
        try:
            identity = self.identity()
        except TrustError as error:
            self.certificate_refused(error)
        self.member = identity is not ANONYMOUS
        if not self.member:
            self._server.admission.advanced(self._visitor, _ANONYMOUS)
        else:
            self._server.admission.authenticated(self._visitor, f"{identity.kind} {identity.name}")
            self.calls_max = limits.user_calls if identity.kind == "user" else limits.calls
            self.transport.setTcpKeepAlive(1)
        self._expect_within(limits.idle if self.member else limits.anonymous)

    def message_received(self) -> None:
        if self.member:
            self._server.admission.used(self._visitor)
            self._expect_within(self._server.limits.idle)

    def answered(self) -> None:
        if self.last_answer:
            self.close()

    def _expect_within(self, seconds: float) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = self._server.clock.callLater(seconds, self._overdue)

    def _overdue(self) -> None:
        log.info("connection of {addr_remote} ended: nothing came in time", addr_remote=self.address)
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        for each in self.watches:
            if not each.over:
                each.stop()
        self.watches.clear()


class APIServerFactory(Visitors):
    """Serves the auth API on whatever endpoint it is given to. It does TLS itself.

    ``authorize`` returns the API as one identity may use it (``auth.authorized.checked``). ``authorities`` returns the
    cluster's; it is called at every call. ``credentials`` returns the server's own certificate followed by its
    authority's (PEM), with the key; it is called at every connection. ``now`` returns epoch seconds; ``clock`` is for
    deadlines. ``refused`` is told of each refusal that ``authorize`` does not see: who, the method ("" for a
    certificate), and why. ``reactor`` is the reactor of the connections, if it differs from ``clock``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        authorize: Callable[[ApiIdentity], object],
        authorities: Callable[[], Iterable[TrustedAuthority]],
        credentials: Callable[[], TLSCredentials],
        now: Callable[[], float],
        refused: Callable[[ApiIdentity, str, str], None],
        limits: APILimits | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        self.authorize = authorize
        self.authorities = authorities
        self.now = now
        self.refused = refused
        self.limits = limits or APILimits()
        tls = TLSMemoryBIOFactory(ServerTLS(credentials), False, Brokers(lambda: _ServerBroker(self)))
        admission = Admission(self.limits.bounds(), clock.seconds, "auth")
        super().__init__(tls, admission, clock, self.limits.handshake, reactor)
        self.anonymous_calls = AtOnce(  # by source
            "Too many hosts are joining at this moment; try again in a while.",
            self.limits.anonymous_calls_of_one_source,
            self.limits.anonymous_calls_in_total,
        )
