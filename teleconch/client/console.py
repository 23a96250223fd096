"""The screen of ``tsh ssh``: standard input, output and error of this process, and the terminal they may be.

Nothing is read while its destination is full, and what was not written is not credited: the node pauses meanwhile.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

from teleconch.client import terminal
from teleconch.client.background import go_on_in_background
from teleconch.client.link import WINDOW
from teleconch.client.session import Session, SessionRequest, Terminal
from teleconch.client.stdio import Output, read_input
from teleconch.client.terminal import Escapes, RawTerminal, modes_of, term_name, window_of
from teleconch.text import shown

SCREEN_WINDOW: Final = 128 * 1024  # bytes on their way to a terminal, which Ctrl-C no longer stops


class Console:
    """A :class:`~teleconch.client.session.Screen` on the descriptors 0, 1 and 2.

    ``raw`` is made raw once the node has made a terminal, if standard input is one. ``warn`` takes a sentence for the
    person. ``escape`` is the escape character, empty for none. ``background``: fork once the command runs (``-f``).
    """

    def __init__(
        self,
        request: SessionRequest | None,
        raw: RawTerminal,
        warn: Callable[[str], None],
        escape: bytes = b"~",
        background: bool = False,
    ) -> None:
        self.session = Session(request, self)
        self.outputs = Output(1), Output(2)
        typed = request is not None and request.terminal and os.isatty(0)
        self._raw = raw if typed else None
        self._warn = warn
        self._escape = escape
        self._escapes: Escapes | None = None
        self._background = background
        self._own = 0  # bytes that wait to be written and did not come from the node
        # How many bytes may be on their way here.
        self.window = SCREEN_WINDOW if request is not None and request.terminal and os.isatty(1) else WINDOW

    # -- what a loop asks and tells

    @property
    def wants_input(self) -> bool:
        """Whether to read standard input now."""
        return self.session.takes_input

    @property
    def waiting(self) -> bool:
        """Whether some output is not written yet."""
        return self.outputs[0].waiting or self.outputs[1].waiting

    @property
    def done(self) -> bool:
        """Whether the session is over and all of it is written."""
        return self.session.over and not self.waiting

    def input_ready(self) -> None:
        """There is something on standard input."""
        data = read_input(0)
        if data is None:
            return
        if not data:
            self.session.end_input()
        elif self._escapes is None:
            self.session.send(data)
        else:
            data, actions = self._escapes.feed(data)
            if data and terminal.LEAVE not in actions:
                self.session.send(data)
            for action in actions:
                self._act(action)

    def written(self) -> None:
        """Some output was written."""
        output, error = self.outputs
        consumed = output.consumed() + error.consumed()
        own = min(consumed, self._own)
        self._own -= own
        if consumed > own:
            self.session.consumed(consumed - own)
        problem = output.error or error.error
        if problem is not None:
            self.session.fail(problem)

    def close(self) -> None:
        """Nothing more is shown."""
        for output in self.outputs:
            output.close()

    # -- what the session tells

    @property
    def interactive(self) -> bool:
        return self._escapes is not None

    def terminal(self) -> Terminal:
        fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), 0)
        return Terminal(term_name(), window_of(fd), modes_of(0))

    def terminal_given(self) -> None:
        if self._raw is not None:
            self._raw.enter()
            self._escapes = Escapes(self._escape)

    def begun(self) -> None:
        if self._background:
            go_on_in_background(detach=True)

    def output(self, data: bytes) -> None:
        self.outputs[0].write(data)
        self.written()

    def error(self, data: bytes) -> None:
        self.outputs[1].write(data)
        self.written()

    def warn(self, sentence: str) -> None:
        self._warn(sentence)

    def ended(self) -> None:
        """A loop finds out by :attr:`done`."""

    # -- escapes

    def _act(self, action: str) -> None:
        """Do what an escape asks for."""
        if action == terminal.LEAVE:
            self._show("", "")
            self.session.leave()
        elif action == terminal.BREAK:
            self._show(action, "")
            self.session.send_break()
        elif action == terminal.REKEY:
            self.session.rekey()
        elif action == terminal.SUSPEND:
            self._show("^Z", "[suspend tsh]")
            self._suspend()
        elif action == terminal.LIST:
            lines = "".join(f"  #{number} {way}\n" for number, way in enumerate(self.session.ways()))
            self._show(action, f"\nThe following connections are open:\n{lines}")
        elif action == terminal.BACKGROUND:
            self._show(action, "[backgrounded]")
            self._go_on_without()
        elif action == terminal.COMMANDS:
            self._show(action, "[no command line here: start tsh again with -L, -R or -D]")
        elif action == terminal.EXPLAIN and self._escapes is not None:
            self._show(action, f"\n{self._escapes.help}")

    def _show(self, action: str, text: str) -> None:
        """Show the escape as it was typed, and what there is to say about it."""
        typed = f"{self._escapes.shown}{action}" if action and self._escapes is not None else ""
        text = f"{typed} {text}".strip() + "\n"
        text = shown(text, keep="\n", mark="?")
        self._own += len(said := text.replace("\n", "\r\n").replace(" \r", "\r").encode())
        self.outputs[1].write(said)

    def _suspend(self) -> None:
        """Stop this process until its shell lets it go on."""
        if self._raw is None:
            return
        self._raw.restore()
        os.kill(os.getpid(), signal.SIGTSTP)
        self._raw.enter()
        self.session.resize()

    def _go_on_without(self) -> None:
        """Go on without the terminal; a shell there gets its end of input, as from OpenSSH's client."""
        if self._raw is None:
            return
        self._raw.restore()
        go_on_in_background(detach=False)
        self._raw = self._escapes = None
        self.session.send(b"\x04")
        self.session.end_input()
