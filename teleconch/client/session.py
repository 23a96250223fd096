"""The words of one session on a node (RFC 4254 section 6): what is asked for, what the node answers, how it ends.

::

    keys   --> Screen --> Session --> SessionLink --> node
    picture <-- Screen <-- Session <-- SessionLink <-- node

A :class:`Screen` is what the session is shown on and typed at: the console of ``tsh ssh`` (``console``), or the lines
of one of several nodes (``lines``). A link is a channel on either of the two SSH clients (``link``,
``session_channel``). Nothing is read from the node faster than the screen shows it: see :meth:`Session.consumed`.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple, Protocol

from teleconch.client.link import ChannelUser, SessionLink
from teleconch.codec import Malformed, Reader, string, uint32
from teleconch.errors import AccessDenied, ConnectionProblem, TeleconchError

LEFT: Final = 255  # the status of a session ended by ~. or Ctrl-C, as with OpenSSH's client
_BREAK: Final = 1000  # milliseconds (RFC 4335)
_SIGNAL_NAME_MAX: Final = 32


class SessionRequest(NamedTuple):
    """``command`` None is a login shell. ``terminal``: ask for a PTY; getting none is an error if ``forced``.

    ``subsystem``: ``command`` is the name of one. ``place``: not a session, but a way to that host and port (``-W``).
    ``agent``: let the node use the user's ssh-agent.
    """

    command: str | None
    terminal: bool
    forced: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    subsystem: bool = False
    place: tuple[str, int] | None = None
    agent: bool = False

    @property
    def channel(self) -> tuple[bytes, bytes]:
        """The channel's kind, and what else its opening says (RFC 4254 sections 6.1 and 7.2)."""
        if self.place is None:
            return b"session", b""
        host, port = self.place
        return b"direct-tcpip", string(host.encode()) + uint32(port) + string(b"127.0.0.1") + uint32(0)


class Terminal(NamedTuple):
    """What the node is told of a terminal.

    ``size``: columns, rows, and width and height in pixels. ``modes`` as RFC 4254 section 8 has them.
    """

    name: str = "dumb"
    size: tuple[int, int, int, int] = (80, 24, 0, 0)
    modes: bytes = b"\0"


class Screen(Protocol):
    """What a session is shown on and typed at."""

    @property
    def interactive(self) -> bool:
        """Whether a person's keys, including Ctrl-C, go to a terminal on the node."""

    def terminal(self) -> Terminal:
        """The terminal as it is now."""

    def terminal_given(self) -> None:
        """The node has made a terminal: from now on it does the echo and the line editing."""

    def begun(self) -> None:
        """The shell or command runs: what is typed may be sent."""

    def output(self, data: bytes) -> None:
        """Show the output, now or later; then call :meth:`Session.consumed`."""

    def error(self, data: bytes) -> None:
        """The same for what the command writes to standard error."""

    def warn(self, sentence: str) -> None:
        """Tell the person something; the session goes on."""

    def ended(self) -> None:
        """The session is over; see :meth:`Session.result`. Called once."""


