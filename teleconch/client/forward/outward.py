"""``-L`` and ``-D``: sockets that listen here; each connection to them becomes a channel to the node."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from teleconch.client.forward.ends import LINGER, ToNode
from teleconch.client.forward.socks import NotSocks, Socks, Wanted
from teleconch.client.forward.specs import Forward, Place
from teleconch.errors import ConnectionProblem
from teleconch.ssh.client import ClientConnection
from teleconch.ssh.ends import SocketEnd
from teleconch.ssh.problems import ChannelRefused
from teleconch.ssh.relay import relay

Warn = Callable[[str], None]


class Accepted(SocketEnd):
    """A connection that was made to us; with ``target`` None, it waits for what SOCKS says."""

    def __init__(self, connection: ClientConnection, target: Place | None, warn: Warn) -> None:
        super().__init__(LINGER)
        self._connection = connection
        self._target = target
        self._warn = warn
        self._socks = Socks() if target is None else None

    def connectionMade(self) -> None:
        if self._target is not None:
            super().connectionMade()
            self._lead(self._target)

    def dataReceived(self, data: bytes) -> None:
        if self._socks is None:
            super().dataReceived(data)
            return
        try:
            answer, wanted = self._socks.feed(data)
        except NotSocks:
            self.abort()
            return
        transport: Any = self.transport
        if answer:
            transport.write(answer)
        if wanted is not None:
            self._socks = None
            self.pauseProducing()
            if wanted.rest:
                self.heard(wanted.rest)
            self._lead(wanted.place, wanted)

    def _lead(self, place: Place, wanted: Wanted | None = None) -> None:
        Deferred.fromCoroutine(self._open(place, wanted)).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        self._warn(f"A forwarded connection broke: {failure.getErrorMessage()}.")
        self.abort()

    async def _open(self, place: Place, wanted: Wanted | None) -> None:
        transport: Any = self.transport
        channel = ToNode(place, transport.getPeer())
        try:
            await self._connection.open(channel, channel.target)
        except (ChannelRefused, ConnectionLost) as problem:
            self._warn(f"The node does not connect to {place}: {problem}.")
            if wanted is not None and not self.is_gone:
                transport.write(wanted.refused)
                self.loseConnection()
            else:
                self.abort()
            return
        if self.is_gone:
            channel.loseConnection()
            return
        if wanted is not None:
            self.write(wanted.granted)
        relay(self, channel)


def listen(reactor: Any, connection: ClientConnection, forward: Forward, warn: Warn) -> Callable[[], Any]:
    """Listen for ``forward``; returns a function that ends it. ConnectionProblem if nobody can listen there."""
    factory: Any = Factory.forProtocol(lambda: Accepted(connection, forward.target, warn))
    factory.noisy = False
    place = forward.listen
    ports: list[Any] = []
    problem: Exception | None = None
    if place.path:
        try:
            ports.append(reactor.listenUNIX(os.fsencode(place.path), factory, mode=0o600))
        except CannotListenError as error:
            problem = error
    else:
        everywhere = ("0.0.0.0", "::")  # noqa: S104 -- what the user asked for with an empty address or *
        addresses = ("127.0.0.1", "::1") if place.host is None else (place.host,) if place.host else everywhere
        for address in addresses:
            try:
                ports.append(reactor.listenTCP(place.port, factory, interface=address))
            except (CannotListenError, OSError, ValueError) as error:
                # One of the two loopback addresses is enough; "::" may include 0.0.0.0.
                problem = problem or error
    if not ports:
        reason = getattr(problem, "socketError", problem)
        raise ConnectionProblem(
            f"tsh cannot listen on {place} here ({getattr(reason, 'strerror', None) or reason}): choose another port."
        )

    def close() -> None:
        for port in ports:
            port.stopListening()

    return close
