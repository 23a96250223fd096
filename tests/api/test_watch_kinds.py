"""A second kind that is watched: all that it costs stands in ``Rooms`` and the first test's fixture."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet import reactor

from teleconch.api import watching
from teleconch.api.copy import Copy
from teleconch.api.watcher import Watcher
from teleconch.auth import authorized
from teleconch.auth.sources import Source
from teleconch.errors import AccessDenied, NotFound
from teleconch.resources.kind import KINDS, Change, Kind
from tests.worlds.api import InProcess, Log, OnTheWire, World, spawn, until

test = pytest_twisted.ensureDeferred
ADMIN = "0b9cf0c5-9d0a-4a5c-8a8c-6f1c3a5f0f11"


@frozen
class Room:
    """A resource of tomorrow."""

    name: str
    seats: int
    tags: tuple[str, ...] = ()


ROOMS = Kind("rooms", Room)
RED, BLUE = Room("red", 4), Room("blue", 12, ("quiet",))


class Rooms:
    """What is to be written for a new kind: its declaration, who may watch it, and where it comes from."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.source = Source(ROOMS)
        self.source.open()
        patch.setitem(KINDS, "rooms", ROOMS)  # type: ignore[call-overload]
        patch.setitem(authorized.WATCHES, "rooms", frozenset(("admin",)))  # type: ignore[call-overload]
        patch.setitem(world.server.watches._sources, "rooms", self.source)

    def tell(self, *rooms: Room) -> None:
        self.source.tell(Change(each.name, each) for each in rooms)

    def gone(self, name: str) -> None:
        self.source.tell([Change(name, None)])


@pytest.fixture
def rooms(world: World, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    return Rooms(world, monkeypatch)


@pytest.fixture
def watched(peers: InProcess | OnTheWire, rooms: Rooms) -> Iterator[Watched]:
    watched = Watched(peers.host(ADMIN, "admin"))
    yield watched
    pytest_twisted.blockon(spawn(watched.watcher.stopService()))


class NoWait(random.Random):
    """Chance that has nobody wait."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Watched:
    """A member that knows all rooms."""

    def __init__(self, api: Any) -> None:
        self.copy: Copy[Room] = Copy()
        self.watcher = Watcher(reactor, api, ROOMS, self.copy, NoWait())


@test
async def test_a_second_kind(watched: Watched, rooms: Rooms) -> None:
    """Everything first, then each change; the same in process and over the wire."""
    rooms.tell(RED)
    watched.watcher.startService()
    await watched.watcher.first_picture()
    assert watched.copy.values == {"red": RED}
    rooms.tell(BLUE)
    rooms.gone("red")
    await until(lambda: watched.copy.values == {"blue": BLUE})
    rooms.tell(RED)
    await until(lambda: watched.copy.values == {"blue": BLUE, "red": RED})


@test
async def test_whoever_may_watch_nodes_may_not_watch_everything(peers: Any, rooms: Rooms) -> None:
    """Each kind has its own rule."""
    for api in (peers.host(ADMIN, "node"), peers.user("alice")):
        with pytest.raises(AccessDenied):
            await api.watch(ROOMS, object())


@test
async def test_a_kind_without_a_source(peers: Any, world: World, rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is newer than its auth server is told so."""
    monkeypatch.delitem(world.server.watches._sources, "rooms")
    with pytest.raises(NotFound, match="'rooms'"):
        await peers.host(ADMIN, "admin").watch(ROOMS, object())


@test
async def test_a_watcher_that_falls_behind_begins_anew(
    world: World, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever misses changes is told everything again, and what went meanwhile is gone."""
    monkeypatch.setattr(watching, "QUEUE_MAX", 3)
    watched = Watched(OnTheWire(world).host(ADMIN, "admin"))
    rooms.tell(RED)
    watched.watcher.startService()
    await watched.watcher.first_picture()
    rooms.tell(*(Room(str(number), number) for number in range(10)))  # more than its queue takes
    for number in range(10):
        rooms.gone(str(number))
    rooms.gone("red")
    rooms.tell(BLUE)
    await until(lambda: watched.copy.values == {"blue": BLUE})
    await watched.watcher.stopService()


@test
async def test_a_change_that_cannot_be_read_ends_the_watch(world: World, rooms: Rooms) -> None:
    """A value that this side does not understand is not left out in silence: the copy would be wrong for ever."""
    watched = Watched(OnTheWire(world).host(ADMIN, "admin"))
    watched.watcher.startService()
    await watched.watcher.first_picture()
    wrong: Any = Room("red", "four")  # type: ignore[arg-type]
    with Log() as log:
        rooms.tell(wrong)
        await until(lambda: any("watching again" in str(each.get("log_format")) for each in log.events))
    assert watched.copy.values == {}
    rooms.tell(RED)
    await until(lambda: watched.copy.values == {"red": RED})
    await watched.watcher.stopService()
