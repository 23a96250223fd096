"""One session that runs: its id, its program, its parties, and its end.

::

    running ──the program ends──▶ ended ──no output waits──▶ exited ──its streams are over──▶ drained ──told──▶ over
       │                            │                          │                                │               ▲
       └────────────────────────────┴──────────────────────────┴── nobody is left who may write, or hang_up ────┘

The parties are told the status when the program has ended and nothing of its output waits; the end follows after the
last byte. Others may hold the program's streams longer than it lives: a background child on pipes does, as with sshd;
one on a terminal does not, since the kernel hangs up a terminal when its session's leader ends. A session whose program
has ended is over when the last party that may write has passed everything on. Parties that only watch keep no session
alive.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from teleconch.errors import NotFound
from teleconch.session.parties import Parties, Party, Right, Seat
from teleconch.session.program import Program

DESERTED = "the connection was closed"


@frozen
class Outcome:
    """``status`` is the program's (as from ``wait()``), ``None`` if it has not ended; ``error`` is ``None`` if it ended
    by itself and everything was passed on."""

    status: int | None
    error: str | None


class Live:
    """``told`` is called once, when the session is over. The program tells it what happens (:class:`ProgramEvents`)."""

    def __init__(self, id: str, program: Program, told: Callable[[Outcome], None]) -> None:
        self.id = id
        self.program = program
        self.parties = Parties(program, self._deserted)
        self._told = told
        self._status: int | None = None
        self._error: str | None = None
        self._ended = self._exited = self._drained = self._over = False
        self.pause_input, self.resume_input = self.parties.pause_input, self.parties.resume_input
        self.input_lost = self.parties.input_lost
        program.tell(self)

    def join(self, party: Party, right: Right) -> Seat:
        """``party`` takes part from now on. It leaves by its seat. NotFound once the session is over."""
        if self._over:
            raise NotFound("This session is over.")
        seat = self.parties.add(party, right)
        if self._exited and not seat.left:
            party.exited(self._status)
        if self._drained and not seat.left:
            party.over()
        return seat

    # --- the end -----------------------------------------------------------------------------------------------------

    def output_over(self) -> None:
        """One stream has ended."""
        self._check()

    def failed(self, sentence: str) -> None:
        """There is no program; :meth:`ended` follows."""
        self.parties.say(sentence.encode() + b"\r\n")

    def ended(self, status: int | None, error: str | None) -> None:
        """The program has ended."""
        self._ended, self._status, self._error = True, status, error
        self.parties.check_after_output(self._check)
        self._check()

    def hang_up(self, reason: str) -> None:
        """End it now, whoever takes part and whatever runs."""
        self._finish(reason)
        for seat in self.parties:
            seat.leave()
            seat.party.dropped(f"The session was ended: {reason}.")

    def _check(self) -> None:
        """Tell the status when no output waits, and the end when no more can come."""
        if not self._ended or self._over:
            return
        if not self._exited and self.program.quiet():
            self._exited = True
            for seat in self.parties:
                seat.party.exited(self._status)
        if self._exited and not self._drained and self.program.is_over():
            self._drained = True
            for seat in self.parties:
                seat.party.over()

    def _deserted(self, told: bool) -> None:
        if self._over:
            return
        self._finish(self._error if told else DESERTED)
        if not self._drained:
            for seat in self.parties:
                seat.party.over()

    def _finish(self, error: str | None) -> None:
        """Let go of everything. Idempotent."""
        if self._over:
            return
        self._over = True
        self.program.hang_up()
        self._told(Outcome(self._status, error))
