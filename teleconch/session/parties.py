"""Who takes part in a session: what each is given, what each may do, and who makes the others wait.

From the moment it joins, each party is given all output, complete and in order. The slowest party that may write makes
the program wait. Parties that only watch never do: one that is too slow is dropped.

One party that may write, and nobody else, is the usual case, and costs nothing: the program's output goes straight to
that party, and its input straight to the program. A recorder changes that in two places: :meth:`Parties._connect` (what
comes out) and :class:`Seat` (what goes in, and the sizes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Protocol

from teleconch.session.program import Program, Room, Take, WindowSize

WATCHER_MAX: Final = 1 << 20  # bytes that wait for a party that only watches, before it is dropped
TOO_SLOW: Final = "You were too slow to watch this session: you have been left behind."


class Right(Enum):
    """What a party may do."""

    WRITE = "write"
    WATCH = "watch"


class Party(Protocol):
    """A participant: an SSH channel, a web socket, a session's other half in another process.

    It sends no input before :meth:`resume_input`, and tells its :class:`Seat` when it takes no more output, and when it
    leaves. It leaves by itself once it has passed on everything after :meth:`over`.
    """

    @property
    def room(self) -> Room | None:
        """How much it takes at a time, if that is known."""

    @property
    def waiting(self) -> int:
        """Bytes that it was given and has not passed on."""

    def write(self, data: bytes, /) -> None:
        """Output, or what a terminal shows."""

    def write_error(self, data: bytes, /) -> None:
        """Output on stderr."""

    def joined(self, seat: Seat) -> None:
        """It takes part from now on, by ``seat``."""

    def pause_input(self) -> None: ...
    def resume_input(self) -> None: ...

    def input_lost(self) -> None:
        """The program no longer reads."""

    def exited(self, status: int | None) -> None:
        """The program has ended with this status (as from ``wait()``); what came before is its own output. What still
        comes is from others that hold its streams."""

    def over(self) -> None:
        """Nothing more comes."""

    def dropped(self, sentence: str) -> None:
        """It no longer takes part; what waits need not be passed on. Its seat is already gone."""


def _nowhere(data: bytes) -> None:
    """From a party that may not write."""


class Seat:
    """What a party holds of a session: the acts that its right allows. Any other does nothing, and says so."""

    def __init__(self, parties: Parties, party: Party, right: Right) -> None:
        self._parties = parties
        self.party = party
        self.writes = right is Right.WRITE
        self.write: Take = parties.program.write if self.writes else _nowhere  # input
        self.left = False
        self.input_over = not self.writes
        self.deaf = False  # its user reads no stdout

    def end_input(self) -> None:
        """This party sends no more input. The program reads EOF when that is so for all that may write."""
        self.input_over = True
        self._parties.settle()

    def end_output(self) -> None:
        """This party's user no longer reads stdout; the program learns it when that is so for all."""
        self.deaf = True
        self._parties.settle()

    def resize(self, size: WindowSize) -> bool:
        """The latest size becomes the terminal's."""
        return self._may_act() and self._parties.program.resize(size)

    def signal(self, number: int) -> bool:
        return self._may_act() and self._parties.program.signal(number)

    def send_break(self) -> bool:
        return self._may_act() and self._parties.program.send_break()

    def pause(self) -> None:
        """The party takes no more output for now."""
        if self.writes and not self.left:
            self._parties.slow.add(self)
            self._parties.flow()

    def resume(self) -> None:
        self._parties.slow.discard(self)
        self._parties.flow()

    def leave(self, *, told: bool = False) -> None:
        """The party leaves; ``told``: it has passed on everything, including the end. Idempotent."""
        self._parties.remove(self, told=told)

    def _may_act(self) -> bool:
        return self.writes and not self.left


class Parties:
    """The parties of one session. ``deserted`` is called, with the last one's ``told``, when none is left that may
    write."""

    def __init__(self, program: Program, deserted: Callable[[bool], None]) -> None:
        self.program = program
        self._deserted = deserted
        self._seats: list[Seat] = []
        self.slow: set[Seat] = set()  # those that may write and take no more for now
        self._output_rests = True
        self._input_rests = self._input_lost = False
        self._input_over = self._unread = False
        self._after: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Seat]:
        """The parties at this moment; any that leaves meanwhile is left out."""
        return (seat for seat in tuple(self._seats) if not seat.left)

    def __len__(self) -> int:
        return len(self._seats)

    # --- coming and going --------------------------------------------------------------------------------------------

    def add(self, party: Party, right: Right) -> Seat:
        """A party joins."""
        seat = Seat(self, party, right)
        self._seats.append(seat)
        self._connect()
        party.joined(seat)
        self.flow()
        if self._input_lost and not seat.left:
            party.input_lost()
        if not seat.left and not (self._input_rests and seat.writes):
            party.resume_input()
        return seat

    def remove(self, seat: Seat, *, told: bool = False) -> None:
        """A party leaves. Idempotent."""
        if seat.left:
            return
        seat.left = True
        seat.write = _nowhere
        self._seats.remove(seat)
        self.slow.discard(seat)
        if seat.writes and not any(other.writes for other in self._seats):
            self._deserted(told)
            return
        self._connect()
        self.settle()
        self.flow()

    # --- output ------------------------------------------------------------------------------------------------------

    def check_after_output(self, after: Callable[[], None]) -> None:
        """From now on, call ``after`` after each piece of output."""
        self._after = after
        self._connect()

    def say(self, line: bytes) -> None:
        """A line that is not the program's, on its stderr."""
        (self._stdout if self.program.terminal else self._stderr)(line)

    def _connect(self) -> None:
        first = self._seats[0] if len(self._seats) == 1 else None
        room = None if first is None else first.party.room
        if first is not None and first.writes and self._after is None:
            self.program.output_to(first.party.write, first.party.write_error, room)
        else:
            self.program.output_to(self._stdout, self._stderr, room)

    def _stdout(self, data: bytes) -> None:
        for seat in self:
            if not seat.deaf:
                self._give(seat, seat.party.write, data)
        if self._after is not None:
            self._after()

    def _stderr(self, data: bytes) -> None:
        for seat in self:
            self._give(seat, seat.party.write_error, data)
        if self._after is not None:
            self._after()

    def _give(self, seat: Seat, take: Take, data: bytes) -> None:
        if seat.writes or seat.party.waiting + len(data) <= WATCHER_MAX:
            take(data)
            return
        self.remove(seat)
        seat.party.dropped(TOO_SLOW)

    def flow(self) -> None:
        """Pause the program's output as long as anyone is ``slow``."""
        if self.slow:
            if not self._output_rests:
                self._output_rests = True
                self.program.pause_output()
        elif self._output_rests:
            self._output_rests = False
            self.program.resume_output()

    # --- input -------------------------------------------------------------------------------------------------------

    def pause_input(self) -> None:
        """The program does not keep up."""
        self._input_rests = True
        for seat in self:
            if seat.writes:
                seat.party.pause_input()

    def resume_input(self) -> None:
        """It takes more."""
        self._input_rests = False
        for seat in self:
            if seat.writes:
                seat.party.resume_input()

    def input_lost(self) -> None:
        """It no longer reads."""
        self._input_lost = True
        for seat in self:
            seat.party.input_lost()

    def settle(self) -> None:
        """Tell the program what is now true of all parties: no more input, no reader of stdout."""
        if not self._seats:
            return
        if not self._input_over and all(seat.input_over for seat in self._seats):
            self._input_over = True
            self.program.end_input()
        if not self._unread and all(seat.deaf for seat in self._seats):
            self._unread = True
            self.program.end_output()
