"""The watch that feeds the directory: it goes on when auth comes back, and not in step with other proxies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from teleconch.api.interface import Receiver
from teleconch.api.watcher import FIRST_PICTURE, Watcher
from teleconch.defaults import BACKOFF_MAX
from teleconch.errors import AccessDenied, ConnectionProblem
from teleconch.proxy.directory import Directory
from teleconch.resources.kind import NODES, Change, Kind
from tests.worlds.proxy import NodeList, new_uuid, node, told


class _Chance(random.Random):
    """The longest wait each time; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return b


class Story:
    def __init__(self) -> None:
        self.clock = Clock()
        self.chance = _Chance()
        self.nodes = NodeList()
        self.directory = Directory(self.clock.seconds)
        self.refusals: list[str] = []
        self.watch = Watcher(self.clock, self.nodes, NODES, self.directory, self.chance, self.refusals.append)

    def names(self) -> set[str]:
        return {each.node.nodename for each in self.directory.values.values()}


@pytest.fixture
def story() -> Iterator[Story]:
    story = Story()
    yield story
    pytest_twisted.blockon(Deferred.fromCoroutine(story.watch.stopService()))
    assert not story.clock.getDelayedCalls()


def test_follows(story: Story) -> None:
    """The proxy knows each node as soon as auth tells of it."""
    story.nodes.put(node(1, "a"))
    story.watch.startService()
    assert story.directory.complete
    assert story.names() == {"a"}
    story.nodes.put(node(2, "b"))
    assert story.names() == {"a", "b"}
    story.nodes.receivers[-1].watch_ended()
    story.clock.advance(1)
    assert story.directory.age() is None


def test_keeps_the_last_known(story: Story) -> None:
    """While auth is down users still reach their nodes, and the proxy tries again with growing, random waits."""
    story.nodes.put(node(1, "a"))
    story.watch.startService()
    story.nodes.problem = ConnectionProblem("auth is away")
    story.nodes.receivers[-1].watch_ended()
    assert story.nodes.stopped == 1
    assert story.names() == {"a"}
    for _ in range(300):
        story.clock.advance(1)
    assert story.names() == {"a"}
    assert story.directory.age() == 300.0
    lowest, highest = zip(*story.chance.asked, strict=True)
    assert set(lowest) == {0}, "full jitter: from nothing on"
    assert highest[:4] == (0.5, 0.5, 1.0, 2.0) or highest[:3] == (0.5, 1.0, 2.0)
    assert highest[-1] == BACKOFF_MAX
    assert len(highest) < 20

    # Back again: what went meanwhile is dropped, what came is there, and the waits are short again.
    story.nodes.problem = None
    story.nodes.statuses.clear()
    story.nodes.put(node(2, "b"))
    story.clock.advance(BACKOFF_MAX)
    assert story.names() == {"b"}
    assert story.directory.age() is None
    story.nodes.receivers[-1].watch_ended()
    assert story.chance.asked[-1] == (0, 0.5)


def test_drops_only_what_is_gone(story: Story) -> None:
    """A new watch tells the nodes piece by piece: none is dropped before all were told, and then only what is gone."""
    nodes = [node(n, f"node-{n}") for n in range(1200)]
    story.nodes.put(*nodes)
    story.watch.startService()
    story.nodes.receivers[-1].watch_ended()

    async def slow_watch(kind: Kind[Any], receiver: Receiver[Any]) -> Any:
        story.nodes.receivers.append(receiver)
        return _Nothing()

    story.nodes.watch = slow_watch
    story.clock.advance(1)
    receiver = story.nodes.receivers[-1]
    receiver.changes(told(*nodes[:7]))
    assert len(story.directory) == 1200
    receiver.changes(told(*nodes[8:]))
    assert len(story.directory) == 1200
    assert story.directory.age() == 1.0, "it is not current before it is whole"
    receiver.whole()
    assert len(story.directory) == 1199
    assert "node-7" not in story.names()
    assert story.directory.age() is None


