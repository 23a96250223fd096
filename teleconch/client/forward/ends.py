"""The relay's ends on the user's machine, and the channels they are joined to."""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from teleconch.client.forward.specs import Place
from teleconch.codec import string, uint32
from teleconch.ssh.relay import RelayChannel, RelayProtocol, relay

DIAL_SECONDS: Final = 30.0
LINGER: Final = 10.0  # seconds that a program gets to take what was sent before a close


class LocalEnd(RelayProtocol):
    """At a socket on this machine. Paused until it is joined."""

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._last_call: Any = None

    def loseWriteConnection(self) -> None:
        """Send EOF behind the last byte; the program can still send."""
        transport: Any = self.transport
        if not self.ended:
            transport.unregisterProducer()  # a Twisted transport that paused its producer forgets to send EOF
        super().loseWriteConnection()

    def loseConnection(self) -> None:
        """Close behind the last byte, or when the program does not take it."""
        if self._last_call is None and not self.ended:
            self._last_call = self._reactor.callLater(LINGER, self.abort)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        super().connectionLost(reason)

    def abort(self) -> None:
        """Close at once, unless it is closed."""
        transport: Any = self.transport
        if transport is not None and not self.ended:
            transport.abortConnection()


async def dial(reactor: Any, place: Place) -> LocalEnd:
    """An end at ``place``, seen from this machine. ConnectError and other errors of Twisted."""
    endpoint: Any
    if place.path:
        endpoint = UNIXClientEndpoint(reactor, os.fsencode(place.path), DIAL_SECONDS)
    else:
        endpoint = HostnameEndpoint(reactor, place.host or "localhost", place.port, DIAL_SECONDS)
    factory: Any = Factory.forProtocol(lambda: LocalEnd(reactor))
    factory.noisy = False
    end: LocalEnd = await endpoint.connect(factory)
    return end


class ToNode(RelayChannel):
    """To a place as the node sees it: ``direct-tcpip`` (RFC 4254 section 7.2), or OpenSSH's for a Unix socket."""

    def __init__(self, place: Place, peer: Any) -> None:
        super().__init__()
        self.place = place
        if place.path:
            self.name = b"direct-streamlocal@openssh.com"
            self.target = string(os.fsencode(place.path)) + string(b"") + uint32(0)
        else:
            self.name = b"direct-tcpip"
            host, port = getattr(peer, "host", "127.0.0.1"), getattr(peer, "port", 0)
            self.target = (
                string((place.host or "localhost").encode())
                + uint32(place.port)
                + string(str(host).encode())
                + uint32(port)
            )


class FromNode(RelayChannel):
    """From the node to a socket here that is connected already."""

    def __init__(self, end: LocalEnd, label: str) -> None:
        super().__init__()
        self._end = end
        self.place = label

    def channelOpen(self, specificData: bytes) -> None:
        relay(self, self._end)

    def openFailed(self, reason: Any) -> None:
        self._end.abort()
