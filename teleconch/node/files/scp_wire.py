"""The wire of scp's old protocol (rcp's): control lines one way, one answer each the other way. No files here.

Control lines, each ended with a newline: ``C0644 SIZE NAME`` (then SIZE bytes and a zero byte, or an error), ``D0755 0
NAME`` to enter a directory, ``E`` to leave it, ``TMTIME 0 ATIME 0`` ahead of either. Answers: a zero byte, or 1 (an
error; the next file may work) or 2 (the end), with a sentence and a newline. The side that sends files may send an
error in place of a control line.
"""

from __future__ import annotations

import os

LINE_MAX = 16 * 1024
_BUFFER = 256 * 1024
OK, ERROR, FATAL = b"\0", 1, 2


class Lost(Exception):
    """The other side is gone, or said that it is ending."""


class ProtocolError(Exception):
    """The other side does not keep to the protocol; the reason is for it to read."""


class Wire:
    """Both directions. ``errors`` counts what went wrong on either side, for the exit status."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self.errors = 0

    # --- in ----------------------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Whether something is in the buffer, after reading if it was empty."""
        if self._start == self._end:
            self._start = 0
            self._end = os.readv(self._stdin, (self._buffer,))
        return self._end > 0

    def byte(self) -> int:
        """The next byte. Lost."""
        if not self._fill():
            raise Lost
        self._start += 1
        return self._buffer[self._start - 1]

    def line(self) -> bytes | None:
        """The next line without its newline; ``None`` at the end. ProtocolError for one that is cut or too long."""
        if not self._fill():
            return None
        pieces: list[bytes] = []
        size = 0
        while size < LINE_MAX:
            if not self._fill():
                raise ProtocolError("lost connection")
            piece = bytes(self._buffer[self._start : min(self._end, self._start + LINE_MAX - size)])
            at = piece.find(b"\n")
            if at >= 0:
                self._start += at + 1
                pieces.append(piece[:at])
                return b"".join(pieces)
            self._start += len(piece)
            size += len(piece)
            pieces.append(piece)
        raise ProtocolError("line too long")

    def data(self, room: int) -> memoryview:
        """At least one and at most ``room`` bytes of a file, valid until the next call. Lost."""
        if not self._fill():
            raise Lost
        start = self._start
        self._start = min(self._end, start + room)
        return self._buffer[start : self._start]

    def accepted(self) -> bool:
        """Wait for the other side's answer; returns whether it is a yes. Lost if the other side ends with it."""
        kind = self.byte()
        if kind == 0:
            return True
        self.line()
        self.errors += 1
        if kind != ERROR:
            raise Lost
        return False

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, data: bytes | memoryview) -> None:
        """All of it. Lost."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._stdout, view) :]
        except BrokenPipeError:
            raise Lost from None

    def ok(self) -> None:
        """Yes."""
        self.send(OK)

    def error(self, sentence: bytes) -> None:
        """Something went wrong; the transfer goes on. The other side prints the sentence."""
        self.errors += 1
        self.send(bytes((ERROR,)) + b"scp: " + sentence + b"\n")


def times_line(changed: int, accessed: int) -> bytes:
    """``T``; times before 1970 become 1970."""
    return b"T%d 0 %d 0\n" % (max(0, changed), max(0, accessed))


def entry_line(kind: bytes, mode: int, size: int, name: bytes) -> bytes:
    """``C`` or ``D``."""
    return b"%s%04o %d %s\n" % (kind, mode & 0o7777, size, name)


def _number(text: bytes) -> int | None:
    """Decimal digits and nothing else; at most what 64 bits hold."""
    return int(text) if text.isdigit() and len(text) <= 20 else None


def parse_times(line: bytes) -> tuple[int, int] | None:
    """Access and change time of a ``T`` line; ``None`` if no clock can hold them. ProtocolError."""
    rest = line[1:]
    seconds = []
    for name, end in (("mtime", b" "), ("atime", b"")):
        digits, rest = _digits(rest)
        if not digits:
            raise ProtocolError(f"{name}.sec not present")
        if rest[:1] != b" ":
            raise ProtocolError(f"{name}.sec not delimited")
        seconds.append(int(digits))
        digits, rest = _digits(rest[1:])
        if rest[:1] != end or len(digits) > 6:
            raise ProtocolError(f"{name}.usec not delimited")
        rest = rest[1:]
    changed, accessed = seconds
    return (accessed, changed) if max(seconds) < 1 << 63 else None


def _digits(text: bytes) -> tuple[bytes, bytes]:
    """The digits at the front, at most 20 of them, and the rest."""
    rest = text.lstrip(b"0123456789")
    return text[: len(text) - len(rest)][:20], rest


def parse_entry(line: bytes) -> tuple[int, int, bytes]:
    """Mode, size and name of a ``C`` or ``D`` line. ProtocolError."""
    mode = line[1:5]
    if len(mode) < 4 or any(digit not in b"01234567" for digit in mode):
        raise ProtocolError("bad mode")
    if line[5:6] != b" ":
        raise ProtocolError("mode not delimited")
    digits, space, name = line[6:].partition(b" ")
    size = _number(digits)
    if size is None:
        raise ProtocolError("size not present")
    if not space:
        raise ProtocolError("size not delimited")
    if size >= 1 << 63:
        raise ProtocolError("size out of range")
    return int(mode, 8), size, name


def is_plain_name(name: bytes) -> bool:
    """Whether a name from the other side stays in the directory that it is for."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name
