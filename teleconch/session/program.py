"""What runs in a session, as the session sees it, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

Take = Callable[[bytes], None]


@frozen
class WindowSize:
    """Columns and rows, and the same in pixels (0: unknown)."""

    columns: int
    rows: int
    width: int = 0
    height: int = 0


class Room(Protocol):
    """What output goes to: ``remoteWindowLeft`` is how many bytes of it are taken at this moment."""

    remoteWindowLeft: int


class ProgramEvents(Protocol):
    """What a program tells. Its output goes another way: see :meth:`Program.output_to`."""

    def pause_input(self) -> None:
        """It does not keep up with its input: send no more for now."""

    def resume_input(self) -> None:
        """It takes more again."""

    def input_lost(self) -> None:
        """It no longer reads. Anything still written to it is dropped."""

    def output_over(self) -> None:
        """A stream of its output has ended; maybe not the last."""

    def failed(self, sentence: str) -> None:
        """It could not be started; the sentence is for the user. :meth:`ended` follows."""

    def ended(self, status: int | None, error: str | None) -> None:
        """It has ended: ``status`` is as from ``wait()``, or ``None`` if nobody knows, and then ``error`` says why.
        Output may still wait to be read, and others may hold its streams."""

    def hang_up(self, reason: str) -> None:
        """Something broke that nobody expected: the session cannot go on."""


class Program(Protocol):
    """Its output is paused until :meth:`resume_output`."""

    @property
    def terminal(self) -> bool:
        """Whether it runs on a terminal: then it has one stream of output, and its input has no end."""

    def tell(self, events: ProgramEvents) -> None:
        """Whom to tell. Called once, before anything can happen."""

    # What goes in.

    def write(self, data: bytes, /) -> None:
        """Input. Once the program was started, callers may keep this method."""

    def end_input(self) -> None:
        """No more input comes."""

    def resize(self, size: WindowSize) -> bool:
        """Returns whether there is a terminal, which has this size now."""

    def signal(self, number: int) -> bool:
        """Returns whether there is something that may have got this signal."""

    def send_break(self) -> bool:
        """A break on the line (RFC 4335). Returns whether there is a terminal."""

    def hang_up(self) -> None:
        """The session is over: let go of everything, and tell a program that still runs that its user is gone."""

    # What comes out.

    def output_to(self, stdout: Take, stderr: Take, room: Room | None) -> None:
        """From now on each piece of output is given to one of these; a terminal's to ``stdout``. With ``room``, no
        more is read at a time than that."""

    def pause_output(self) -> None: ...
    def resume_output(self) -> None: ...

    def end_output(self) -> None:
        """Nobody reads ``stdout`` any longer: the program should learn it from its next write."""

    def quiet(self) -> bool:
        """Whether no output waits to be read at this moment."""

    def is_over(self) -> bool:
        """Whether no more output can come."""
