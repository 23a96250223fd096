"""One connection that is being made: all addresses of a name, in turn, without waiting long for any (RFC 8305).

The next address begins when one has failed, or is still trying after :data:`HEAD_START`; the first that connects wins.
Runs in the user's child: standard library only, nothing here blocks.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Iterable
from typing import Final

HEAD_START: Final = 0.25  # seconds
BUSY_WAIT: Final = 0.05  # until a Unix socket with a full backlog is tried again
DEADLINE: Final = 30.0

Address = tuple[int, object]  # family, and what connect() takes


class Dial:
    """``sockets`` are under way, to be polled for writing; ``won`` or ``error`` (an errno) tells how it ended."""

    def __init__(self, id: int, addresses: Iterable[Address], now: float) -> None:
        self.id = id
        self._left = deque(addresses)
        self._deadline = now + DEADLINE
        self._next = now
        self.sockets: dict[int, socket.socket] = {}
        self.won: socket.socket | None = None
        self.error: int | None = None
        self._last = errno.EADDRNOTAVAIL
        self._begin(now)

    @property
    def over(self) -> bool:
        """Whether it is decided."""
        return self.won is not None or self.error is not None

    @property
    def due(self) -> float:
        """When :meth:`pass_time` is to be called next."""
        return min(self._deadline, self._next) if self._left else self._deadline

    def pass_time(self, now: float) -> None:
        """Begin the next address, or give up."""
        if now >= self._deadline:
            self._lose(errno.ETIMEDOUT)
        elif self._left and now >= self._next:
            self._begin(now)

    def ready(self, fd: int, now: float) -> None:
        """One of ``sockets`` is connected or has failed. If it is neither, nothing changes."""
        sock = self.sockets.get(fd)
        if sock is None:
            return
        self._last = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._last == 0:
            if _is_connected(sock):
                del self.sockets[fd]
                self._win(sock)
            return
        del self.sockets[fd]
        sock.close()
        self._begin(now)

    def close(self) -> None:
        """Let go of what is under way."""
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        self._left.clear()

    def _begin(self, now: float) -> None:
        while self._left:
            family, address = self._left.popleft()
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                self._last = error.errno or errno.EAFNOSUPPORT
                continue
            try:
                self._last = sock.connect_ex(address)  # type: ignore[arg-type]
            except OSError:  # a path or an address that Python does not take
                self._last = errno.EINVAL
            if self._last == 0:
                self._win(sock)
                return
            if self._last == errno.EINPROGRESS:
                self.sockets[sock.fileno()] = sock
                self._next = now + HEAD_START
                return
            sock.close()
            if self._last == errno.EAGAIN:
                self._left.appendleft((family, address))
                self._next = now + BUSY_WAIT
                return
        if not self.sockets:
            self._lose(self._last)

    def _win(self, sock: socket.socket) -> None:
        self.won = sock
        self.close()

    def _lose(self, error: int) -> None:
        self.error = error
        self.close()


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
