"""Pseudo-terminals: what a ``pty-req`` asks for (RFC 4254 section 6.2), and the pair that answers it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from teleconch.codec import Malformed, Reader
from teleconch.errors import BadParameter
from teleconch.session.program import WindowSize
from teleconch.ssh import modes

TERM_MAX: Final = 64


@frozen
class PtyRequest:
    """``TERM``, the window and the terminal modes (opcode to value) that a client asks for."""

    term: str
    size: WindowSize
    modes: Mapping[int, int]


def parse_size(data: bytes) -> WindowSize:
    """The body of ``window-change``: uint32 columns, rows, width, height. BadParameter."""
    try:
        return _size(Reader(data))
    except Malformed:
        raise BadParameter("A window has four numbers.") from None


def _size(reader: Reader) -> WindowSize:
    size = WindowSize(reader.uint32(), reader.uint32(), reader.uint32(), reader.uint32())
    reader.end()
    return size


def parse_request(data: bytes) -> PtyRequest:
    """The body of ``pty-req``: string TERM, four uint32 of the window, string modes. BadParameter."""
    try:
        reader = Reader(data)
        term, size, encoded = reader.string(), _size(Reader(reader.take(16))), reader.string()
        reader.end()
        wanted = modes.parse(encoded)
    except Malformed as problem:
        raise BadParameter(f"The request for a terminal cannot be read: {problem}.") from None
    if len(term) > TERM_MAX or not all(0x20 < byte < 0x7F for byte in term):
        raise BadParameter("The terminal's type cannot be read.")
    return PtyRequest(term.decode("ascii"), size, wanted)


def apply_modes(fd: int, wanted: Mapping[int, int]) -> None:
    """Set the terminal's modes as asked; opcodes that Linux does not know are left out."""
    attributes = termios.tcgetattr(fd)
    modes.apply(wanted, attributes)
    try:
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as error:
        if error.args[0] != errno.EINVAL:
            raise
        # All that a PTY can take was set; libc complains about the rest (a PTY has no parity, for one). sshd goes on,
        # too.


class Terminal:
    """A PTY whose master we hold. The slave is handed to a process once, with :meth:`take_slave`."""

    def __init__(self, request: PtyRequest) -> None:
        """OSError if the machine has no PTY left."""
        self.request = request
        self.master, self._slave = os.openpty()
        try:
            self.path = os.ttyname(self._slave)
            apply_modes(self._slave, request.modes)
            self.resize(request.size)
        except (OSError, termios.error) as error:
            self.close()
            raise OSError(f"the terminal could not be set up: {error}") from error

    def take_slave(self) -> int:
        """The slave's descriptor; whoever takes it closes it."""
        slave, self._slave = self._slave, -1
        return slave

    def resize(self, size: WindowSize) -> None:
        """Set the window size; the kernel sends SIGWINCH to the foreground group."""
        if self.master >= 0:
            numbers = (size.rows, size.columns, size.width, size.height)
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *(min(n, 0xFFFF) for n in numbers)))

    def send_break(self) -> None:
        """A break on the line (RFC 4335)."""
        if self.master >= 0:
            termios.tcsendbreak(self.master, 0)

    def close(self) -> None:
        """Hang up: the kernel sends SIGHUP to the session's leader and foreground group. Idempotent."""
        for fd in (self.master, self._slave):
            if fd >= 0:
                os.close(fd)
        self.master = self._slave = -1
