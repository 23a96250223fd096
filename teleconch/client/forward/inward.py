"""``-R`` and ``-A``: what the node may open toward this machine. Nothing that was not asked for on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost

from teleconch.client.forward.ends import dial
from teleconch.client.forward.socks import NotSocks, Socks, Wanted
from teleconch.client.forward.specs import Forward, Place
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, ConnectionProblem
from teleconch.ssh import messages
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientConnection
from teleconch.ssh.ends import RelayChannel, ToEnd
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from teleconch.ssh.reader import Reader
from teleconch.ssh.relay import relay

AGENT_REQUEST = b"auth-agent-req@openssh.com"


class SocksChannel(RelayChannel):
    """From the node, where a SOCKS client says where to go from this machine (``-R PORT``)."""

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._socks: Socks | None = Socks()
        self.place = "SOCKS"
        self.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if self._socks is None:
            super().dataReceived(data)
            return
        try:
            answer, wanted = self._socks.feed(data)
        except NotSocks:
            self.loseConnection()
            return
        if answer:
            self.write(answer)
        if wanted is not None:
            self._socks = None
            self.pauseProducing()
            if wanted.rest:
                self.heard(wanted.rest)
            Deferred.fromCoroutine(self._lead(wanted)).addErrback(lambda _: self.loseConnection())

    async def _lead(self, wanted: Wanted) -> None:
        try:
            end = await dial(self._reactor, wanted.place)
        except (ConnectError, OSError):
            self.write(wanted.refused)
            self.loseConnection()
            return
        if self.is_gone:
            end.abort()
            return
        self.write(wanted.granted)
        relay(self, end)


class Inward:
    """The avatar that answers the node: ``agent`` is the path of the user's ssh-agent if it is forwarded."""

    conn: Any = None

    def __init__(self, reactor: Any, agent: str | None, warn: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._agent = agent
        self._warn = warn
        self._ports: dict[tuple[bytes, int], Place | None] = {}
        self._paths: dict[bytes, Place | None] = {}

    async def ask(self, connection: ClientConnection, forward: Forward) -> int:
        """Have the node listen for ``forward``; returns the port that it chose, or 0. AccessDenied,
        ConnectionProblem."""
        place = forward.listen
        host = b"localhost" if place.host is None else place.host.encode()
        path = os.fsencode(place.path)
        if path:
            name, data = b"streamlocal-forward@openssh.com", string(path)
            self._paths[path] = forward.target
        else:
            name, data = b"tcpip-forward", string(host) + uint32(place.port)
            self._ports[host, place.port] = forward.target
        try:
            answer = connection.sendGlobalRequest(name, data, 1)
            assert answer is not None
            reply = await answer
        except RequestRefused:
            raise AccessDenied(
                f"The node does not listen on {place}: it is taken, or your roles do not allow it."
            ) from None
        except ConnectionLost as lost:
            raise ConnectionProblem("The node closed the connection; try again.") from lost
        if path or place.port:
            return 0
        port = Reader(reply).uint32()
        self._ports[host, port] = self._ports.pop((host, 0))
        return port

    async def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Channel:
        reader = Reader(data)
        target: Place | None
        if kind == b"auth-agent@openssh.com" and self._agent is not None:
            target = Place(path=self._agent)
        elif kind == b"forwarded-tcpip":
            target = self._target(self._ports, (reader.string(), reader.uint32()))
        elif kind == b"forwarded-streamlocal@openssh.com":
            target = self._target(self._paths, reader.string())
        else:
            raise ChannelRefused(messages.OPEN_ADMINISTRATIVELY_PROHIBITED, "nobody asked for that here")
        if target is None:
            return SocksChannel(self._reactor)
        try:
            end = await dial(self._reactor, target)
        except (ConnectError, OSError) as error:
            self._warn(f"Nobody answers at {target}, where a connection from the node was to go: {error}")
            raise ChannelRefused(messages.OPEN_CONNECT_FAILED, "nobody answers there") from None
        return ToEnd(end)

    @staticmethod
    def _target(known: dict[Any, Place | None], key: Any) -> Place | None:
        if key not in known:
            raise ChannelRefused(messages.OPEN_ADMINISTRATIVELY_PROHIBITED, "nobody asked for that here")
        return known[key]
