"""Channels that lead out of the node: ``direct-tcpip`` (RFC 4254 section 7.2), ``direct-streamlocal@openssh.com``
(OpenSSH's PROTOCOL, section 2.4)."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IFileDescriptorReceiver, IReactorSocket, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.node.start import IReactorNode
from teleconch.ssh import limits
from teleconch.ssh.relay import RelayChannel, RelayProtocol, relay

LINGER: Final = limits.RELAY_LINGER  # seconds that a program gets to take what was sent before a close
_NO_LINGER: Final = struct.pack("ii", 0, 0)


@implementer(IFileDescriptorReceiver)
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
        super().connectionLost(reason)
        self._gone()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Nobody asked for one. A socket that is set to linger would keep the process that closes it last."""
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            os.close(descriptor)

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
