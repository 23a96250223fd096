"""The user's terminal: raw while a session runs and always put back; its size, its modes, the escapes (``~.``)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from types import TracebackType
from typing import Final

from teleconch.ssh import modes

_SPEED: Final = 38400  # bits a second, as every terminal says today


def size_of(fd: int) -> tuple[int, int]:
    """Columns and rows of a terminal; 80 and 24 for one that does not know, or if it is not a terminal."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        rows = columns = 0
    return (columns or 80, rows or 24)


def window_of(fd: int) -> tuple[int, int, int, int]:
    """Columns, rows, width and height in pixels, as ``pty-req`` and ``window-change`` carry them."""
    try:
        _, _, width, height = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        width = height = 0
    return (*size_of(fd), width, height)


def modes_of(fd: int) -> bytes:
    """A terminal's modes as ``pty-req`` carries them (RFC 4254 section 8); none if it is not a terminal."""
    try:
        attributes = termios.tcgetattr(fd)
    except termios.error:
        return modes.encode({})
    return modes.encode(modes.read(attributes, _SPEED))


class RawTerminal:
    """Within ``with``, from :meth:`enter` on, the terminal ``fd`` passes on every key as it is. Leaving ``with`` puts
    the old settings back."""

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

    @property
    def entered(self) -> bool:
        """Whether it is raw: a line has to end with CR LF."""
        return self._before is not None

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


HELP: Final = """Supported escape sequences:
 {0}.   - end the connection
 {0}B   - send a BREAK to the node
 {0}R   - change the keys of the connection
 {0}^Z  - suspend tsh
 {0}#   - list what goes through the connection
 {0}&   - put tsh into the background, without input
 {0}?   - this message
 {0}{0}   - send the escape character by typing it twice
(Escapes are only seen right after Enter. There is no command line {0}C.)
"""
LEAVE, BREAK, REKEY, SUSPEND, LIST, EXPLAIN, BACKGROUND, COMMANDS = ".", "B", "R", "\x1a", "#", "?", "&", "C"
_ACTIONS: Final = frozenset((LEAVE, BREAK, REKEY, SUSPEND, LIST, EXPLAIN, BACKGROUND, COMMANDS))


class Escapes:
    """Finds the escape character at the start of a line in what is typed, as OpenSSH's client does. Typed twice, it is
    sent once."""

    def __init__(self, character: bytes = b"~") -> None:
        self._character = character[0] if character else -1
        self._line_start = True
        self._pending = False

    def feed(self, typed: bytes) -> tuple[bytes, list[str]]:
        """The part of ``typed`` that goes to the other end, and what the user asked of us. Nothing follows
        :data:`LEAVE`."""
        if self._character < 0 or (self._character not in typed and not self._pending):
            self._line_start = typed[-1:] in (b"\r", b"\n") if typed else self._line_start
            return typed, []
        out, actions = bytearray(), []
        for key in typed:
            if self._pending:
                self._pending = False
                if chr(key) in _ACTIONS:
                    actions.append(chr(key))
                    if chr(key) == LEAVE:
                        break
                    continue
                if key != self._character:
                    out.append(self._character)
            elif self._line_start and key == self._character:
                self._pending = True
                continue
            out.append(key)
            self._line_start = key in (0x0D, 0x0A)
        return bytes(out), actions

    @property
    def help(self) -> str:
        """What the escapes are."""
        return HELP.format(self.shown)

    @property
    def shown(self) -> str:
        """The escape character as people write it."""
        character = self._character
        return chr(character) if character >= 32 else f"^{chr(character + 64)}"


def term_name() -> str:
    """``$TERM``."""
    return os.environ.get("TERM") or "dumb"
