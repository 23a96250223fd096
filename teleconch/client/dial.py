"""From here to the proxy and through it to a node: two SSH connections, one inside the other.

Each server has to show a host certificate of the cluster's stored host authority, for the name that was asked for.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from teleconch.errors import ConnectionProblem, NotFound
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.secret import Secret
from teleconch.ssh.client import ClientConnection, ClientOptions, connect
from teleconch.ssh.problems import ChannelRefused
from teleconch.ssh.relay import RelayChannel

KEEPALIVE = 30.0  # seconds; load balancers cut connections that are silent for a minute


@frozen
class Credentials:
    """The user's SSH key and certificate line, and whom hosts have to be certified by.

    ``insecure``: any host key will do.
    """

    private_key: Secret
    certificate: str
    authorities: tuple[TrustedAuthority, ...]
    insecure: bool = False


@implementer(IStreamClientEndpoint)
class OpenSocket:
    """A TCP connection that is made already, as an endpoint."""

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


def host_check(credentials: Credentials, host: str) -> Callable[[bytes], None]:
    """What a server's host key has to pass to be ``host``. Raises TrustError."""
    from teleconch.ca.ssh import check_host_certificate

    def check(blob: bytes) -> None:
        if not credentials.insecure:
            check_host_certificate(blob, authorities=credentials.authorities, host=host, now=time.time())

    return check


async def to_proxy(
    reactor: Any, connected: socket.socket, proxy: str, login: str, credentials: Credentials
) -> ClientConnection:
    """Log in to the proxy ``proxy`` (its host name) over a TCP connection. A TeleconchError."""
    try:
        return await connect(
            reactor,
            OpenSocket(reactor, connected),
            user=login,
            private_key_pem=credentials.private_key,
            certificate=credentials.certificate,
            verify_host=host_check(credentials, proxy),
            options=ClientOptions(keepalive_interval=KEEPALIVE),
        )
    except ConnectionProblem as problem:
        raise ConnectionProblem(f"No connection to the proxy {proxy}: {problem}") from problem


class Through(RelayChannel):
    """The way to a node: ``direct-tcpip`` at the proxy (RFC 4254 section 7.2)."""

    name = b"direct-tcpip"


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


async def through_proxy(
    reactor: Any, proxy: ClientConnection, host: str, port: int, login: str, credentials: Credentials
) -> ClientConnection:
    """Log in to a node as ``login`` through the proxy. ``port`` 0: the node's own. NotFound with the proxy's sentence
    where it does not know the node, any TeleconchError of the node itself."""
    target = _string(host.encode()) + struct.pack(">I", port) + _string(b"127.0.0.1") + struct.pack(">I", 0)
    channel = Through()
    try:
        await proxy.open(channel, target)
    except ChannelRefused as refused:
        raise NotFound(str(refused)) from refused
    except ConnectionLost as lost:
        raise ConnectionProblem("The proxy closed the connection; try again.") from lost
    try:
        return await connect(
            reactor,
            channel,
            user=login,
            private_key_pem=credentials.private_key,
            certificate=credentials.certificate,
            verify_host=host_check(credentials, host),
            options=ClientOptions(keepalive_interval=KEEPALIVE),
        )
    except ConnectionProblem as problem:
        raise ConnectionProblem(f"No connection to {host} through the proxy: {problem}") from problem
