"""A program and parties that do what the test says, for sessions without processes or connections."""

from __future__ import annotations

from teleconch.session.parties import Seat
from teleconch.session.program import ProgramEvents, Take, WindowSize


class Told:
    """A program that the test speaks for. Keeps what it hears."""

    def __init__(self, terminal: bool = False) -> None:
        self.terminal = terminal
        self.resting = True
        self.heard = b""
        self.acts: list[object] = []
        self.waits = self.streams_over = False

    def tell(self, events: ProgramEvents) -> None:
        self.events = events

    def write(self, data: bytes, /) -> None:
        self.heard += data

    def end_input(self) -> None:
        self.acts.append("end_input")

    def resize(self, size: WindowSize) -> bool:
        self.acts.append(size)
        return self.terminal

    def signal(self, number: int) -> bool:
        self.acts.append(number)
        return True

    def send_break(self) -> bool:
        self.acts.append("break")
        return self.terminal

    def hang_up(self) -> None:
        self.acts.append("hang_up")

    def output_to(self, stdout: Take, stderr: Take, room: object) -> None:
        self.stdout, self.stderr, self.room = stdout, stderr, room

    def pause_output(self) -> None:
        assert not self.resting
        self.resting = True

    def resume_output(self) -> None:
        assert self.resting
        self.resting = False

    def end_output(self) -> None:
        self.acts.append("end_output")

    def quiet(self) -> bool:
        return not self.waits

    def is_over(self) -> bool:
        return self.streams_over


class Listener:
    """A party that passes bytes on when the test says so."""

    room = None

    def __init__(self, quick: bool = True) -> None:
        self.quick = quick
        self.waiting = 0
        self.out = b""
        self.err = b""
        self.told: list[object] = []
        self.input_rests = True

    def joined(self, seat: Seat) -> None:
        self.seat = seat

    def write(self, data: bytes, /) -> None:
        self.out += data
        self._given(data)

    def write_error(self, data: bytes, /) -> None:
        self.err += data
        self._given(data)

    def _given(self, data: bytes) -> None:
        if not self.quick:
            self.waiting += len(data)
            self.seat.pause()

    def pass_on(self) -> None:
        """What waits is on its way; it is quick from now on."""
        self.quick, self.waiting = True, 0
        self.seat.resume()

    def pause_input(self) -> None:
        self.input_rests = True

    def resume_input(self) -> None:
        self.input_rests = False

    def input_lost(self) -> None:
        self.told.append("input_lost")

    def exited(self, status: int | None) -> None:
        self.told.append(status)

    def over(self) -> None:
        self.told.append("over")
        if not self.waiting:
            self.seat.leave(told=True)

    def dropped(self, sentence: str) -> None:
        assert self.seat.left
        self.told.append(sentence)
