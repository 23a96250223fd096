"""Pseudo-terminals: what a ``pty-req`` asks for (RFC 4254 section 6.2 and 8), and the pair that answers it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from teleconch.errors import BadParameter

TERM_MAX: Final = 64
MODES_MAX: Final = 4096
_IUTF8: Final = 0o40000  # not in Python's termios
_DISABLED: Final = b"\0"  # Linux's _POSIX_VDISABLE; the protocol says 255

_SPEED_IN, _SPEED_OUT = 129, 128

# opcode -> index into the control characters
_CHARACTERS: Final[Mapping[int, int]] = {
    1: termios.VINTR,
    2: termios.VQUIT,
    3: termios.VERASE,
    4: termios.VKILL,
    5: termios.VEOF,
    6: termios.VEOL,
    7: termios.VEOL2,
    8: termios.VSTART,
    9: termios.VSTOP,
    10: termios.VSUSP,
    12: termios.VREPRINT,
    13: termios.VWERASE,
    14: termios.VLNEXT,
    18: termios.VDISCARD,
}
# opcode -> (index into tcgetattr's list, flag); of CS7 to PARODD, a PTY's driver keeps only what it can
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)
_FLAGS: Final[Mapping[int, tuple[int, int]]] = {
    30: (_IFLAG, termios.IGNPAR),
    31: (_IFLAG, termios.PARMRK),
    32: (_IFLAG, termios.INPCK),
    33: (_IFLAG, termios.ISTRIP),
    34: (_IFLAG, termios.INLCR),
    35: (_IFLAG, termios.IGNCR),
    36: (_IFLAG, termios.ICRNL),
    37: (_IFLAG, termios.IUCLC),
    38: (_IFLAG, termios.IXON),
    39: (_IFLAG, termios.IXANY),
    40: (_IFLAG, termios.IXOFF),
    41: (_IFLAG, termios.IMAXBEL),
    42: (_IFLAG, _IUTF8),  # RFC 8160
    50: (_LFLAG, termios.ISIG),
    51: (_LFLAG, termios.ICANON),
    52: (_LFLAG, termios.XCASE),
    53: (_LFLAG, termios.ECHO),
    54: (_LFLAG, termios.ECHOE),
    55: (_LFLAG, termios.ECHOK),
    56: (_LFLAG, termios.ECHONL),
    57: (_LFLAG, termios.NOFLSH),
    58: (_LFLAG, termios.TOSTOP),
    59: (_LFLAG, termios.IEXTEN),
    60: (_LFLAG, termios.ECHOCTL),
    61: (_LFLAG, termios.ECHOKE),
    62: (_LFLAG, termios.PENDIN),
    70: (_OFLAG, termios.OPOST),
    71: (_OFLAG, termios.OLCUC),
    72: (_OFLAG, termios.ONLCR),
    73: (_OFLAG, termios.OCRNL),
    74: (_OFLAG, termios.ONOCR),
    75: (_OFLAG, termios.ONLRET),
    90: (_CFLAG, termios.CS7),
    91: (_CFLAG, termios.CS8),
    92: (_CFLAG, termios.PARENB),
    93: (_CFLAG, termios.PARODD),
}
_SPEEDS: Final[Mapping[int, int]] = {
    int(name[1:]): getattr(termios, name) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()
}


@frozen
class WindowSize:
    """Columns and rows, and the same in pixels (0: unknown)."""

    columns: int
    rows: int
    width: int = 0
    height: int = 0

    def packed(self) -> bytes:
        """``struct winsize``."""
        return struct.pack("HHHH", *(min(n, 0xFFFF) for n in (self.rows, self.columns, self.width, self.height)))


@frozen
class PtyRequest:
    """``TERM``, the window and the terminal modes (opcode to value) that a client asks for."""

    term: str
    size: WindowSize
    modes: Mapping[int, int]


def _string(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise BadParameter("The request ends early.")
    return data[4 : 4 + length], data[4 + length :]


def parse_size(data: bytes) -> WindowSize:
    """The body of ``window-change``: uint32 columns, rows, width, height. BadParameter."""
    if len(data) != 16:
        raise BadParameter("A window has four numbers.")
    return WindowSize(*struct.unpack(">4L", data))


def parse_modes(data: bytes) -> dict[int, int]:
    """Encoded terminal modes: byte opcode and uint32 each, until 0 or an opcode of 160 and above. BadParameter."""
    if len(data) > MODES_MAX:
        raise BadParameter("There are not that many terminal modes.")
    modes = {}
    at = 0
    while at < len(data) and 0 < data[at] < 160:
        if len(data) < at + 5:
            raise BadParameter("The terminal modes end early.")
        modes[data[at]] = int.from_bytes(data[at + 1 : at + 5], "big")
        at += 5
    return modes


def parse_request(data: bytes) -> PtyRequest:
    """The body of ``pty-req``: string TERM, four uint32 of the window, string modes. BadParameter."""
    term, rest = _string(data)
    modes, end = _string(rest[16:])
    if end or len(term) > TERM_MAX or not all(0x20 < byte < 0x7F for byte in term):
        raise BadParameter("The terminal's type cannot be read.")
    return PtyRequest(term.decode("ascii"), parse_size(rest[:16]), parse_modes(modes))


def apply_modes(fd: int, modes: Mapping[int, int]) -> None:
    """Set the terminal's modes as asked; opcodes that Linux does not know are left out."""
    attributes = termios.tcgetattr(fd)
    for opcode, value in modes.items():
        if opcode in _CHARACTERS:
            attributes[_CC][_CHARACTERS[opcode]] = _DISABLED if value == 255 else bytes([value & 0xFF])
        elif opcode in _FLAGS:
            index, flag = _FLAGS[opcode]
            attributes[index] = attributes[index] | flag if value else attributes[index] & ~flag
        elif opcode == _SPEED_IN and value in _SPEEDS:
            attributes[_ISPEED] = _SPEEDS[value]
        elif opcode == _SPEED_OUT and value in _SPEEDS:
            attributes[_OSPEED] = _SPEEDS[value]
    try:
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as error:
        if error.args[0] != errno.EINVAL:
            raise
        # All that a PTY can take was set; libc complains of the rest (a PTY has no parity, for one). sshd goes on, too.


class Terminal:
    """A PTY of which we hold the master. The slave is handed to a process once, with :meth:`take_slave`."""

    def __init__(self, request: PtyRequest) -> None:
        """OSError where the machine has no PTY left."""
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
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size.packed())

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
