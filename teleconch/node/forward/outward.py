"""The user's sockets that are already connected, as ends of a relay: where ``direct-tcpip`` (RFC 4254 section 7.2)
and ``direct-streamlocal@openssh.com`` (OpenSSH's PROTOCOL, section 2.4) lead, and what listeners take."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IReactorSocket
from twisted.internet.tcp import Connection

from teleconch.node.start import IReactorNode
from teleconch.ssh import limits
from teleconch.ssh.ends import OneEnd, SocketEnd

LINGER: Final = limits.RELAY_LINGER  # seconds that a program gets to take what was sent before it is closed


def adopt(reactor: IReactorNode, sock: socket.socket, gone: Callable[[], None] = lambda: None) -> SocketEnd:
    """An end, paused, for a connected socket, which is the reactor's from now on. OSError if it is broken already; then
    ``gone`` is not called."""

    def closed() -> None:
        vars(end.transport).pop("doRead", None)  # which holds the transport
        gone()

    end = SocketEnd(LINGER, closed)
    factory: Any = OneEnd(end)
    with sock:
        IReactorSocket(reactor).adoptStreamConnection(sock.fileno(), sock.family, factory)
        if sock.family == socket.AF_UNIX:
            # Descriptors may come with the bytes, unasked for. Twisted would take them, and closing a file of a user's
            # FUSE file system waits for whoever serves it. What recv(2) leaves is let go of without that wait.
            transport: Any = end.transport
            transport.doRead = partial(Connection.doRead, transport)
    return end
