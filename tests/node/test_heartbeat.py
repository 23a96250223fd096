"""Pings on a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from teleconch import defaults
from teleconch.errors import AlreadyJoined
from teleconch.node.heartbeat import CALL_DEADLINE, GOODBYE_DEADLINE, Heartbeat
from teleconch.resources.host import Ping
from teleconch.resources.node import Node
from tests.worlds.certificates import UUID
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.node import Auth

NODE = Node(UUID, "box", "example.com", "127.0.0.1:3022", labels={"env": "test"})


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the heartbeat logs."""
    events: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "teleconch.node.heartbeat":
            events.append(event)

    add_observer(observe)
    yield events
    remove_observer(observe)


class Same(random.Random):
    """Chance that is always the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


class Rig:
    """A heartbeat, its clock and an auth server."""

    def __init__(self, chance: float = 0.999999) -> None:
        self.clock = Clock()
        self.auth = Auth(answer=lambda: Ping(60, self.clock.seconds()))
        self.node = NODE
        self.chance = Same(chance)
        self.beat = Heartbeat(
            self.clock,
            self.auth,
            lambda: self.node,
            instance="i1",
            chance=self.chance,
            now=self.clock.seconds,
        )

    def run(self, seconds: float) -> int:
        """Let time pass; how many pings came."""
        before = len(self.auth.pings)
        self.clock.pump([0.05] * int(seconds * 20))
        return len(self.auth.pings) - before


def test_pace(lines: list[dict[str, Any]]) -> None:
    """A node pings at once and then about once a minute, never later than the auth server asks for."""
    rig = Rig()
    rig.beat.start()
    assert rig.auth.pings == [(NODE, "i1")]
    assert rig.run(59) == 0
    assert rig.run(2) == 1
    rig.auth.answer = lambda: Ping(10, rig.clock.seconds())
    rig.run(60)
    assert rig.run(60) in (6, 7)
    assert not lines


def test_pace_is_jittered() -> None:
    """Nodes that start together do not stay in step."""
    early, late = Rig(0.0), Rig(0.99)
    for rig in early, late:
        rig.beat.start()
    assert early.run(31) == 1
    assert late.run(31) == 0


def test_change_pings_now() -> None:
    """A label that changes is known at once, and the next ping is a period later."""
    rig = Rig()
    rig.beat.start()
    rig.run(20)
    rig.node = Node(UUID, "box", "example.com", "127.0.0.1:3022", labels={"env": "prod"})
    rig.beat.changed()
    assert [node.labels["env"] for node, _ in rig.auth.pings] == ["test", "prod"]
    assert rig.run(55) == 0


def test_change_while_a_ping_runs() -> None:
    """A change during a ping is told right after it, not a minute later."""
    rig = Rig()
    answer: Deferred[Ping] = Deferred()
    plain = rig.auth.heartbeat

    async def slow(node: Node, instance: str) -> Ping:
        await plain(node, instance)
        return await answer

    rig.auth.heartbeat = slow
    rig.beat.start()
    rig.beat.changed()
    rig.beat.changed()
    assert len(rig.auth.pings) == 1
    rig.auth.heartbeat = plain
    answer.callback(Ping(60, 0))
    rig.clock.advance(0)
    assert rig.run(50) == 0
    assert len(rig.auth.pings) == 2


def test_loss_and_recovery(lines: list[dict[str, Any]]) -> None:
    """An auth server that is away for an hour costs one line, and its return another; the first try back succeeds."""
    rig = Rig()
    rig.beat.start()
    rig.auth.down = True
    rig.run(3600)
    assert [(line["log_level"], line.get("error")) for line in lines] == [
        (LogLevel.warn, "No auth server can be reached.")
    ]
    assert rig.beat.failures > 3600 / defaults.BACKOFF_MAX - 10
    rig.auth.down = False
    assert rig.run(defaults.BACKOFF_MAX + 1) == 1
    assert [line["log_level"] for line in lines] == [LogLevel.warn, LogLevel.info]
    assert 3500 < lines[1]["seconds"] < 3700
    assert rig.beat.failures == 0


def test_back_off_has_full_jitter() -> None:
    """Tries after a loss are spread over the whole wait, which doubles up to its bound."""
    rig = Rig(0.5)
    rig.auth.down = True
    waits = []
    rig.beat.start()
    for _ in range(12):
        (call,) = rig.clock.getDelayedCalls()
        waits.append(call.getTime() - rig.clock.seconds())
        rig.clock.advance(waits[-1])
    assert waits[:4] == pytest.approx([0.5, 1, 2, 4])
    assert max(waits) == pytest.approx(defaults.BACKOFF_MAX / 2)


def test_silence_is_a_loss(lines: list[dict[str, Any]]) -> None:
    """An auth server that takes pings and never answers does not stop the pings."""
    rig = Rig()

    async def never(node: Node, instance: str) -> Ping:
        return await Deferred()

    rig.auth.heartbeat = never
    rig.beat.start()
    rig.run(CALL_DEADLINE + 1)
    assert rig.beat.failures == 1
    assert [line["error"] for line in lines] == [f"It did not answer within {CALL_DEADLINE:.0f} s."]


def test_two_nodes_of_one_uuid(lines: list[dict[str, Any]]) -> None:
    """The sentence is in the log once, and the node keeps trying slowly."""
    rig = Rig()
    tries = []

    async def refuse(node: Node, instance: str) -> Ping:
        tries.append(rig.clock.seconds())
        raise AlreadyJoined("Another process pings with this UUID; remove the copied data_dir.")

    rig.auth.heartbeat = refuse
    rig.beat.start()
    rig.run(600)
    assert len(tries) in (10, 11)
    assert [line["error"] for line in lines] == ["Another process pings with this UUID; remove the copied data_dir."]


def test_clock_skew(lines: list[dict[str, Any]]) -> None:
    """A clock that is wrong by more than a minute is named once, with the amount."""
    rig = Rig()
    rig.auth.answer = lambda: Ping(60, rig.clock.seconds() + 1234)
    rig.beat.start()
    rig.run(600)
    assert [line["seconds"] for line in lines] == [1234]
    rig.auth.answer = lambda: Ping(60, rig.clock.seconds() - 59)
    rig.run(120)
    assert len(lines) == 1
    rig.auth.answer = lambda: Ping(60, rig.clock.seconds() - 61)
    rig.run(120)
    assert [line["seconds"] for line in lines] == [1234, 61]


def test_a_fault_does_not_end_the_pings() -> None:
    """An unexpected error in one ping is logged, and the next ping comes."""
    rig = Rig()
    plain = rig.auth.heartbeat

    async def broken(node: Node, instance: str) -> Ping:
        raise RuntimeError("bug")

    rig.auth.heartbeat = broken
    rig.beat.start()
    rig.auth.heartbeat = plain
    assert rig.run(61) == 1


@pytest_twisted.ensureDeferred
async def test_goodbye() -> None:
    """A node that stops says so, and pings no more."""
    rig = Rig()
    rig.beat.start()
    await rig.beat.stop()
    assert rig.auth.goodbyes == ["i1"]
    assert not rig.clock.getDelayedCalls()
    rig.beat.changed()
    assert rig.run(200) == 0


@pytest_twisted.ensureDeferred
async def test_goodbye_to_nobody() -> None:
    """Stopping does not wait for an auth server that is away or silent."""
    rig = Rig()
    rig.auth.down = True
    rig.beat.start()
    await rig.beat.stop()
    assert not rig.clock.getDelayedCalls()

    rig = Rig()
    rig.beat.start()

    async def never(instance: str) -> None:
        await Deferred()

    rig.auth.goodbye = never
    stopping = Deferred.fromCoroutine(rig.beat.stop())
    rig.clock.advance(GOODBYE_DEADLINE)
    await stopping


@pytest_twisted.ensureDeferred
async def test_stop_during_a_ping() -> None:
    """Stopping while a ping runs leaves no call and no error behind."""
    rig = Rig()

    async def never(node: Node, instance: str) -> Ping:
        return await Deferred()

    rig.auth.heartbeat = never
    rig.beat.start()
    await rig.beat.stop()
    assert not rig.clock.getDelayedCalls()
    assert rig.auth.goodbyes == ["i1"]


def test_who_waits_for_the_first_ping_hears_of_it() -> None:
    """A start knows whether the auth server took the node, refused it, or was away; a refusal is told until it ends."""
    refusals: list[str] = []

    def refuse() -> Ping:
        raise AlreadyJoined("two of them")

    rig = Rig()
    rig.beat = Heartbeat(
        rig.clock, rig.auth, lambda: NODE, instance="i1", chance=rig.chance, now=rig.clock.seconds,
        reached=lambda: refusals.append(""), refused=lambda error: refusals.append(str(error)),
    )  # fmt: skip
    taken, rig.auth.answer = rig.auth.answer, refuse
    rig.beat.start()
    assert rig.beat.first.called
    assert refusals == ["two of them"]
    rig.auth.answer = taken
    rig.run(61)
    assert refusals == ["two of them", ""]
    rig.auth.down = True
    rig.run(61)
    assert refusals == ["two of them", ""]
    away = Rig()
    away.auth.down = True
    away.beat.start()
    assert away.beat.first.called
