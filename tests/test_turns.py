"""Turns at work that takes long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from teleconch.errors import LimitExceeded
from teleconch.turns import Turns


class World:
    """A clock, turns, and those who take them; each is done when :meth:`done` says so."""

    def __init__(self, at_once: int = 1, waiting_max: int = 400) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock, at_once, 20.0, waiting_max)
        self.began: list[Any] = []
        self.most = 0
        self.working: dict[Any, Any] = {}

    def comes(self, source: str, name: str = "joe", known: bool = False) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._work(source, name, known))

    async def _work(self, source: str, name: str, known: bool) -> None:
        async with self.turns.turn(source, name, known):
            self.began.append((source, name))
            done = self.working[source, name] = Deferred()
            self.most = max(self.most, len(self.working))
            await done

    def done(self) -> None:
        """The turn that runs longest is over."""
        self.working.pop(next(iter(self.working))).callback(None)

    def all_done(self) -> None:
        while self.working:
            self.done()


def test_one_among_a_crowd() -> None:
    """Somebody who comes after 150 logins of one source is next, and so is another name of that source."""
    world = World()
    crowd = [world.comes("192.0.2.1", "alice") for _ in range(150)]
    one, other = world.comes("192.0.2.2"), world.comes("192.0.2.1", "bob")
    for _ in range(4):
        world.done()
    assert one.called
    assert other.called
    world.all_done()
    assert all(each.called for each in crowd)
    assert len(world.turns) == 0


def test_thousands_who_need_no_time() -> None:
    """Thousands who wait, and have nothing to do once it is their turn, all get it; so they do where each fails."""
    for error in (None, ValueError("over")):
        world = World(waiting_max=5000)
        got: list[Any] = []

        async def comes(
            number: int, turns: Turns = world.turns, error: ValueError | None = error, got: list[Any] = got
        ) -> None:
            async with turns.turn(f"192.0.2.{number % 7}", str(number)):
                got.append(number)
                if error is not None:
                    raise error

        first = world.comes("192.0.2.1")
        others = [Deferred.fromCoroutine(comes(number)) for number in range(5000)]
        world.done()
        assert first.called
        assert sorted(got) == list(range(5000))
        for other in others:
            assert other.called
            other.addErrback(lambda failure: failure.trap(ValueError))


def test_one_among_150_sources() -> None:
    """150 sources at once: nobody is refused, and all are served in the order in which they came."""
    world = World(at_once=4)
    crowd = [world.comes(f"192.0.2.{number}") for number in range(150)]
    last = world.comes("198.51.100.1")
    world.all_done()
    assert all(each.called for each in [*crowd, last])
    assert [source for source, _ in world.began] == [f"192.0.2.{number}" for number in range(150)] + ["198.51.100.1"]
    assert world.most == 4


def test_a_crowd_that_is_done_at_once() -> None:
    """Turns that end as soon as they begin follow one another, however many wait: none is lost for good."""
    world = World(at_once=4)

    async def brief(number: int) -> None:
        async with world.turns.turn("192.0.2.1", f"name{number}"):
            raise ValueError

    busy = [world.comes("192.0.2.2", f"name{number}") for number in range(4)]
    crowd = [Deferred.fromCoroutine(brief(number)) for number in range(396)]
    world.all_done()
    assert all(each.called for each in (*busy, *crowd))
    for each in crowd:
        failure: Any = each.result
        assert failure.check(ValueError)
        each.addErrback(lambda _: None)
    last = [world.comes("192.0.2.3", f"name{number}") for number in range(4)]
    assert len(world.working) == 4
    world.all_done()
    assert all(each.called for each in last)


def test_known_ones_go_first() -> None:
    """Somebody who has logged in from there before does not wait for a crowd of strangers."""
    world = World()
    crowd = [world.comes(f"192.0.2.{number}") for number in range(150)]
    known = world.comes("198.51.100.1", known=True)
    world.done()
    world.done()
    assert known.called
    world.all_done()
    assert all(each.called for each in crowd)


def test_a_full_queue_refuses_who_has_most() -> None:
    """A source that fills the queue gives way to others; a single login gets in."""
    world = World(waiting_max=10)
    refused = []
    flood = [world.comes("192.0.2.1", f"user{number % 3}") for number in range(60)]
    for each in flood:
        each.addErrback(lambda failure: refused.append(failure.trap(LimitExceeded)))
    assert len(world.turns) == 10
    assert len(refused) == 49
    singles = [world.comes(f"198.51.100.{number}") for number in range(5)]
    world.all_done()
    assert all(each.called and each.result is None for each in singles)
    assert len(refused) == 54


def test_a_queue_full_of_strangers_has_room_for_a_known_one() -> None:
    """Many sources with one login each keep out nobody who has logged in before; one who waits already gets no more."""
    world = World(waiting_max=10)
    refused = []
    crowd = [world.comes(f"2001:db8:0:{number:x}::/64") for number in range(11)]
    for each in crowd:
        each.addErrback(lambda failure: refused.append(failure.trap(LimitExceeded)))
    known, again = world.comes("198.51.100.1", known=True), world.comes("198.51.100.1", known=True)
    again.addErrback(lambda failure: refused.append(failure.trap(LimitExceeded)))
    assert len(world.turns) == 10
    assert len(refused) == 2
    world.done()
    world.done()
    assert known.called
    assert known.result is None
    world.all_done()
    assert len(refused) == 2


def test_a_queue_full_of_known_ones_refuses_who_has_most() -> None:
    """Among pairs that are known, as among strangers, the source that has most waiting gives way."""
    world = World(waiting_max=10)
    refused = []
    flood = [world.comes("192.0.2.1", f"user{number}", known=True) for number in range(11)]
    for each in flood:
        each.addErrback(lambda failure: refused.append(failure.trap(LimitExceeded)))
    single = world.comes("198.51.100.1", known=True)
    assert len(refused) == 1
    world.all_done()
    assert single.called
    assert single.result is None


def test_too_long() -> None:
    """Who waits longer than the deadline is told so, and nothing of them stays."""
    world = World()
    world.comes("a")
    late = world.comes("b")
    world.clock.advance(20)
    failure: Any = late.result
    with pytest.raises(LimitExceeded, match="try again in a minute"):
        failure.raiseException()
    late.addErrback(lambda _: None)
    assert len(world.turns) == 0
    world.all_done()
    assert not world.clock.getDelayedCalls()


def test_who_leaves_waits_no_more() -> None:
    """A client that goes away takes nobody's turn."""
    world = World()
    world.comes("a")
    gone, next_one = world.comes("b"), world.comes("c")
    gone.cancel()
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    world.done()
    assert world.began == [("a", "joe"), ("c", "joe")]
    world.all_done()
    assert next_one.called
    assert not world.clock.getDelayedCalls()


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()) | st.sampled_from(["done", "wait"]),
        max_size=60,
    ),
    st.integers(1, 3),
    st.integers(1, 8),
)
def test_any_order(steps: list[str | tuple[str, str, bool]], at_once: int, waiting_max: int) -> None:
    """However they come and go: bounds hold, a pair has one turn at a time, everyone gets a turn or is told."""
    world = World(at_once, waiting_max)
    came = []
    for step in steps:
        if step == "done":
            if world.working:
                world.done()
        elif step == "wait":
            world.clock.advance(7)
        else:
            came.append(world.comes(*step).addErrback(lambda failure: failure.trap(LimitExceeded)))
        assert len(world.working) == len(world.turns._running) <= at_once
        assert len(world.turns) <= waiting_max
        assert len(world.turns) == 0 or len(world.working) > 0
    world.all_done()
    assert all(each.called for each in came)
    assert not world.turns._waiting
    assert not world.turns._first
    assert not world.clock.getDelayedCalls()
