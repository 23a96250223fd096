"""The user's terminal: raw while a session runs and always put back; its size, its modes, the escape ``~.``."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from types import TracebackType
from typing import Final

_MODES: Final = {  # RFC 4254 section 8: opcode -> (field of termios, flag)
    30: (0, termios.IGNPAR),
    31: (0, termios.PARMRK),
    32: (0, termios.INPCK),
    33: (0, termios.ISTRIP),
    34: (0, termios.INLCR),
    35: (0, termios.IGNCR),
    36: (0, termios.ICRNL),
    38: (0, termios.IXON),
    39: (0, termios.IXANY),
    40: (0, termios.IXOFF),
    41: (0, termios.IMAXBEL),
    42: (0, getattr(termios, "IUTF8", 0x4000)),
    50: (3, termios.ISIG),
    51: (3, termios.ICANON),
    53: (3, termios.ECHO),
    54: (3, termios.ECHOE),
    55: (3, termios.ECHOK),
    56: (3, termios.ECHONL),
    57: (3, termios.NOFLSH),
    58: (3, termios.TOSTOP),
    59: (3, termios.IEXTEN),
    60: (3, termios.ECHOCTL),
    61: (3, termios.ECHOKE),
    70: (1, termios.OPOST),
    72: (1, termios.ONLCR),
    73: (1, termios.OCRNL),
    74: (1, termios.ONOCR),
    75: (1, termios.ONLRET),
    90: (2, termios.CS7),
    91: (2, termios.CS8),
    92: (2, termios.PARENB),
    93: (2, termios.PARODD),
}
_CHARACTERS: Final = {
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
}
_SPEED: Final = 38400


def size_of(fd: int) -> tuple[int, int]:
    """Columns and rows of a terminal; 80 and 24 for one that does not know, or for what is none."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        rows = columns = 0
    return (columns or 80, rows or 24)


def modes_of(fd: int) -> bytes:
    """A terminal's modes as ``pty-req`` carries them (RFC 4254 section 8); none for what is no terminal."""
    try:
        attributes = termios.tcgetattr(fd)
    except termios.error:
        return b"\0"
    parts = [bytes((opcode,)) + struct.pack(">I", _SPEED) for opcode in (128, 129)]
    for opcode, index in _CHARACTERS.items():
        value = attributes[6][index]
        code = value[0] if isinstance(value, bytes) else int(value)
        parts.append(bytes((opcode,)) + struct.pack(">I", code or 255))  # 255: no character does this
    for opcode, (field, flag) in _MODES.items():
        on = attributes[field] & termios.CSIZE == flag if flag in (termios.CS7, termios.CS8) and field == 2 else None
        parts.append(bytes((opcode,)) + struct.pack(">I", int(bool(attributes[field] & flag) if on is None else on)))
    return b"".join(parts) + b"\0"


class RawTerminal:
    """Within ``with``, from :meth:`enter` on, the terminal ``fd`` passes every key on as it is. Leaving ``with`` puts
    back what was before."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[object] | None = None

    def __enter__(self) -> RawTerminal:
        return self

    def enter(self) -> None:
        """Make it raw now."""
        if self._before is not None:
            return
        self._before = termios.tcgetattr(self._fd)
        raw = termios.tcgetattr(self._fd)
        raw[0] |= termios.IGNPAR
        raw[0] &= ~(
            termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
            | termios.IXANY
            | termios.IXOFF
        )
        raw[3] &= ~(
            termios.ISIG
            | termios.ICANON
            | termios.ECHO
            | termios.ECHOE
            | termios.ECHOK
            | termios.ECHONL
            | termios.IEXTEN
        )
        raw[1] &= ~termios.OPOST
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)

    def restore(self) -> None:
        """Put it back now. Idempotent."""
        before, self._before = self._before, None
        if before is not None:
            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, before)  # type: ignore[arg-type]
            except termios.error:  # the terminal is gone: its window was closed
                pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.restore()


class Escapes:
    """Finds ``~.`` at the start of a line (leave now) and ``~~`` (one ``~``) in what is typed."""

    def __init__(self) -> None:
        self._line_start = True
        self._tilde = False
        self.leave = False

    def feed(self, typed: bytes) -> bytes:
        """What of ``typed`` goes to the other end; ``leave`` is set once ``~.`` was typed."""
        if (
            not self._tilde
            and not (self._line_start and typed[:1] == b"~")
            and b"\r~" not in typed
            and b"\n~" not in typed
        ):
            self._line_start = typed[-1:] in (b"\r", b"\n")
            return typed
        out = bytearray()
        for key in typed:
            if self._tilde:
                self._tilde = False
                if key == 0x2E:
                    self.leave = True
                    return bytes(out)
                if key != 0x7E:
                    out.append(0x7E)
            elif self._line_start and key == 0x7E:
                self._tilde = True
                self._line_start = False
                continue
            out.append(key)
            self._line_start = key in (0x0D, 0x0A)
        return bytes(out)


def term_name() -> str:
    """``$TERM``."""
    return os.environ.get("TERM") or "dumb"