def test_a_watch_that_ends_half_way_drops_nothing(story: Story) -> None:
    """Where auth goes away in the middle of telling its nodes, those that were not told stay usable."""
    story.nodes.put(node(1, "a"), node(2, "b"))
    story.watch.startService()
    story.nodes.receivers[-1].watch_ended()

    async def half(kind: Kind[Any], receiver: Receiver[Any]) -> Any:
        story.nodes.receivers.append(receiver)
        receiver.changes(told(node(1, "a")))
        receiver.watch_ended()
        return _Nothing()

    story.nodes.watch, whole = half, story.nodes.watch
    story.clock.advance(1)
    assert story.names() == {"a", "b"}
    story.nodes.statuses.pop(new_uuid(1))
    story.nodes.watch = whole
    story.clock.advance(BACKOFF_MAX)
    assert story.names() == {"b"}


def test_first_picture(story: Story) -> None:
    """Over the wire the first nodes come piece by piece: the directory is whole only once auth says so."""

    async def pushed_later(kind: Kind[Any], receiver: Receiver[Any]) -> Any:
        story.nodes.receivers.append(receiver)
        receiver.changes(told(node(0, "node-0")))
        return _Nothing()

    story.nodes.watch = pushed_later
    story.watch.startService()
    waits = [story.watch.first_picture() for _ in range(3)]
    waits[2].cancel()
    waits[2].addErrback(lambda _: None)
    receiver = story.nodes.receivers[-1]
    receiver.changes(told(*(node(n, f"node-{n}") for n in range(1, 1200))))
    receiver.changes((Change(new_uuid(1100), None),))
    assert not story.directory.complete
    assert not waits[0].called
    receiver.whole()
    assert story.directory.complete
    assert waits[0].called
    assert waits[1].called
    assert len(story.directory) == 1199
    assert story.watch.first_picture().called


def test_first_picture_is_not_waited_for_without_end(story: Story) -> None:
    """Where auth is away, or answers nothing, a proxy says so instead of waiting."""
    never: Deferred[None] = Deferred()

    async def silent(kind: Kind[Any], receiver: Receiver[Any]) -> Any:
        await never

    story.nodes.watch = silent
    story.watch.startService()
    wait = story.watch.first_picture()
    story.clock.advance(FIRST_PICTURE - 0.1)
    assert not wait.called
    story.clock.advance(0.1)
    assert wait.called
    again = story.watch.first_picture()
    assert not again.called
    never.errback(ConnectionProblem("auth is away"))
    assert again.called
    assert not story.directory.complete
    assert story.watch.first_picture().called


class _Nothing:
    def stop(self) -> None:
        pass


def test_old_watch_is_not_heard(story: Story) -> None:
    """A watch that ended cannot bring back what the new one has removed, nor end the new one."""
    story.watch.startService()
    old = story.nodes.receivers[-1]
    old.watch_ended()
    story.clock.advance(1)
    assert len(story.nodes.receivers) == 2
    old.changes(told(node(5, "ghost")))
    assert story.names() == set()
    old.watch_ended()
    story.clock.advance(60)
    assert len(story.nodes.receivers) == 2


def test_tells_that_auth_refuses_the_proxy(story: Story) -> None:
    """A proxy that was removed is not ready before auth takes it again; an auth server that is away refuses nobody."""
    story.nodes.problem = ConnectionProblem("auth is away")
    story.watch.startService()
    assert story.refusals == []
    story.nodes.problem = AccessDenied("removed")
    story.clock.advance(1)
    assert story.refusals == ["removed"]
    story.nodes.problem = None
    story.clock.advance(2)
    assert story.refusals == ["removed", ""]


def test_unexpected_error(story: Story) -> None:
    """A fault that nobody thought of does not end the watch for ever."""
    story.nodes.problem = ZeroDivisionError()
    story.watch.startService()
    story.nodes.problem = None
    story.nodes.put(node(1, "a"))
    story.clock.advance(1)
    assert story.names() == {"a"}
