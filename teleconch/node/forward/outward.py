"""Channels that lead out of the node: ``direct-tcpip`` (RFC 4254 section 7.2), ``direct-streamlocal@openssh.com``
(OpenSSH's PROTOCOL, section 2.4)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorSocket, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from teleconch.node.start import IReactorNode
from teleconch.ssh import limits
from teleconch.ssh.relay import RelayChannel, RelayProtocol, relay

LINGER: Final = limits.RELAY_LINGER  # seconds that a program gets to take what was sent before a close


class SocketEnd(RelayProtocol):
    """The relay's end at a socket of the user's. ``gone`` is called once when the socket is closed."""

    def __init__(self, clock: IReactorTime, gone: Callable[[], None]) -> None:
        super().__init__()
        self._clock = clock
        self._gone = gone
        self._last_call: IDelayedCall | None = None

    def loseConnection(self) -> None:
        """Close behind the last byte, or when the program does not take it."""
        if self._last_call is None and not self.ended:
            self._last_call = self._clock.callLater(LINGER, self.abort)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        vars(self.transport).pop("doRead", None)  # which holds the transport
        super().connectionLost(reason)
        self._gone()

    def abort(self) -> None:
        """Close at once, unless it is closed."""
        transport: Any = self.transport
        if transport is not None and not self.ended:
            transport.abortConnection()


class _One(ServerFactory[SocketEnd]):
    noisy = False

    def __init__(self, end: SocketEnd) -> None:
        self._end = end

    def buildProtocol(self, addr: object) -> SocketEnd:
        return self._end


def adopt(reactor: IReactorNode, sock: socket.socket, gone: Callable[[], None] = lambda: None) -> SocketEnd:
    """An end, paused, for a connected socket, which is the reactor's from now on. OSError where it is broken already;
    then ``gone`` is not called."""
    end = SocketEnd(reactor, gone)
    factory: Any = _One(end)
    with sock:
        IReactorSocket(reactor).adoptStreamConnection(sock.fileno(), sock.family, factory)
        if sock.family == socket.AF_UNIX:
            # Descriptors may come with the bytes, unasked for. Twisted would take them, and closing a file of a user's
            # FUSE file system waits for who serves it. What recv(2) leaves is let go of without that.
            transport: Any = end.transport
            transport.doRead = partial(Connection.doRead, transport)
    return end


class DirectChannel(RelayChannel):
    """To a socket that is connected already."""

    def __init__(self, end: SocketEnd) -> None:
        super().__init__()
        self._target = end

    def channelOpen(self, specificData: bytes) -> None:
        relay(self, self._target)

    def openFailed(self, reason: Any) -> None:
        self._target.abort()
