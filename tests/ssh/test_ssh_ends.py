"""What a relay joins: the proof that something speaks SSH, and taps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from teleconch.errors import ConnectionProblem
from teleconch.ssh.ends import Proved
from teleconch.ssh.relay import End, relay


class Far(End):
    """An end whose peer is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.paused, self.written, self.said_eof = True, b"", False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def registerProducer(self, producer: object, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += data

    def loseWriteConnection(self) -> None:
        self.said_eof = True

    def loseConnection(self) -> None:
        if not self.is_gone:
            self.heard_gone()


def proving(clock: Clock, far: Far) -> Deferred[None]:
    return Deferred.fromCoroutine(Proved(far).wait(clock, 10.0))


def outcome(waited: Deferred[None]) -> str:
    found: list[str] = []
    waited.addCallbacks(lambda _: found.append("proved"), lambda failure: found.append(failure.getErrorMessage()))
    return found[0] if found else ""


@given(
    st.sampled_from([b"SSH-2.0-x\r\nmore", b"SSH-1.99-x\r\n", b"SSH-2.0-"]),
    st.lists(st.integers(0, 15), max_size=15),
    st.booleans(),
)
def test_proved_in_any_pieces(said: bytes, cuts: list[int], ends: bool) -> None:
    """What greets as an SSH server is proved, paused again, and loses no byte, however these come."""
    clock, far, near = Clock(), Far(), Far()
    waited = proving(clock, far)
    assert not far.paused
    places = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    for begin, end in pairwise(places):
        if end > begin:
            far.heard(said[begin:end])
    assert outcome(waited) == "proved"
    assert far.paused
    assert not clock.getDelayedCalls()
    assert "heard" not in vars(far)
    if ends:
        far.heard_eof()
    relay(near, far)
    assert not far.paused
    assert near.written == said
    assert near.said_eof == ends
    far.heard(b"later")
    assert near.written == said + b"later"


@given(st.binary(min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=5))
def test_nothing_else_is_proved(said: bytes, cuts: list[int]) -> None:
    """Anything but a greeting is refused by its first byte that is wrong, and the end is closed."""
    if said.startswith((b"SSH-2.0-", b"SSH-1.99-")):
        return
    clock, far = Clock(), Far()
    waited = proving(clock, far)
    places = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    for begin, end in pairwise(places):
        if end > begin and not far.is_gone:
            far.heard(said[begin:end])
    if b"SSH-2.0-".startswith(said) or b"SSH-1.99-".startswith(said):
        assert not far.is_gone
        far.heard_eof()
        assert outcome(waited) == "it closed the connection before it said anything"
    else:
        assert outcome(waited) == "what answers there does not speak SSH"
    assert far.is_gone
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("how", ["heard_eof", "heard_gone"])
def test_ends_that_say_nothing(how: str, early: bool) -> None:
    """An end that is closed, before it is listened to or while it is, is refused."""
    clock, far = Clock(), Far()
    if early:
        getattr(far, how)()
    waited = proving(clock, far)
    if not early:
        getattr(far, how)()
    assert outcome(waited) == "it closed the connection before it said anything"
    assert far.is_gone
    assert not clock.getDelayedCalls()


def test_silence_and_cancelling() -> None:
    """Whoever says nothing is waited for that long; whoever gives up leaves nothing open."""
    clock, far = Clock(), Far()
    waited = proving(clock, far)
    clock.advance(9.9)
    assert not far.is_gone
    clock.advance(0.1)
    assert outcome(waited) == "it accepted the connection but said nothing"
    assert far.is_gone
    far = Far()
    waited = proving(clock, far)
    waited.cancel()
    waited.addErrback(lambda failure: failure.trap(CancelledError, ConnectionProblem) and None)
    assert far.is_gone
    assert not clock.getDelayedCalls()


def test_a_tap() -> None:
    """A tap sees what is heard, in order, until it has seen enough, and the end at the latest; nobody else notices."""
    far, near = Far(), Far()
    seen: list[bytes] = []
    far.tap(lambda data: seen.append(data) or len(seen) < 3)
    far.heard(b"a")
    relay(far, near)
    assert seen == [b"a"]
    for data in (b"b", b"c", b"d"):
        far.heard(data)
    assert seen == [b"a", b"b", b"c"]
    assert near.written == b"abcd"
    assert "heard" not in vars(far)
    near.tap(lambda data: seen.append(data) or True)
    near.heard_eof()
    assert seen[-1] == b""
    assert "heard" not in vars(near)


def test_gone_is_told_once() -> None:
    """Whoever counts an end is told once that it is closed, also when it was closed before it was joined."""
    told: list[None] = []
    far, near = Far(), Far()
    far.when_gone = lambda: told.append(None)
    far.heard_gone()
    relay(far, near)
    far.abort()
    assert len(told) == 1
    assert near.is_gone
