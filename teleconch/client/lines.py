"""One command on one of several nodes: its output line by line, each after the node's name."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

from twisted.internet.defer import Deferred

from teleconch.client.session import Session, SessionRequest, Terminal
from teleconch.errors import TeleconchError

LINE_MAX: Final = 64 * 1024  # a longer line is broken


class Lines:
    """Writes whole lines to ``out``, which blocks: a reader that pauses makes the nodes pause."""

    def __init__(self, name: str, out: BinaryIO) -> None:
        coloured = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._prefix = (f"\x1b[36m{name}:\x1b[0m " if coloured else f"{name}: ").encode()
        self._out = out
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LINE_MAX:
            lines.append(self._rest[:LINE_MAX])
            self._rest = self._rest[LINE_MAX:]
        if lines:
            self._out.write(b"".join(self._prefix + line + b"\n" for line in lines))
            self._out.flush()

    def end(self) -> None:
        """Write a last line that has no end."""
        if self._rest:
            self.write(b"\n")


class LinesScreen:
    """The :class:`~teleconch.client.session.Screen` of ``command``, which gets no input and no terminal.

    ``over`` fires with the exit status; a TeleconchError, or the OSError of output that nobody reads any longer.
    """

    interactive = False

    def __init__(self, command: str, name: str, out: BinaryIO, error: BinaryIO) -> None:
        self.session = Session(SessionRequest(command, terminal=False), self)
        self.over: Deferred[int] = Deferred()
        self._out, self._error = Lines(name, out), Lines(name, error)

    def terminal(self) -> Terminal:
        return Terminal()

    def terminal_given(self) -> None:
        """None was asked for."""

    def begun(self) -> None:
        self.session.end_input()

    def output(self, data: bytes) -> None:
        self._show(self._out, data)

    def error(self, data: bytes) -> None:
        self._show(self._error, data)

    def _show(self, lines: Lines, data: bytes) -> None:
        try:
            lines.write(data)
        except OSError as error:
            self.session.fail(error)
        self.session.consumed(len(data))

    def warn(self, sentence: str) -> None:
        """All that a session warns of concerns terminals and agents."""

    def ended(self) -> None:
        try:
            self._out.end()
            self._error.end()
            status = self.session.result()
        except (OSError, TeleconchError):
            self.over.errback()
        else:
            self.over.callback(status)
