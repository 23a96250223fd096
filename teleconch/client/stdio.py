"""Standard input, output and error of a session: whatever they are (terminal, pipe, file, socket, ``/dev/null``).

The open file descriptions are shared with the shell and with whoever else stands in a pipeline, so they are not made
non-blocking: input is read when there is some; output goes through a description of our own where the system gives
one, else in pieces so small that they never block.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

READ_SIZE = 128 * 1024
HIGH = 256 * 1024  # unwritten bytes above which the session is asked to rest
_SMALL = 4096  # PIPE_BUF: what a pipe that is ready takes without blocking


@implementer(IReadDescriptor, IPushProducer)
class Input:
    """Reads ``fd`` and gives what it read to ``deliver``, an empty string once at the end. Starts paused."""

    def __init__(self, reactor: Any, fd: int, deliver: Callable[[bytes], None]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._deliver = deliver
        self._ended = False

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "input"

    def doRead(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:  # whoever started us made it non-blocking
            return
        except OSError:  # EIO: the terminal is gone; EBADF: it was closed (`<&-`)
            data = b""
        if not data:
            self.stopProducing()
        self._deliver(data)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw a hang-up: what is left can still be read."""
        if not self._ended:
            self.doRead()

    def pauseProducing(self) -> None:
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        if self._ended:
            return
        try:
            self._reactor.addReader(self)
        except OSError:  # EBADF: there is no such descriptor
            self.stopProducing()
            self._deliver(b"")

    def stopProducing(self) -> None:
        self._ended = True
        self._reactor.removeReader(self)


@implementer(IWriteDescriptor)
class Output:
    """Writes to ``fd``. ``full`` says whether the writer should rest; ``drained`` is called when all is written.

    ``broken`` is called once with the error when nobody reads any more (EPIPE) or the disk is full; what is written
    after that is dropped.
    """

    def __init__(self, reactor: Any, fd: int, drained: Callable[[], None], broken: Callable[[OSError], None]) -> None:
        self._reactor = reactor
        self._drained = drained
        self._broken = broken
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._failed = False
        self._piece = READ_SIZE
        self._direct = False  # a file: always takes everything
        self._fd, self._own = self._open(fd)

    def _open(self, fd: int) -> tuple[int, bool]:
        try:
            status = os.fstat(fd)
        except OSError:  # closed (`>&-`): like /dev/null
            self._failed = True
            return -1, False
        null = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
        if stat.S_ISREG(status.st_mode) or null:
            self._direct = True
            return fd, False
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), True
        except OSError:  # a socket, a terminal of another user, no /proc
            self._piece = _SMALL
            return fd, False

    @property
    def full(self) -> bool:
        return self._size > HIGH

    @property
    def empty(self) -> bool:
        return not self._waiting

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "output"

    def write(self, data: bytes) -> None:
        if self._failed or not data:
            return
        if self._direct:
            self._write_file(data)
            return
        if not self._waiting and self._own:
            data = data[self._try(data) :]
            if self._failed or not data:
                return
        if not self._waiting:
            self._reactor.addWriter(self)
        self._waiting.append(data)
        self._size += len(data)

    def doWrite(self) -> None:
        while self._waiting and not self._failed:
            data = self._waiting[0]
            written = self._try(data)
            self._size -= written
            if written == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = data[written:]
                break
            if not self._own:
                break
        if not self._waiting:
            self._reactor.removeWriter(self)
            self._drained()

    def _try(self, data: bytes) -> int:
        try:
            return os.write(self._fd, memoryview(data)[: self._piece])
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return 0

    def _write_file(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                self._fail(error)
                return

    def _fail(self, error: OSError) -> None:
        self._failed = True
        if self._waiting:
            self._waiting.clear()
            self._size = 0
            self._reactor.removeWriter(self)
        self._broken(error)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw that nobody reads any more."""
        if not self._failed:
            self._fail(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def close(self) -> None:
        if self._waiting:
            self._reactor.removeWriter(self)
        if self._own:
            os.close(self._fd)
            self._own = False
        self._failed = True
