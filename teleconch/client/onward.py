"""From the proxy to a node on a reactor: SSH inside a channel of the connection to the proxy."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost

from teleconch.client.dial import KEEPALIVE, Credentials, host_check
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, ConnectionProblem, NotFound
from teleconch.ssh.client import ClientConnection, ClientOptions, connect
from teleconch.ssh.problems import ChannelRefused
from teleconch.ssh.relay import RelayChannel


class WayToNode(RelayChannel):
    """The proxy's channel to a node."""

    name = b"direct-tcpip"


async def to_node(
    reactor: Any,
    proxy: ClientConnection,
    host: str,
    port: int,
    login: str,
    credentials: Credentials,
    avatar: Any = None,
) -> ClientConnection:
    """Log in to the node ``host`` through a proxy. ``avatar`` answers what the node opens. NotFound, AccessDenied,
    ConnectionProblem, TrustError."""
    way = WayToNode()
    try:
        await proxy.open(way, string(host.encode()) + uint32(port) + string(b"127.0.0.1") + uint32(0))
    except ChannelRefused as refused:
        raise NotFound(refused.sentence or "The proxy does not lead to this node.") from None
    except ConnectionLost as lost:
        raise ConnectionProblem("The proxy closed the connection; try again.") from lost
    try:
        return await connect(
            reactor,
            way,
            user=login,
            private_key_pem=credentials.private_key,
            certificate=credentials.certificate,
            verify_host=host_check(credentials, host),
            options=ClientOptions(keepalive_interval=KEEPALIVE, avatar=avatar),
        )
    except AccessDenied as problem:
        raise AccessDenied(f"No login at {host}: {problem}") from None
    except ConnectionProblem as problem:
        raise ConnectionProblem(f"No connection to {host}: {problem}") from problem
