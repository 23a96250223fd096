"""From here to the proxy on a reactor, for the auth API. (``tsh ssh`` goes by ``road``.)

The proxy has to show a host certificate of the cluster's stored host authority, for the name that was asked for.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from teleconch.errors import ConnectionProblem
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.secret import Secret
from teleconch.ssh.client import ClientConnection, ClientOptions, connect

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
