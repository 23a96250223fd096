"""A client's connection to an auth server: opened, checked and ready, or a sentence that says why not."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IHandshakeListener, IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch import defaults
from teleconch.api.codec import ANSWER_MAX
from teleconch.api.tls import ClientTLS, peer_chain
from teleconch.api.wire import ROOT, Brokers, WireBroker
from teleconch.errors import BadParameter, ConnectionProblem, TeleconchError, TrustError, quoted
from teleconch.resources.address import split_address

_ENVELOPE: Final = 64 * 1024
_PUSHES_MAX: Final = 16  # calls from the server that may be in progress here


def endpoint_of(reactor: Any, address: str, timeout: float) -> IStreamClientEndpoint:
    """``host``, ``host:port``, ``[v6]`` or ``[v6]:port`` as an endpoint; the default port is the auth server's."""
    found = split_address(address)
    if found is None:
        raise BadParameter(
            f"{quoted(address)} is not an auth server's address: write host:port, for IPv6 [address]:port."
        )
    endpoint: IStreamClientEndpoint = HostnameEndpoint(
        reactor, found[0], found[1] or defaults.AUTH_PORT, timeout=timeout
    )
    return endpoint


@implementer(IHandshakeListener)
class ClientBroker(WireBroker):
    """``ready`` fires with the broker once the server has been checked and speaks. It fails with a TeleconchError."""

    def __init__(self, clock: IReactorTime, tls: ClientTLS) -> None:
        super().__init__(True, ANSWER_MAX + _ENVELOPE, _PUSHES_MAX)
        self._clock = clock
        self._tls = tls
        self._checked = False
        self.ready: Deferred[ClientBroker] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.heard = 0.0
        self.retired = False

    @property
    def root(self) -> Any:
        """The server's root object, which this peer calls."""
        return self.remoteForName(ROOT)  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        try:
            self._tls.check(peer_chain(self.transport))
        except TeleconchError as problem:
            self._settle(Failure(problem))
            self.abort()
            return
        self._checked = True
        if ITCPTransport.providedBy(self.transport):  # an SSH channel does not
            self.transport.setTcpKeepAlive(True)

    def usable(self) -> None:
        """Both sides have agreed on the protocol."""
        self._settle(self if self._checked else Failure(TrustError("The auth server was not checked.")))

    def message_received(self) -> None:
        self.heard = self._clock.seconds()

    def answered_or_failed(self) -> None:
        """One of our calls has ended. A retired connection ends with its last call."""
        if self.retired and not self.waitingForAnswers:
            self.close()

    def retire(self) -> None:
        """Take no new calls, and end once those in progress have ended."""
        self.retired = True
        self.answered_or_failed()

    def _settle(self, result: Any) -> None:
        if not self.ready.called:
            self.ready.callback(result)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._settle(Failure(ConnectionProblem(reason_of(reason))))
        self.lost.callback(None)


async def open_connection(
    clock: IReactorTime, endpoint: IStreamClientEndpoint, tls: ClientTLS, timeout: float
) -> ClientBroker:
    """Open a connection that is ready for calls. ConnectionProblem; TrustError and ClockSkew from ``tls.check``."""
    try:
        prepared = tls.prepared()
    except ValueError:
        raise TrustError("The TLS certificate or private key here cannot be read.") from None
    broker = ClientBroker(clock, tls)
    connecting: Deferred[Any] = endpoint.connect(
        TLSMemoryBIOFactory(prepared, True, Brokers(lambda: broker, ClientBroker.usable))
    )
    try:
        await connecting.addTimeout(timeout, clock)
        return await broker.ready.addTimeout(timeout, clock)
    except TeleconchError:
        raise
    except defer.TimeoutError:
        broker.abort()
        raise ConnectionProblem(f"no answer within {timeout:g} s") from None
    except defer.CancelledError:
        broker.abort()
        raise
    except Exception as problem:
        broker.abort()
        raise ConnectionProblem(reason_of(Failure(problem))) from problem


def reason_of(failure: Failure) -> str:
    """Why a connection failed, as half a sentence."""
    problem = failure.value
    if isinstance(problem, error.ConnectionRefusedError):
        return "connection refused"
    if isinstance(problem, error.DNSLookupError):
        return "the name is not known"
    if isinstance(problem, error.TimeoutError):
        return "no answer in time"
    if isinstance(problem, SSL.Error):
        return "it does not speak TLS 1.3 as an auth server does (is the port right?)"
    if isinstance(problem, (error.ConnectionDone, error.ConnectionLost, error.ConnectionAborted)):
        return "it closed the connection"
    if isinstance(problem, OSError):
        return problem.strerror or type(problem).__name__
    text = str(problem).strip().rstrip(".").splitlines()
    return text[0] if text else type(problem).__name__
