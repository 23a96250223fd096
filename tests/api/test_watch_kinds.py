"""A second kind that is watched: all that it costs stands in ``Rooms`` and the first test's fixture."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet.task import Clock

from teleconch.api import watching
from teleconch.api.cache import SAVE_AFTER, Cache
from teleconch.api.watcher import Watcher
from teleconch.auth import authorized
from teleconch.auth.sources import Source
from teleconch.errors import AccessDenied, NotFound
from teleconch.resources.kind import KINDS, Change, Kind
from tests.worlds.api import InProcess, Log, OnTheWire, World
from tests.worlds.reactor import reactor
from tests.worlds.waiting import spawn, until

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
        patch.setitem(KINDS, "rooms", ROOMS)
        patch.setitem(authorized.WATCHES, "rooms", frozenset(("admin",)))
        patch.setitem(world.server.watches._sources, "rooms", self.source)

    def tell(self, *rooms: Room) -> None:
        self.source.tell(Change(each.name, each) for each in rooms)

    def gone(self, name: str) -> None:
        self.source.tell([Change(name, None)])


@pytest.fixture
def rooms(world: World, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    return Rooms(world, monkeypatch)


@pytest.fixture
def watched(peers: InProcess | OnTheWire, rooms: Rooms, tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(peers.host(ADMIN, "admin"), tmp_path)
    yield watched
    pytest_twisted.blockon(spawn(watched.watcher.stopService()))


class NoWait(random.Random):
    """Chance that has nobody wait."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Watched:
    """A member that keeps all rooms on disk."""

    def __init__(self, api: Any, folder: Path) -> None:
        self.clock = Clock()
        self.cache = Cache(ROOMS, folder / "cache", self.clock)
        self.watcher = Watcher(reactor, api, ROOMS, self.cache, NoWait())

    def kept(self) -> dict[str, Room]:
        """What a restart would find."""
        again = Cache(ROOMS, self.cache.path.parent, Clock())
        again.load()
        return again.values


@test
async def test_a_second_kind(watched: Watched, rooms: Rooms) -> None:
    """Everything first, then each change, on disk too; the same in process and over the wire."""
    rooms.tell(RED)
    watched.watcher.startService()
    await watched.watcher.first_picture()
    assert watched.cache.values == {"red": RED}
    rooms.tell(BLUE)
    rooms.gone("red")
    await until(lambda: watched.cache.values == {"blue": BLUE})
    assert not watched.cache.path.exists()
    watched.clock.advance(SAVE_AFTER)
    assert watched.kept() == {"blue": BLUE}
    assert stat.S_IMODE(watched.cache.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(watched.cache.path.parent.stat().st_mode) == 0o700
    rooms.tell(RED)
    await until(lambda: len(watched.cache) == 2)
    await watched.watcher.stopService()  # what was not written yet is written at the end
    assert watched.kept() == {"blue": BLUE, "red": RED}


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
    world: World, rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever misses changes is told everything again, and what went meanwhile is gone."""
    monkeypatch.setattr(watching, "QUEUE_MAX", 3)
    watched = Watched(OnTheWire(world).host(ADMIN, "admin"), tmp_path)
    rooms.tell(RED)
    watched.watcher.startService()
    await watched.watcher.first_picture()
    rooms.tell(*(Room(str(number), number) for number in range(10)))  # more than its queue takes
    for number in range(10):
        rooms.gone(str(number))
    rooms.gone("red")
    rooms.tell(BLUE)
    await until(lambda: watched.cache.values == {"blue": BLUE})
    await watched.watcher.stopService()


@test
async def test_a_change_that_cannot_be_read_ends_the_watch(world: World, rooms: Rooms, tmp_path: Path) -> None:
    """A value that this side does not understand is not left out in silence: the copy would be wrong for ever."""
    watched = Watched(OnTheWire(world).host(ADMIN, "admin"), tmp_path)
    watched.watcher.startService()
    await watched.watcher.first_picture()
    wrong: Any = Room("red", "four")  # type: ignore[arg-type]
    with Log() as log:
        rooms.tell(wrong)
        await until(lambda: any("watching again" in str(each.get("log_format")) for each in log.events))
    assert watched.cache.values == {}
    rooms.tell(RED)
    await until(lambda: watched.cache.values == {"red": RED})
    await watched.watcher.stopService()


DAMAGED = {
    "empty": b"",
    "rubbish": b"\xff\xfe",
    "cut": b'{"schema": 1, "kind": "rooms", "values": {"red": {"na',
    "another schema": b'{"schema": 2, "kind": "rooms", "values": {}}',
    "another kind": b'{"schema": 1, "kind": "nodes", "values": {}}',
    "wrong values": b'{"schema": 1, "kind": "rooms", "values": [1]}',
    "wrong value": b'{"schema": 1, "kind": "rooms", "values": {"red": {"name": "red", "seats": "4"}}}',
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_cache_is_no_cache(tmp_path: Path, case: str) -> None:
    """A member starts with nothing, says so, and writes the file anew as soon as it has been told everything."""
    clock = Clock()
    cache = Cache(ROOMS, tmp_path, clock)
    cache.path.write_bytes(DAMAGED[case])
    with Log() as log:
        cache.load()
    (line,) = [each for each in log.events if each.get("path") == str(cache.path)]
    assert "written anew" in line["log_format"]
    assert (cache.values, cache.complete) == ({}, False)
    cache.begin()
    cache.apply([Change("red", RED)])
    clock.advance(SAVE_AFTER)
    assert cache.path.read_bytes() == DAMAGED[case], "half a picture is not kept"
    cache.whole()
    clock.advance(SAVE_AFTER)
    again = Cache(ROOMS, tmp_path, clock)
    again.load()
    assert (again.values, again.complete) == ({"red": RED}, True)


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """A full or foreign disk costs the copy on it, and nothing else."""
    (tmp_path / "file").write_text("")
    clock = Clock()
    cache = Cache(ROOMS, tmp_path / "file", clock)
    with Log() as log:
        cache.load()
        cache.begin()
        cache.apply([Change("red", RED)])
        cache.whole()
        clock.advance(SAVE_AFTER)
    assert cache.values == {"red": RED}
    assert sum("cannot be written" in each.get("log_format", "") for each in log.events) == 1
