"""The daemon's ends of a process's pipes and terminal: big reads, big pipes, bounded buffers.

Twisted's own process support reads 8 KiB at a time and buffers without a bound. Here a :class:`Source` reads up to
256 KiB and is a push producer; a :class:`Sink` writes at once where it can, and pauses its producer as soon as the
process does not keep up. Pipes grow to 1 MiB when they are first seen full, so that short commands do not pay for it.

The source and the sink of one terminal need descriptors of their own (``dup``): the reactor knows each descriptor once.
"""

from __future__ import annotations

import fcntl
import os
import termios
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.session.program import Room, Take

READ_SMALL: Final = 16 * 1024
READ_BIG: Final = 256 * 1024
PIPE_SIZE: Final = 1024 * 1024
TERMINAL_BURST: Final = 16  # a terminal gives at most 4 KiB a read: join this many into one packet
TERMINAL_FULL: Final = 2048
SINK_HIGH: Final = 128 * 1024  # the producer is paused above this, and resumed when all is written


class Feeder(Protocol):
    """What sends input."""

    def pause_input(self) -> None: ...
    def resume_input(self) -> None: ...


def grow_pipe(fd: int) -> None:
    """Make a pipe 1 MiB, if the system's limit for this user allows it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (OSError, AttributeError):  # AttributeError: not in every build of Python 3.11
        pass


@implementer(IReadDescriptor, IPushProducer)
class Source:
    """Reads a non-blocking descriptor, gives each piece to ``deliver``, and at the end closes it and calls ``ended``.

    Starts paused. A terminal whose last user is gone reads as ``EIO``; that is its end.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        fd: int,
        deliver: Take,
        ended: Callable[[], None],
        terminal: bool = False,
    ) -> None:
        os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._room: Room | None = None
        self._deliver = deliver
        self._ended = ended
        self._terminal = terminal
        self._size = READ_SMALL
        self._grown = terminal

    def deliver_to(self, deliver: Take, room: Room | None) -> None:
        """From now on. It reads no more than there is room for, so that none of it has to be kept."""
        self._deliver, self._room = deliver, room

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def empty(self) -> bool:
        """Whether nothing waits to be read at this moment (or will ever)."""
        if self._fd < 0:
            return True
        waiting = fcntl.ioctl(self._fd, termios.FIONREAD, b"\0\0\0\0")
        return waiting == b"\0\0\0\0"

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "source"

    def doRead(self) -> None:
        size, room = self._size, self._room
        if room is not None and 0 < room.remoteWindowLeft < size:
            size = room.remoteWindowLeft
        try:
            data = os.read(self._fd, size)
            if self._terminal and len(data) >= TERMINAL_FULL:
                data = self._burst(data, size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stopProducing()
            self._ended()
            return
        if len(data) == self._size:
            self._size = READ_BIG
            if not self._grown:
                self._grown = True
                grow_pipe(self._fd)
        self._deliver(data)

    def _burst(self, first: bytes, size: int) -> bytes:
        pieces = [first]
        try:
            while len(pieces) < TERMINAL_BURST and (size := size - len(pieces[-1])) > 0:
                piece = os.read(self._fd, min(size, READ_SMALL))
                pieces.append(piece)
                if len(piece) < TERMINAL_FULL:
                    break
        except OSError:  # nothing more now, or the end, which the next read tells again
            pass
        return b"".join(pieces)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw a hang-up with nothing left to read."""
        if self._fd >= 0:
            self.stopProducing()
            self._ended()

    def pauseProducing(self) -> None:
        if self._fd >= 0:
            self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        if self._fd >= 0:
            self._reactor.addReader(self)

    def stopProducing(self) -> None:
        """Close without a word. Idempotent."""
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1


@implementer(IWriteDescriptor)
class Sink:
    """Writes to a non-blocking descriptor; ``feeder`` is paused and resumed so that little more than :data:`SINK_HIGH`
    is ever kept here. ``lost`` is called when the process has closed its end; what is written
    afterwards is dropped, so that the peer's window does not shut on data that nobody will read."""

    def __init__(
        self, reactor: IReactorFDSet, fd: int, feeder: Feeder, lost: Callable[[], None], terminal: bool = False
    ) -> None:
        os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._feeder = feeder
        self._lost = lost
        self._waiting: deque[memoryview] = deque()
        self.size = 0  # bytes that wait
        self._finishing = False
        self._grown = terminal
        self._paused = False

    def write(self, data: bytes) -> None:
        """Write now, or keep what the process does not take yet."""
        if self._fd < 0 or self._finishing or not data:
            return
        if not self._waiting:
            try:
                written = os.write(self._fd, data)
            except OSError as error:
                written = self._not_written(error)
            if written == len(data) or self._fd < 0:
                return
            data = data[written:]
            if not self._grown:
                self._grown = True
                grow_pipe(self._fd)
            self._reactor.addWriter(self)
        self._waiting.append(memoryview(data))
        self.size += len(data)
        if self.size > SINK_HIGH and not self._paused:
            self._paused = True
            self._feeder.pause_input()

    def finish(self) -> None:
        """The peer will send nothing more: close when all is written, so that the process reads EOF."""
        self._finishing = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close now; what waits is dropped. Idempotent."""
        if self._fd >= 0:
            self._reactor.removeWriter(self)
            os.close(self._fd)
            self._fd = -1
        self._waiting.clear()
        self.size = 0
        self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._feeder.resume_input()

    def _not_written(self, error: OSError) -> int:
        if not isinstance(error, BlockingIOError):
            self.close()
            self._lost()
        return 0

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "sink"

    def doWrite(self) -> None:
        while self._waiting:
            piece = self._waiting[0]
            try:
                written = os.write(self._fd, piece)
            except OSError as error:
                written = self._not_written(error)
            if self._fd < 0:
                return
            self.size -= written
            if written < len(piece):
                self._waiting[0] = piece[written:]
                break
            self._waiting.popleft()
        if not self._waiting:
            self._reactor.removeWriter(self)
            self._resume()
            if self._finishing and not self._waiting:
                self.close()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw that the process closed its end."""
        if self._fd >= 0:
            self.close()
            self._lost()
