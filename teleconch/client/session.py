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
from teleconch.client.background import go_on_in_background
from teleconch.client.link import WINDOW, ChannelUser, Link
from teleconch.client.stdio import Output, read_input
from teleconch.client.terminal import Escapes, RawTerminal, modes_of, term_name, window_of
from teleconch.codec import string
from teleconch.errors import AccessDenied, ConnectionProblem

UNSENT_MAX: Final = 256 * 1024  # bytes on their way to the server above which no input is read
FAILED: Final = 255  # the status of a session that ~. ended, or Ctrl-C, as of OpenSSH's client
SCREEN_WINDOW: Final = 128 * 1024  # bytes on their way to a terminal, which Ctrl-C does not stop any more


@frozen
class SessionRequest:
    """``command`` None is a login shell. ``terminal``: ask for a PTY; that none is given is an error if ``forced``.

    ``subsystem``: ``command`` is the name of one. ``place``: no session, but a way to that host and port (``-W``).
    """

    command: str | None
    terminal: bool
    forced: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    subsystem: bool = False
    place: tuple[str, int] | None = None

    @property
    def channel(self) -> tuple[bytes, bytes]:
        """The channel's kind, and what its opening says beside that (RFC 4254 sections 6.1 and 7.2)."""
        if self.place is None:
            return b"session", b""
        host, port = self.place
        return b"direct-tcpip", string(host.encode()) + struct.pack(">I", port) + string(b"127.0.0.1") + bytes(4)

    @property
    def window(self) -> int:
        """How many bytes may be on their way here."""
        return SCREEN_WINDOW if self.terminal and os.isatty(1) else WINDOW


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
        self.begun: Callable[[], None] = lambda: None  # called once the shell or command runs
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
            self._show("", "")
            self.status, self.over = FAILED, True
        elif action == terminal.BREAK:
            self._show(action, "")
            self.link.send_request(b"break", struct.pack(">I", 1000), False)
        elif action == terminal.REKEY:
            self.rekey()
        elif action == terminal.SUSPEND:
            self._show("^Z", "[suspend tsh]")
            self._suspend()
        elif action == terminal.LIST:
            lines = "".join(f"  #{number} {way}\n" for number, way in enumerate(self.ways()))
            self._show(action, f"\nThe following connections are open:\n{lines}")
        elif action == terminal.BACKGROUND:
            self._show(action, "[backgrounded]")
            self._background()
        elif action == terminal.COMMANDS:
            self._show(action, "[no command line here: start tsh again with -L, -R or -D]")
        elif action == terminal.EXPLAIN and self._escapes is not None:
            self._show(action, f"\n{self._escapes.help}")

    def _show(self, action: str, text: str) -> None:
        """The escape as it was typed, and what is to be said of it."""
        typed = f"{self._escapes.shown}{action}" if action and self._escapes is not None else ""
        text = f"{typed} {text}".strip() + "\n"
        text = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
        self._own += len(shown := text.replace("\n", "\r\n").replace(" \r", "\r").encode())
        self.error.write(shown)

    def _suspend(self) -> None:
        """Stop this process until its shell lets it go on."""
        if self._raw is None:
            return
        self._raw.restore()
        os.kill(os.getpid(), signal.SIGTSTP)
        self._raw.enter()
        self.resized()

    def _background(self) -> None:
        """Go on without the terminal; a shell there gets its end of input, as from OpenSSH's client."""
        if self._raw is None:
            return
        self._raw.restore()
        go_on_in_background(detach=False)
        self._raw = self._escapes = None
        self._reading = False
        self.link.write(b"\x04")
        self.link.write_eof()

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
            self.link.send_request(b"window-change", self._window(), False)

    # --- asking ---

    def opened(self) -> None:
        request = self._request
        if request is None:
            self.status = 0
            self.link.close()
            return
        if request.place is not None:
            self._start()
            return
        for name, value in request.environment:
            self.link.send_request(b"env", string(name.encode()) + string(os.fsencode(value)), False)
        if request.terminal:
            self._ask("terminal", b"pty-req", string(os.fsencode(term_name())) + self._window() + string(modes_of(0)))
        if request.command is None:
            self._ask("a shell", b"shell", b"")
        elif request.subsystem:
            self._ask(f"the subsystem {request.command}", b"subsystem", string(os.fsencode(request.command)))
        else:
            self._ask("the command", b"exec", string(os.fsencode(request.command)))

    def _ask(self, what: str, name: bytes, data: bytes) -> None:
        self._asked.append(what)
        self.link.send_request(name, data, True)

    def _window(self) -> bytes:
        return window_of(next((fd for fd in (0, 1, 2) if os.isatty(fd)), 0))

    def _start(self) -> None:
        self.started = True
        self.begun()

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
            self._start()
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
            kind = data[4 : 4 + length].decode("ascii", "replace")
            if kind == "INT" and self._escapes is not None:  # whoever pressed Ctrl-C knows
                self.status = FAILED
            self._fail(ConnectionProblem(f"The command was ended by the signal {kind}."))

    def eof(self) -> None:
        if self._request is not None and self._request.place is not None:
            self._reading = False
            self.link.close()

    def closed(self) -> None:
        if self._request is not None and self._request.place is not None and self.started and self.problem is None:
            self.status = 0
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
