"""One session on a node (RFC 4254 section 6), joined to the standard input, output and error of this process."""

from __future__ import annotations

import os
import struct
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from teleconch.client.stdio import Input, Output
from teleconch.client.terminal import Escapes, RawTerminal, modes_of, size_of, term_name
from teleconch.errors import AccessDenied, ConnectionProblem
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientConnection
from teleconch.ssh.problems import ChannelRefused, RequestRefused

FAILED = 255  # as OpenSSH's client: the connection, not the command
_STDERR = 1  # RFC 4254 section 5.2


@frozen
class SessionRequest:
    """``command`` None is a login shell. ``terminal``: ask for a PTY; none is an error if ``forced``."""

    command: str | None
    terminal: bool
    forced: bool = False
    environment: tuple[tuple[str, str], ...] = ()


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class SessionChannel(Channel):
    """Sends the request as soon as it is open; ``finished`` fires with the exit status, or fails with a TeleconchError.

    ``warn`` takes a sentence for the user.
    """

    name = b"session"

    def __init__(self, reactor: Any, request: SessionRequest, raw: RawTerminal | None, warn: Any) -> None:
        super().__init__()
        self.finished: Deferred[int] = Deferred()
        self._reactor = reactor
        self._request = request
        self._raw = raw
        self._warn = warn
        self._status: int | None = None
        self._problem: BaseException | None = None
        self._closed = False
        self._escapes = Escapes() if raw is not None else None
        self._output = Output(reactor, 1, self._drained, self._broken)
        self._error = Output(reactor, 2, self._drained, self._broken)
        self._input = Input(reactor, 0, self._typed)

    # --- asking ---

    def channelOpen(self, specificData: bytes) -> None:
        request = self._request
        for name, value in request.environment:
            self.conn.sendRequest(self, b"env", _string(name.encode()) + _string(os.fsencode(value)))
        if request.terminal:
            self._ask(b"pty-req", self._terminal_request(), self._no_terminal)
        if request.command is None:
            self._ask(b"shell", b"", self._refused)
        else:
            self._ask(b"exec", _string(os.fsencode(request.command)), self._refused)

    def _ask(self, name: bytes, data: bytes, refused: Any) -> None:
        answer = self.conn.sendRequest(self, name, data, wantReply=1)
        assert answer is not None
        answer.addCallbacks(lambda _: self._began() if name != b"pty-req" else None, refused)
        answer.addErrback(self._crashed)

    def _terminal_request(self) -> bytes:
        columns, rows = self._size()
        return _string(os.fsencode(term_name())) + struct.pack(">IIII", columns, rows, 0, 0) + _string(modes_of(0))

    def _size(self) -> tuple[int, int]:
        return size_of(next((fd for fd in (0, 1, 2) if os.isatty(fd)), 0))

    def resized(self) -> None:
        """The terminal has a new size."""
        if self._request.terminal and not self.localClosed and self.id is not None:
            columns, rows = self._size()
            self.conn.sendRequest(self, b"window-change", struct.pack(">IIII", columns, rows, 0, 0))

    def _no_terminal(self, failure: Failure) -> None:
        failure.trap(RequestRefused)
        if self._closed:
            return
        if self._request.forced:
            self._give_up(AccessDenied("The node gives you no terminal: your roles may not allow one."))
            return
        if self._raw is not None:
            self._raw.restore()
            self._escapes = None
        self._warn("The node gives you no terminal: your roles may not allow one. Going on without.")

    def _refused(self, failure: Failure) -> None:
        failure.trap(RequestRefused)
        what = "a shell" if self._request.command is None else "the command"
        self._give_up(AccessDenied(f"The node refused to start {what} for this login; its administrator sees why."))

    def _began(self) -> None:
        if not self._closed and not self._eof_wanted:
            self.registerProducer(self._input, True)
            if not self._producer_paused:
                self._input.resumeProducing()

    def _give_up(self, problem: BaseException) -> None:
        if self._problem is None and self._status is None:
            self._problem = problem
        self.loseConnection()

    def _crashed(self, failure: Failure) -> None:
        self._give_up(failure.value or ConnectionProblem("The session broke."))

    # --- input ---

    def _typed(self, data: bytes) -> None:
        if not data:
            self.unregisterProducer()
            self.loseWriteConnection()
            return
        if self._escapes is not None:
            data = self._escapes.feed(data)
            if self._escapes.leave:
                self._problem = ConnectionProblem("You left the session.")
                self._input.stopProducing()
                self.conn.transport.abortConnection()
                return
        self.write(data)

    # --- output ---

    def dataReceived(self, data: bytes) -> None:
        self._output.write(data)
        self._rest_if_full()

    def extReceived(self, dataType: int, data: bytes) -> None:
        if dataType == _STDERR:
            self._error.write(data)
            self._rest_if_full()

    def _rest_if_full(self) -> None:
        if self._output.full or self._error.full:
            self.pauseProducing()

    def _drained(self) -> None:
        if self._closed:
            self._finish()
        elif not self._output.full and not self._error.full:
            self.resumeProducing()

    def _broken(self, error: OSError) -> None:
        """Nobody takes the output any more: end the command, as a local one would end."""
        if self._status is None and self._problem is None:
            self._problem = error
        if self._closed:
            self._finish()
        else:
            self.loseConnection()

    # --- the end ---

    def request_exit_status(self, data: bytes) -> bool:
        if len(data) >= 4:
            self._status = int.from_bytes(data[:4], "big") & 0xFF
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        length = int.from_bytes(data[:4], "big")
        name = data[4 : 4 + min(length, 32)].decode("ascii", "replace")
        self._problem = ConnectionProblem(f"The command was ended by the signal {name}.")
        return True

    def openFailed(self, reason: Any) -> None:
        self._closed = True
        if isinstance(reason, ChannelRefused):
            self._problem = AccessDenied(str(reason))
        self._finish()

    def closed(self) -> None:
        self._closed = True
        self._input.stopProducing()
        self._finish()

    def _finish(self) -> None:
        if self.finished.called or not (self._output.empty and self._error.empty):
            return
        self._output.close()
        self._error.close()
        if self._problem is not None:
            self.finished.errback(Failure(self._problem))
        elif self._status is not None:
            self.finished.callback(self._status)
        else:
            self.finished.errback(Failure(ConnectionProblem("The connection to the node was lost.")))


async def run_session(conn: ClientConnection, channel: SessionChannel) -> int:
    """Run a session to its end. The remote exit status; a TeleconchError; BrokenPipeError."""
    try:
        await conn.open(channel)
    except (ChannelRefused, ConnectionLost):
        pass  # told to the channel too, and from there to `finished`
    return await channel.finished
