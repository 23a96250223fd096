"""Several parties of one session: what each is given, what each may do, who waits for whom, and the end."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from teleconch.errors import AlreadyExists, NotFound
from teleconch.session.live import DESERTED, Live, Outcome
from teleconch.session.parties import TOO_SLOW, WATCHER_MAX, Right
from teleconch.session.program import WindowSize
from teleconch.session.registry import Registry
from tests.worlds.parties import Listener, Told

RIGHTS = st.sampled_from(Right)


class _Session:
    """A session, its program, and the ends that it told."""

    def __init__(self, terminal: bool = False) -> None:
        self.program = Told(terminal)
        self.ends: list[Outcome] = []
        self.live = Live("1", self.program, self.ends.append)

    def join(self, right: Right, quick: bool = True) -> Listener:
        party = Listener(quick)
        self.live.join(party, right)
        return party


def test_one_party_has_the_program_for_itself() -> None:
    """The usual session costs what it did when a session was its channel: nothing stands between the two."""
    session = _Session()
    party = session.join(Right.WRITE)
    assert session.program.stdout == party.write
    assert session.program.stderr == party.write_error
    assert party.seat.write == session.program.write
    second = session.join(Right.WATCH)
    assert session.program.stdout != party.write
    second.seat.leave()
    assert session.program.stdout == party.write


def test_rights() -> None:
    """One who only watches types nothing, sends no signal, no break and no size, and ends no input."""
    session = _Session(terminal=True)
    writer, watcher = session.join(Right.WRITE), session.join(Right.WATCH)
    size = WindowSize(80, 24)
    watcher.seat.write(b"rm -rf /\n")
    watcher.seat.end_input()
    assert not watcher.seat.resize(size)
    assert not watcher.seat.signal(signal.SIGKILL)
    assert not watcher.seat.send_break()
    watcher.seat.pause()
    assert session.program.heard == b""
    assert session.program.acts == []
    assert not session.program.resting
    writer.seat.write(b"ls\n")
    assert writer.seat.resize(size)
    assert writer.seat.signal(signal.SIGINT)
    assert writer.seat.send_break()
    assert session.program.heard == b"ls\n"
    assert session.program.acts == [size, signal.SIGINT, "break"]
    other = session.join(Right.WRITE)
    writer.seat.leave()
    writer.seat.write(b"late")
    assert not writer.seat.signal(signal.SIGKILL)
    assert not other.seat.left
    assert session.program.heard == b"ls\n"


def test_input_of_several() -> None:
    """The program reads the end of its input when nobody is left who may send some, and slows down all who may."""
    session = _Session()
    first, second, watcher = (session.join(right) for right in (Right.WRITE, Right.WRITE, Right.WATCH))
    session.program.events.pause_input()
    late = session.join(Right.WRITE)
    assert first.input_rests
    assert second.input_rests
    assert late.input_rests
    assert not watcher.input_rests  # what it sends is dropped, so that it does not wait for ever
    session.program.events.resume_input()
    assert not first.input_rests
    assert not second.input_rests
    assert not late.input_rests
    first.seat.end_input()
    second.seat.end_input()
    assert session.program.acts == []
    late.seat.leave()
    assert session.program.acts == ["end_input"]
    session.program.events.input_lost()
    later = session.join(Right.WRITE)
    assert first.told == second.told == later.told == ["input_lost"]


def test_nobody_reads() -> None:
    """The program learns that its stdout is not read when that is so for all; those who do read get it until then."""
    session = _Session()
    first, second = session.join(Right.WRITE), session.join(Right.WATCH)
    first.seat.end_output()
    session.program.stdout(b"out")
    session.program.stderr(b"err")
    assert (first.out, first.err, second.out, second.err) == (b"", b"err", b"out", b"err")
    assert session.program.acts == []
    second.seat.end_output()
    assert session.program.acts == ["end_output"]


def test_slow_writer_and_slow_watcher() -> None:
    """The slowest of those who may write makes the program wait; one who only watches is dropped at a fixed bound."""
    session = _Session()
    writer, slow = session.join(Right.WRITE), session.join(Right.WRITE, False)
    watcher = session.join(Right.WATCH, False)
    session.program.stdout(b"x")
    assert session.program.resting
    slow.pass_on()
    assert not session.program.resting
    piece = bytes(WATCHER_MAX // 4)
    for _ in range(3):
        session.program.stdout(piece)
    assert not watcher.seat.left
    assert watcher.waiting <= WATCHER_MAX
    session.program.stderr(piece)
    assert watcher.seat.left
    assert watcher.told == [TOO_SLOW]
    assert watcher.waiting <= WATCHER_MAX
    session.program.stdout(b"y")
    assert writer.out == slow.out == b"x" + 3 * piece + b"y"
    assert writer.err == slow.err == piece
    assert not session.program.resting
    assert not session.ends


def test_slow_one_leaves() -> None:
    """One for whom the program waits holds up nobody after it has left."""
    session = _Session()
    writer, slow = session.join(Right.WRITE), session.join(Right.WRITE, False)
    session.program.stdout(b"x")
    assert session.program.resting
    slow.seat.leave()
    assert not session.program.resting
    session.program.stdout(b"y")
    assert (writer.out, slow.out) == (b"xy", b"x")


def test_the_end() -> None:
    """All are told the status when no output waits, and the end when none can come; then the session is over."""
    session = _Session()
    writer, watcher = session.join(Right.WRITE, False), session.join(Right.WATCH)
    session.program.waits = True
    session.program.events.ended(256, None)
    assert writer.told == watcher.told == []
    session.program.waits = False
    session.program.stdout(b"last")
    assert writer.told == watcher.told == [256]
    late = session.join(Right.WATCH)
    assert late.told == [256]
    session.program.stdout(b"of a background child")
    session.program.streams_over = True
    session.program.events.output_over()
    assert watcher.told == late.told == writer.told == [256, "over"]
    assert not session.ends  # the writer has not passed it on yet
    writer.pass_on()
    writer.seat.leave(told=True)
    assert session.ends == [Outcome(256, None)]
    assert writer.out == watcher.out == b"lastof a background child"
    assert late.out == b"of a background child"
    with pytest.raises(NotFound):
        session.join(Right.WRITE)


def test_the_end_of_one() -> None:
    """One party, which has the program for itself, is told the status after the last byte of output, not later."""
    session = _Session()
    party = session.join(Right.WRITE)
    session.program.waits = True
    session.program.events.ended(0, None)
    assert party.told == []
    session.program.waits = False
    session.program.stdout(b"last")
    assert party.out == b"last"
    assert party.told == [0]
    session.program.streams_over = True
    session.program.events.output_over()
    assert session.ends == [Outcome(0, None)]


def test_the_last_who_may_write_leaves() -> None:
    """Nobody is left who may write: the program is hung up, and those who watch are told that it is over."""
    session = _Session()
    first, second, watcher = (session.join(right) for right in (Right.WRITE, Right.WRITE, Right.WATCH))
    first.seat.leave()
    assert session.ends == []
    assert session.program.acts == []
    second.seat.leave()
    assert session.program.acts == ["hang_up"]
    assert session.ends == [Outcome(None, DESERTED)]
    assert watcher.told == ["over"]
    session.program.events.ended(1, None)
    assert len(session.ends) == 1


def test_hung_up() -> None:
    """Whoever hangs up a session says why, once, and all parties are gone."""
    session = _Session()
    parties = [session.join(right) for right in (Right.WRITE, Right.WATCH, Right.WRITE)]
    session.live.hang_up("the node stops")
    session.live.hang_up("again")
    assert session.ends == [Outcome(None, "the node stops")]
    assert session.program.acts == ["hang_up"]
    assert all(party.seat.left and party.told == ["The session was ended: the node stops."] for party in parties)


def test_not_started() -> None:
    """Why there is no program is said to all, where a user sees it: on the terminal, or else on stderr."""
    for terminal in (False, True):
        session = _Session(terminal)
        party = session.join(Right.WRITE)
        session.program.events.failed("No such user.")
        assert (party.out if terminal else party.err) == b"No such user.\r\n"
        session.program.streams_over = True
        session.program.events.ended(255 << 8, None)
        assert party.told == [255 << 8, "over"]


def test_registry() -> None:
    """A session is found by its id while it runs, and whoever waits for all to be over is told."""
    registry = Registry()
    ends: list[Any] = []
    live = registry.begin("a", Told(), ends.append)
    with pytest.raises(AlreadyExists):
        registry.begin("a", Told(), ends.append)
    waiting = registry.empty()
    assert registry.get("a") is live
    assert registry.get("b") is None
    assert list(registry) == [live]
    live.hang_up("why")
    assert waiting.called
    assert registry.get("a") is None
    assert len(registry) == 0
    assert ends == [Outcome(None, "why")]


class Model(RuleBasedStateMachine):
    """Whoever comes, goes, is slow or types: each party has what was said from its joining on, whole and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.session = _Session()
        self.session.join(Right.WRITE).told.append("never leaves")
        (seat,) = self.session.live.parties
        self.parties: list[tuple[Listener, Right]] = [(seat.party, Right.WRITE)]  # type: ignore[list-item]
        self.expected: list[tuple[bytes, bytes]] = [(b"", b"")]
        self.typed = b""
        self.count = 0

    def _here(self) -> list[int]:
        return [number for number, (party, _) in enumerate(self.parties) if not party.seat.left]

    @rule(right=RIGHTS, quick=st.booleans())
    def join(self, right: Right, quick: bool) -> None:
        self.parties.append((self.session.join(right, quick), right))
        self.expected.append((b"", b""))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        here = self._here()[1:]
        if here:
            self.parties[data.draw(st.sampled_from(here))][0].seat.leave()

    @precondition(lambda self: not self.session.program.resting)
    @rule(size=st.sampled_from((1, 1000, 1 << 18)), error=st.booleans())
    def output(self, size: int, error: bool) -> None:
        self.count += 1
        piece = bytes([self.count % 256]) * size
        waited = {number: self.parties[number][0].waiting for number in self._here()}
        (self.session.program.stderr if error else self.session.program.stdout)(piece)
        for number, waiting in waited.items():
            party, right = self.parties[number]
            dropped = right is Right.WATCH and waiting + size > WATCHER_MAX
            assert party.seat.left == dropped
            if not dropped:
                out, err = self.expected[number]
                self.expected[number] = (out, err + piece) if error else (out + piece, err)

    @rule(data=st.data(), quick=st.booleans())
    def pace(self, data: st.DataObject, quick: bool) -> None:
        party, _ = self.parties[data.draw(st.sampled_from(range(len(self.parties))))]
        if quick:
            party.pass_on()
        else:
            party.quick = False

    @rule(data=st.data())
    def type(self, data: st.DataObject) -> None:
        self.count += 1
        piece = b"%d " % self.count
        party, right = self.parties[data.draw(st.sampled_from(range(len(self.parties))))]
        if right is Right.WRITE and not party.seat.left:
            self.typed += piece
        party.seat.write(piece)

    @invariant()
    def whole_and_in_order(self) -> None:
        assert [(party.out, party.err) for party, _ in self.parties] == self.expected
        assert self.session.program.heard == self.typed

    @invariant()
    def waits_for_those_who_may_write(self) -> None:
        here = [self.parties[number] for number in self._here()]
        assert self.session.program.resting == any(p.waiting for p, right in here if right is Right.WRITE)
        assert all(party.waiting <= WATCHER_MAX for party, right in self.parties if right is Right.WATCH)
        assert not self.session.ends


TestModel = Model.TestCase
