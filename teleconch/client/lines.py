"""One command on one of several nodes: its output line by line, each behind the node's name."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from teleconch.codec import string
from teleconch.errors import AccessDenied, ConnectionProblem
from teleconch.ssh.channel import Channel

LINE_MAX: Final = 64 * 1024  # a longer line is broken


class Lines:
    """Writes whole lines to ``out``, which blocks: a reader that rests makes the nodes rest."""

    def __init__(self, name: str, out: BinaryIO) -> None:
        coloured = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._prefix = (f"\x1b[36m{name}:\x1b[0m " if coloured else f"{name}: ").encode()
        self._out = out
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write the lines that are whole."""
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


class LinesChannel(Channel):
    """A session that runs ``command`` without input. ``over`` fires with its exit status, or a TeleconchError."""

    name = b"session"

    def __init__(self, command: str, name: str, out: BinaryIO, error: BinaryIO) -> None:
        super().__init__()
        self._command = command
        self._out, self._error = Lines(name, out), Lines(name, error)
        self._status: int | None = None
        self._problem: Exception | None = None
        self.over: Deferred[int] = Deferred()

    def channelOpen(self, specificData: bytes) -> None:
        answer = self.conn.sendRequest(self, b"exec", string(os.fsencode(self._command)), wantReply=1)
        assert answer is not None
        answer.addErrback(self._refused)
        self.loseWriteConnection()

    def _refused(self, failure: Failure) -> None:
        if self._status is None:
            self._problem = AccessDenied(
                "The node refused to start the command for this login; its administrator sees why."
            )
        self.loseConnection()

    def _show(self, lines: Lines, data: bytes) -> None:
        try:
            lines.write(data)
        except OSError as error:
            self._problem = error
            self.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._show(self._out, data)

    def extReceived(self, dataType: int, data: bytes) -> None:
        if dataType == 1:
            self._show(self._error, data)

    def request_exit_status(self, data: bytes) -> bool:
        self._status = int.from_bytes(data[:4], "big") & 0xFF
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        name = data[4 : 4 + min(int.from_bytes(data[:4], "big"), 32)].decode("ascii", "replace")
        self._problem = ConnectionProblem(f"The command was ended by the signal {name}.")
        return True

    def closed(self) -> None:
        try:
            self._out.end()
            self._error.end()
        except OSError as error:
            self._problem = error
        if self._problem is not None:
            self.over.errback(Failure(self._problem))
        elif self._status is None:
            self.over.errback(Failure(ConnectionProblem("The connection was lost.")))
        else:
            self.over.callback(self._status)
