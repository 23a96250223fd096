"""One session on a node (RFC 4254 section 6), joined to the standard input, output and error of this process.

::

    stdin  --> Session --> inner Link --> outer Link --> socket --> proxy ==> node
    stdout <-- Session <-- inner Link <-- outer Link <-- socket

Nothing is read while what it leads to is full: no input while the server's windows are shut, and no window is opened
again for output that was not written.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from teleconch.client import terminal
from teleconch.client.link import ChannelUser, Link
from teleconch.client.stdio import Output, read_input
from teleconch.client.terminal import Escapes, RawTerminal, modes_of, size_of, term_name
from teleconch.errors import AccessDenied, ConnectionProblem
from teleconch.ssh.codec import string

UNSENT_MAX: Final = 256 * 1024  # bytes on their way to the server above which no input is read


@frozen
class SessionRequest:
    """``command`` None is a login shell. ``terminal``: ask for a PTY; that none is given is an error if ``forced``."""

    command: str | None
    terminal: bool
    forced: bool = False
    environment: tuple[tuple[str, str], ...] = ()


class Session(ChannelUser):
    """The channel's user: ``link`` is set before it opens. ``status`` or ``problem`` is set when it is over. Without a
    request the way to the node is all that is wanted.

    ``warn`` takes a sentence for the person at the terminal.
    """

    link: Any  # a Link, or what stands for one on a reactor

    def __init__(
        self,
        request: SessionRequest | None,
        raw: RawTerminal | None,
        warn: Callable[[str], None],
        escape: bytes = b"~",
    ) -> None:
        self.status: int | None = None
        self.problem: BaseException | None = None
        self.over = False
        self.started = False
        self._request = request
        self._raw = raw
        self._warn = warn
        self._asked: list[str] = []
        self._escape = escape
        self._escapes: Escapes | None = None
        self.ways: Callable[[], list[str]] = lambda: ["session"]
        self.rekey: Callable[[], None] = lambda: self.link.rekey()
        self._reading = True
        self._own = 0
        self.output = Output(1)
        self.error = Output(2)

    # --- what the loop asks ---

    @property
    def wants_input(self) -> bool:
        """Whether standard input is to be read now."""
        return self.started and self._reading and not self.over

    @property
    def done(self) -> bool:
        """Whether all is over and written."""
        return self.over and not self.output.waiting and not self.error.waiting

    def input_ready(self) -> None:
        """There is something on standard input."""
        data = read_input(0)
        if data is None:
            return
        if not data:
            self._reading = False
            self.link.write_eof()
            return
        if self._escapes is not None:
            data, actions = self._escapes.feed(data)
            if data and terminal.LEAVE not in actions:
                self.link.write(data)
            for action in actions:
                self._act(action)
            return
        self.link.write(data)

    def _act(self, action: str) -> None:
        """Do what an escape asks for."""
        if action == terminal.LEAVE:
            self._fail(ConnectionProblem("You left the session."))
            self.over = True
        elif action == terminal.BREAK:
            self.link.send_request(b"break", struct.pack(">I", 1000), False)
        elif action == terminal.REKEY:
            self.rekey()
        elif action == terminal.SUSPEND:
            self._suspend()
        elif action == terminal.LIST:
            lines = "".join(f"  #{number} {way}\n" for number, way in enumerate(self.ways()))
            self._show(f"The following connections are open:\n{lines}")
        elif action == terminal.EXPLAIN and self._escapes is not None:
            self._show(self._escapes.help)

    def _show(self, text: str) -> None:
        text = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
        self._own += len(shown := ("\r\n" + text.replace("\n", "\r\n")).encode())
        self.error.write(shown)

    def _suspend(self) -> None:
        """Stop this process until its shell lets it go on."""
        if self._raw is None:
            return
        self._raw.restore()
        os.kill(os.getpid(), signal.SIGTSTP)
        self._raw.enter()
        self.resized()

    def written(self) -> None:
        """Some output was written: the server may send as much again."""
        consumed = self.output.consumed() + self.error.consumed()
        own = min(consumed, self._own)  # what escapes showed did not come from the server
        self._own -= own
        self.link.credit(consumed - own)
        error = self.output.error or self.error.error
        if error is not None and not self.over:
            self._fail(error)
            self.link.close()

    def resized(self) -> None:
        """The terminal has a new size."""
        if self.started and self._request is not None and self._request.terminal and not self.over:
            columns, rows = self._size()
            self.link.send_request(b"window-change", struct.pack(">IIII", columns, rows, 0, 0), False)

    # --- asking ---

    def opened(self) -> None:
        request = self._request
        if request is None:
            self.status = 0
            self.link.close()
            return
        for name, value in request.environment:
            self.link.send_request(b"env", string(name.encode()) + string(os.fsencode(value)), False)
        if request.terminal:
            columns, rows = self._size()
            size = struct.pack(">IIII", columns, rows, 0, 0)
            self._ask("terminal", b"pty-req", string(os.fsencode(term_name())) + size + string(modes_of(0)))
        if request.command is None:
            self._ask("a shell", b"shell", b"")
        else:
            self._ask("the command", b"exec", string(os.fsencode(request.command)))

    def _ask(self, what: str, name: bytes, data: bytes) -> None:
        self._asked.append(what)
        self.link.send_request(name, data, True)

    def _size(self) -> tuple[int, int]:
        return size_of(next((fd for fd in (0, 1, 2) if os.isatty(fd)), 0))

    def answered(self, success: bool) -> None:
        what = self._asked.pop(0)
        if what == "terminal":
            if success:
                if self._raw is not None:
                    self._raw.enter()
                    self._escapes = Escapes(self._escape)
            elif self._request is not None and self._request.forced:
                self._fail(AccessDenied("The node gives you no terminal: your roles may not allow one."))
                self.link.close()
            else:
                self._warn("The node gives you no terminal: your roles may not allow one. Going on without.")
        elif success:
            self.started = True
        else:
            self._fail(AccessDenied(f"The node refused to start {what} for this login; its administrator sees why."))
            self.link.close()

    def refused(self, sentence: str) -> None:
        self._fail(AccessDenied(sentence))
        self.over = True

    def _fail(self, problem: BaseException) -> None:
        if self.problem is None and self.status is None:
            self.problem = problem

    # --- what comes ---

    def data(self, data: bytes) -> None:
        self.output.write(data)
        self.written()

    def error_data(self, data: bytes) -> None:
        self.error.write(data)
        self.written()

    def request(self, name: bytes, data: bytes) -> None:
        if name == b"exit-status" and len(data) >= 4 and self.problem is None:
            self.status = int.from_bytes(data[:4], "big") & 0xFF
        elif name == b"exit-signal":
            length = min(int.from_bytes(data[:4], "big"), 32)
            self._fail(ConnectionProblem(f"The command was ended by the signal {data[4 : 4 + length].decode()}."))

    def closed(self) -> None:
        self.over = True


class Way(ChannelUser):
    """The channel at the proxy that leads to the node: what comes is for the ``inner`` link, what that sends goes out.

    ``refusal`` is the proxy's sentence where it does not lead there.
    """

    outer: Link
    inner: Link

    def __init__(self) -> None:
        self.refusal = ""
        self.open = False
        self._over = False

    def opened(self) -> None:
        self.open = True
        self.pass_on()

    def refused(self, sentence: str) -> None:
        self.refusal = sentence or "The proxy does not lead to this node."
        self._over = True

    def data(self, data: bytes) -> None:
        self.inner.feed(data)
        self.outer.credit(len(data))
        self.pass_on()

    def pass_on(self) -> None:
        """Send what the inner link has to send."""
        if self.open:
            self.outer.write(self.inner.take())

    def error_data(self, data: bytes) -> None:
        self.outer.credit(len(data))

    def eof(self) -> None:
        self.inner.lost()

    def closed(self) -> None:
        self._over = True
        self.inner.lost()

    @property
    def over(self) -> bool:
        return self._over

    @property
    def has_room(self) -> bool:
        """Whether more input may be read: what was read before is on its way."""
        return self.inner.unsent + self.outer.unsent < UNSENT_MAX
