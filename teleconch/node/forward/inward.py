"""Listeners on the node, and the channels that each connection to them opens toward the client: ``forwarded-tcpip``
(RFC 4254 section 7.2), ``forwarded-streamlocal@openssh.com``, ``auth-agent@openssh.com``, ``x11`` (section 6.3.2)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.node.start import IReactorNode

AT_ONCE: Final = 16  # connections taken in one turn
PAUSE: Final = 1.0  # seconds without descriptors before the next try

Accepted = Callable[[socket.socket, Any], None]

log = Logger()


@implementer(IReadDescriptor)
class Acceptor:
    """Takes connections from one listening socket, as long as it is open."""

    def __init__(self, reactor: IReactorNode, sock: socket.socket, accepted: Accepted) -> None:
        self._reactor = reactor
        self._socket = sock
        self._accepted = accepted
        self._pause: IDelayedCall | None = None
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "forwarding"

    def doRead(self) -> None:
        for _ in range(AT_ONCE):
            if self._socket.fileno() < 0:
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("a forwarded connection has to wait: {error}", error=str(error))
                    self._reactor.removeReader(self)
                    self._pause = self._reactor.callLater(PAUSE, self._reactor.addReader, self)
                    return
                continue  # the peer was gone before we came
            sock.setblocking(False)
            self._accepted(sock, address)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()


class Listener:
    """The sockets of one thing that is listened on. ``closing`` is called once, when that is closed."""

    def __init__(
        self,
        reactor: IReactorNode,
        sockets: Sequence[socket.socket],
        accepted: Accepted,
        closing: Callable[[], None] = lambda: None,
    ) -> None:
        self._acceptors = [Acceptor(reactor, sock, accepted) for sock in sockets]
        self._closing = closing
        self.closed = False

    def close(self) -> None:
        """Close the sockets; connections that were taken go on. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for acceptor in self._acceptors:
            acceptor.close()
        self._closing()
