"""Opens connections: to a node for which there is a permit, and to the auth server's API. Nothing else is dialled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, NoRouteError, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.access.permit import DialPermit
from teleconch.defaults import AUTH_PORT, NODE_PORT
from teleconch.errors import ConnectionProblem
from teleconch.proxy.directory import split_address
from teleconch.ssh.relay import RelayProtocol

log = Logger()

CONNECT_TIMEOUT: Final = 10.0
VERSION_TIMEOUT: Final = 10.0
_VERSIONS: Final = (b"SSH-2.0-", b"SSH-1.99-")  # RFC 4253 sections 4.2 and 5.1
_LONGEST: Final = max(map(len, _VERSIONS))


class NodeEnd(RelayProtocol):
    """The socket to a node. Silent until the node has proved to be an SSH server by its first bytes.

    What a registered address leads to may be anything (a rogue node can register the address of a database): no byte of
    the user's goes there before it began to speak SSH (LESSONS: GHSA-hw4x-mcx5-9q36, CVE-2024-35175).
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_ssh: Deferred[None] = Deferred()
        self.gone: Callable[[], None] | None = None  # called when the socket is closed

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)
        if not self.is_ssh.called:
            self._judge(b"".join(self._early)[:_LONGEST])

    def readConnectionLost(self) -> None:
        self.not_ssh("it closed the connection before it said anything")
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.not_ssh("it closed the connection before it said anything")
        super().connectionLost(reason)
        if self.gone is not None:
            self.gone()

    def _judge(self, begin: bytes) -> None:
        if begin.startswith(_VERSIONS):
            transport: Any = self.transport
            transport.pauseProducing()
            self.is_ssh.callback(None)
        elif not any(version.startswith(begin) for version in _VERSIONS):
            self.not_ssh("what answers there does not speak SSH")

    def not_ssh(self, why: str) -> None:
        """Give up, unless it has proved to be SSH. ``why`` is the part of a sentence."""
        if not self.is_ssh.called:
            self.is_ssh.errback(ConnectionProblem(why))


class AuthEnd(RelayProtocol):
    """The socket to an auth server. ``gone`` is called when it was open and is not any more."""

    def __init__(self, gone: Callable[[], None]) -> None:
        super().__init__()
        self._gone = gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._gone()


class _One(Factory[RelayProtocol]):
    noisy = False

    def __init__(self, protocol: RelayProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> RelayProtocol:
        return self._protocol


class Dialler:
    """Opens the connections of one proxy. ``auth_addresses`` are ``host:port``."""

    def __init__(self, reactor: Any, auth_addresses: Iterable[str]) -> None:
        self._reactor: Any = reactor
        self._clock: IReactorTime = reactor
        self._auth = tuple(split_address(address) for address in auth_addresses)

    async def node(self, permit: DialPermit) -> NodeEnd:
        """The permitted node's end, which spoke SSH and is paused. ConnectionProblem, with a part of a sentence."""
        host, port = split_address(permit.node.addr)
        end = NodeEnd()
        await self._connect(end, host, port or NODE_PORT)
        late = self._clock.callLater(VERSION_TIMEOUT, end.not_ssh, "it accepted the connection but said nothing")
        try:
            await end.is_ssh
        except BaseException:
            abort(end)
            raise
        finally:
            if late.active():
                late.cancel()
        return end

    async def auth(self, gone: Callable[[], None]) -> AuthEnd:
        """An end at the first auth server that can be reached; ``gone`` is called when it closed. ConnectionProblem."""
        for host, port in self._auth:
            end = AuthEnd(gone)
            try:
                await self._connect(end, host, port or AUTH_PORT)
            except ConnectionProblem as error:
                log.warn("auth server {host}:{port}: {error}", host=host, port=port or AUTH_PORT, error=str(error))
            else:
                return end
        raise ConnectionProblem("The proxy cannot reach the auth server at the moment: try again in a minute.")

    async def _connect(self, end: RelayProtocol, host: str, port: int) -> None:
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
        try:
            await endpoint.connect(_One(end))
        except DNSLookupError:
            raise ConnectionProblem("its name is not known where the proxy runs") from None
        except ConnectError as error:
            raise ConnectionProblem(_WHY.get(type(error), "the connection failed")) from None


_WHY: Final[dict[type[Exception], str]] = {
    ConnectionRefusedError: "nothing listens there",
    TimeoutError: "it does not answer",
    NoRouteError: "there is no route to it",
}


def abort(end: RelayProtocol) -> None:
    """Drop an end that is not needed any more."""
    transport: Any = end.transport
    if transport is not None and not end.is_gone:
        transport.abortConnection()