class Session(ChannelUser):
    """What ``screen`` asks of a node. Without a request, it is enough that the node is reached.

    ``status`` or ``problem`` is set when it is over.
    """

    def __init__(self, request: SessionRequest | None, screen: Screen) -> None:
        self.status: int | None = None
        self.problem: TeleconchError | OSError | None = None
        self.over = False
        self.started = False
        self._request = request
        self._screen = screen
        self._link: SessionLink
        self._asked: list[str] = []
        self._input_ended = False

    def result(self) -> int:
        """The exit status, once it is over. A TeleconchError, or the OSError of a screen that could not show."""
        if self.problem is not None:
            raise self.problem
        if self.status is None:
            raise ConnectionProblem("The connection to the node was lost.")
        return self.status

    # -- what the screen does, from begun() on

    @property
    def takes_input(self) -> bool:
        """Whether what is typed may be sent now."""
        return self.started and not self._input_ended and not self.over

    def send(self, data: bytes) -> None:
        """What was typed."""
        self._link.write(data)

    def end_input(self) -> None:
        """Nothing more will be typed."""
        self._input_ended = True
        self._link.write_eof()

    def consumed(self, count: int) -> None:
        """``count`` bytes of output were shown or dropped: the node may send as much again."""
        self._link.credit(count)

    def resize(self) -> None:
        """The terminal has a new size."""
        if self.started and self._request is not None and self._request.terminal and not self.over:
            self._link.send_request(b"window-change", struct.pack(">IIII", *self._screen.terminal().size), False)

    def send_break(self) -> None:
        """What a serial line calls a break (RFC 4335)."""
        self._link.send_request(b"break", uint32(_BREAK), False)

    def rekey(self) -> None:
        """Change the keys of the connection."""
        self._link.rekey()

    def ways(self) -> list[str]:
        """Everything that goes through the connection, including this session."""
        return self._link.ways()

    def leave(self) -> None:
        """End the session here and now, whatever the node does."""
        self.status = LEFT
        self._end()

    def fail(self, problem: TeleconchError | OSError) -> None:
        """End the session, as the screen can no longer show it."""
        if not self.over:
            self._fail(problem)
            self._link.close()

    # -- asking

    def opened(self, link: SessionLink) -> None:
        self._link = link
        request = self._request
        if request is None:
            self.status = 0
            link.close()
            return
        if request.place is not None:
            self._start()
            return
        if request.agent:
            self._ask("agent", b"auth-agent-req@openssh.com", b"")
        for name, value in request.environment:
            link.send_request(b"env", string(name.encode()) + string(os.fsencode(value)), False)
        if request.terminal:
            name, size, modes = self._screen.terminal()
            self._ask("terminal", b"pty-req", string(os.fsencode(name)) + struct.pack(">IIII", *size) + string(modes))
        if request.command is None:
            self._ask("a shell", b"shell", b"")
        elif request.subsystem:
            self._ask(f"the subsystem {request.command}", b"subsystem", string(os.fsencode(request.command)))
        else:
            self._ask("the command", b"exec", string(os.fsencode(request.command)))

    def _ask(self, what: str, name: bytes, data: bytes) -> None:
        self._asked.append(what)
        self._link.send_request(name, data, True)

    def _start(self) -> None:
        self.started = True
        self._screen.begun()

    def answered(self, success: bool) -> None:
        what = self._asked.pop(0)
        if what == "agent":
            if not success:
                self._screen.warn("The node does not forward your ssh-agent: your roles may not allow it.")
        elif what == "terminal":
            if success:
                self._screen.terminal_given()
            elif self._request is not None and self._request.forced:
                self.fail(AccessDenied("The node gives you no terminal: your roles may not allow one."))
            else:
                self._screen.warn("The node gives you no terminal: your roles may not allow one. Going on without.")
        elif success:
            self._start()
        else:
            self.fail(AccessDenied(f"The node refused to start {what} for this login; its administrator sees why."))

    # -- what comes

    def refused(self, sentence: str) -> None:
        self._fail(AccessDenied(sentence))
        self._end()

    def data(self, data: bytes) -> None:
        self._screen.output(data)

    def error_data(self, data: bytes) -> None:
        self._screen.error(data)

    def request(self, name: bytes, data: bytes) -> None:
        """``exit-status``: uint32 status. ``exit-signal``: string name, boolean core, string text, string language."""
        try:
            if name == b"exit-status":
                status = Reader(data).uint32() & 0xFF
                if self.problem is None:
                    self.status = status
            elif name == b"exit-signal":
                self._killed(Reader(data).string()[:_SIGNAL_NAME_MAX].decode("ascii", "replace"))
        except Malformed:
            pass  # as if the node had not told how the command ended

    def _killed(self, kind: str) -> None:
        if kind == "INT" and self._screen.interactive:  # whoever pressed Ctrl-C knows
            self.status = LEFT
        self._fail(ConnectionProblem(f"The command was ended by the signal {kind}."))

    def eof(self) -> None:
        if self._request is not None and self._request.place is not None:
            self._input_ended = True
            self._link.close()

    def closed(self) -> None:
        if self._request is not None and self._request.place is not None and self.started and self.problem is None:
            self.status = 0
        self._end()

    def _fail(self, problem: TeleconchError | OSError) -> None:
        if self.problem is None and self.status is None:
            self.problem = problem

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self._screen.ended()
