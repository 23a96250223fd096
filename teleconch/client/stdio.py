"""Standard input, output and error of a session: whatever they are (terminal, pipe, file, socket, ``/dev/null``).

The open file descriptions are shared with the shell and with whatever else is in a pipeline, so they are not made
non-blocking. Input is read when there is some. Output goes through a description of our own if the system gives us one,
else in pieces so small that they never block.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import Final

READ_SIZE: Final = 128 * 1024
_SMALL: Final = 4096  # PIPE_BUF: what a pipe that is ready takes without blocking
_GONE: Final = -1


def read_input(fd: int) -> bytes | None:
    """What is there to read, an empty string at the end, None if there is nothing after all."""
    try:
        return os.read(fd, READ_SIZE)
    except BlockingIOError:  # whoever started us made it non-blocking
        return None
    except OSError:  # EIO: the terminal is gone; EBADF: it was closed (`<&-`)
        return b""


class Output:
    """Writes to ``fd`` as it takes it. ``consumed`` counts bytes that are written (or dropped, after an error).

    ``error`` is set once nobody reads any longer (EPIPE), or the disk is full.
    """

    def __init__(self, fd: int) -> None:
        self.error: OSError | None = None
        self._consumed = 0
        self._waiting: deque[bytes | memoryview] = deque()
        self._size = 0
        self._piece = READ_SIZE
        self._blocking = False  # a file: takes everything at once
        self._own = False
        self.fd = self._open(fd)

    def _open(self, fd: int) -> int:
        try:
            status = os.fstat(fd)
        except OSError:  # closed (`>&-`): as /dev/null
            return _GONE
        if stat.S_ISREG(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)):
            self._blocking = True
            return fd
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # a socket, a terminal of another user, no /proc
            self._piece = _SMALL
            return fd
        self._own = True
        return own

    @property
    def waiting(self) -> bool:
        """Whether to call :meth:`ready` when ``fd`` can be written to."""
        return bool(self._waiting)

    def consumed(self) -> int:
        """Bytes that were consumed since the last call."""
        count, self._consumed = self._consumed, 0
        return count

    def write(self, data: bytes) -> None:
        """Write, or keep until there is room."""
        self._waiting.append(data)
        self._size += len(data)
        if self._own or self._blocking or self.fd == _GONE or self.error:
            self.ready()

    def ready(self) -> None:
        """Write what ``fd`` takes now."""
        while self._waiting:
            data = self._waiting[0]
            written = self._write(data)
            if written < len(data):
                self._waiting[0] = memoryview(data)[written:]
            else:
                self._waiting.popleft()
            self._size -= written
            self._consumed += written
            if written < min(len(data), self._piece) or not (self._own or self._blocking or self.fd == _GONE):
                break

    def _write(self, data: bytes | memoryview) -> int:
        if self.error is not None or self.fd == _GONE:
            return len(data)
        try:
            return os.write(self.fd, memoryview(data)[: self._piece])
        except BlockingIOError:
            return 0
        except OSError as error:
            self.error = error
            return len(data)

    def close(self) -> None:
        if self._own:
            os.close(self.fd)
            self._own = False
            self.fd = _GONE
