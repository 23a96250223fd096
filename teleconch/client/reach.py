"""From here to a proxy and on to nodes and the auth API, on a reactor. (``tsh ssh`` alone goes by ``road``.)

::

    TCP or HTTP proxy (tcp, http_proxy) ── SSH ── ProxyConnection ─┬─ channel ── SSH ── to_node()
                                                                   └─ channel ── TLS ── ask()      (cluster)

Each server has to show a host certificate from the cluster's stored host authority, for the name that was asked for.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from teleconch.client.address import split_address
from teleconch.client.standing import Standing
from teleconch.client.tcp import connect_tcp
from teleconch.codec import string, uint32
from teleconch.defaults import PROXY_PORT
from teleconch.errors import AccessDenied, ConnectionProblem, NotFound
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientConnection, ClientOptions, connect
from teleconch.ssh.ends import RelayChannel
from teleconch.ssh.problems import ChannelRefused

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI

T = TypeVar("T")

KEEPALIVE = 30.0  # seconds; load balancers cut connections that are silent for a minute


@implementer(IStreamClientEndpoint)
class OpenSocket:
    """A TCP connection that already exists, as an endpoint."""

    def __init__(self, reactor: Any, connected: socket.socket) -> None:
        self._reactor = reactor
        self._socket = connected

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        made: list[Protocol] = []

        class _Noting(Factory[Protocol]):
            noisy = False

            def buildProtocol(self, addr: Any) -> Protocol | None:
                protocol: Protocol | None = protocolFactory.buildProtocol(addr)
                if protocol is not None:
                    made.append(protocol)
                return protocol

        with self._socket:  # the reactor takes a duplicate
            self._socket.setblocking(False)
            self._reactor.adoptStreamConnection(self._socket.fileno(), self._socket.family, _Noting())
        return succeed(made[0])


class WayToNode(RelayChannel):
    """The proxy's channel to a node."""

    name = b"direct-tcpip"


class ProxyConnection:
    """A connection to the proxy of ``standing``. Make one with :meth:`reach`."""

    def __init__(
        self, reactor: Any, standing: Standing, insecure: bool, connection: ClientConnection, now: Callable[[], float]
    ) -> None:
        self.standing = standing
        self._reactor = reactor
        self._insecure = insecure
        self._connection = connection
        self._now = now

    @classmethod
    async def reach(
        cls, reactor: Any, standing: Standing, insecure: bool, login: str, now: Callable[[], float] = time.time
    ) -> ProxyConnection:
        """Log in to the proxy as ``login``, which may be any login in the certificate. A TeleconchError.

        ``insecure``: any host key will do, here and beyond.
        """
        host, port = split_address(standing.profile.ssh_proxy_addr, PROXY_PORT)
        connected = await deferToThread(connect_tcp, host, port)
        try:
            connection = await _log_in(reactor, standing, insecure, OpenSocket(reactor, connected), host, login, now)
        except ConnectionProblem as problem:
            raise ConnectionProblem(f"No connection to the proxy {host}: {problem}") from problem
        return cls(reactor, standing, insecure, connection, now)

    async def to_node(self, host: str, port: int, login: str, avatar: Any = None) -> ClientConnection:
        """Log in to the node ``host``; with port 0, to the one with that name. ``avatar`` answers what the node opens.
        NotFound, AccessDenied, ConnectionProblem, TrustError."""
        way = WayToNode()
        try:
            await self._connection.open(way, string(host.encode()) + uint32(port) + string(b"127.0.0.1") + uint32(0))
        except ChannelRefused as refused:
            raise NotFound(refused.sentence or "The proxy does not lead to this node.") from None
        except ConnectionLost as lost:
            raise ConnectionProblem("The proxy closed the connection; try again.") from lost
        try:
            return await _log_in(self._reactor, self.standing, self._insecure, way, host, login, self._now, avatar)
        except AccessDenied as problem:
            raise AccessDenied(f"No login at {host}: {problem}") from None
        except ConnectionProblem as problem:
            raise ConnectionProblem(f"No connection to {host}: {problem}") from problem

    async def ask(self, question: Callable[[AuthAPI], Awaitable[T]]) -> T:
        """What ``question`` gets out of the auth API as this user. A TeleconchError."""
        from teleconch.client import cluster

        return await cluster.ask(self._reactor, self._connection, cluster.identity_of(self.standing), question)

    def close(self) -> None:
        """Leave."""
        self._connection.transport.loseConnection()


async def _log_in(
    reactor: Any,
    standing: Standing,
    insecure: bool,
    way: IStreamClientEndpoint | Channel,
    host: str,
    login: str,
    now: Callable[[], float],
    avatar: Any = None,
) -> ClientConnection:
    return await connect(
        reactor,
        way,
        user=login,
        private_key_pem=standing.private_key,
        certificate=standing.certificate,
        verify_host=standing.host_check(host, insecure, now),
        options=ClientOptions(keepalive_interval=KEEPALIVE, avatar=avatar),
    )
