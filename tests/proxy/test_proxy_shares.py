"""One user cannot fill what a node, or the auth server, holds for a proxy: whoever says nothing, or begins too much."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from struct import pack
from typing import Any, cast

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs

from teleconch.admission import Room
from teleconch.errors import LimitExceeded
from teleconch.proxy import shares
from teleconch.proxy.beginning import Beginning
from teleconch.proxy.shares import Shares
from teleconch.ssh.connection import Connection
from tests.worlds.peers import Caller, Echo, Ports, jump, jump_to, login, subsystem
from tests.worlds.proxy import World, node
from tests.worlds.reactor import reactor


def packet(number: int, size: int = 20) -> bytes:
    return pack(">LBB", size + 2, 4, number) + bytes(size)


VERSION = b"SSH-2.0-OpenSSH_9.2p1\r\n"
TO_KEYS = VERSION + packet(20, 1500) + packet(30, 1200) + packet(21, 10)


@given(st.lists(st.integers(0, len(TO_KEYS)), max_size=20))
def test_beginning_in_any_pieces(cuts: list[int]) -> None:
    """The keys are seen exactly when NEWKEYS came, however the bytes are cut."""
    beginning = Beginning()
    places = [0, *sorted(cuts), len(TO_KEYS)]
    for start, end in pairwise(places):
        beginning.heard(TO_KEYS[start:end])
        assert beginning.speaks == (end >= len(VERSION))
        assert beginning.has_keys == (end >= len(TO_KEYS))
    assert beginning.has_keys
    beginning.heard(b"anything")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-" + b"x" * 300,
        VERSION + b"\xff" * 100,
        VERSION + bytes(100),
        VERSION + packet(21, 1500),
        b"\n",
        b"SSH" + b"\n",
    ],
)
def test_beginning_of_something_else(data: bytes) -> None:
    """What is not SSH, or only begins like it, never counts as having keys, and is not kept."""
    for step in (1, len(data)):
        beginning = Beginning()
        for at in range(0, len(data), step):
            beginning.heard(data[at : at + step])
        for _ in range(100):
            beginning.heard(packet(21) * 10)
        assert not beginning.has_keys
        assert len(beginning._kept) <= 255


async def open_silent(world: World, users: int, each: int) -> list[Any]:
    """Connections of alice, each with jumps over which nothing is said."""
    connections = [await login(world) for _ in range(users)]
    for connection in connections:
        for _ in range(each):
            connection.open(Caller(b"direct-tcpip"), jump_to("web", 22)).addErrback(lambda _: None)
    return connections


async def end(*connections: Connection) -> None:
    for connection in connections:
        connection.transport.abortConnection()
        await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_silent_dials_of_one_user(world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user who dials one node without end, on several connections, has few connections there; another is led."""
    monkeypatch.setattr(shares, "YOUNG_PER_USER", 6)
    monkeypatch.setattr(shares, "YOUNG_AT_NODE", Room(10, 6))
    addr, peers = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    world.user_files("bob", ("root",))
    flood = await open_silent(world, 4, 40)
    while len(peers) < 6:
        await deferLater(reactor, 0.01)
    bob = await login(world, "bob")
    channel = await jump(bob, "web")
    await channel.until(14)
    assert len(peers) == 7, "alice has six there, whoever else dials"
    channel.write(b"hello")
    await channel.until(14 + 5)
    await end(bob, *flood)
    for peer in peers:
        await peer.lost
    found = world.parts.shares
    for _ in range(500):
        if not found._nodes and all(share.idle(reactor.seconds() + 60) for share in found._users.values()):
            break
        await deferLater(reactor, 0.01)
    else:
        raise AssertionError("a share was not given back")


@pytest_twisted.ensureDeferred
async def test_who_says_nothing_is_ended(world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relayed connection over which the client sends nothing is closed, and that is logged; one that speaks stays."""
    monkeypatch.setattr(shares, "SILENT_SECONDS", 0.2)
    addr, peers = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    with capturedLogs() as log:
        silent = [await jump(connection, "web"), (await subsystem(connection, "proxy:web:22"))[0]]
        speaks = await jump(connection, "web")
        speaks.write(VERSION)
        await gatherResults([each.end for each in silent]).addTimeout(10, reactor)
    assert not speaks.end.called
    said = [event for event in log if "nothing came over it" in event.get("log_format", "")]
    assert [event["user"] for event in said] == ["alice", "alice"]
    await end(connection)
    for peer in peers:
        await peer.lost


@pytest_twisted.ensureDeferred
async def test_whoever_has_keys_needs_no_place(world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are in use keep nobody from opening more: only the young ones are counted."""
    monkeypatch.setattr(shares, "YOUNG_PER_USER", 2)
    addr, peers = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    for number in range(8):
        channel = await jump(connection, "web") if number % 2 else (await subsystem(connection, "proxy:web:22"))[0]
        for at in range(0, len(TO_KEYS), 700):
            channel.write(TO_KEYS[at : at + 700])
        await channel.until(14 + len(TO_KEYS))
    assert not any(peer.lost.called for peer in peers)
    await end(connection)
    for peer in peers:
        await peer.lost


class _End:
    """A node's end, as far as a turn needs it."""

    is_gone = False
    when_gone: Callable[[], None] | None = None
    aborted = False

    def abort(self) -> None:
        self.aborted = self.is_gone = True
        if self.when_gone is not None:
            self.when_gone()


def turn_of(begun: Deferred[Any]) -> Any:
    return begun.result


class Turns:
    """Turns on a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.shares = Shares(self.clock)

    def begin(self, user: str, name: str = "web") -> Deferred[Any]:
        """A turn with an end, or a Deferred that waits for one."""
        return Deferred.fromCoroutine(self._begin(user, name))

    async def _begin(self, user: str, name: str) -> Any:
        turn = await self.shares.turn(user, name)
        await turn.dial(cast("Any", self._dial()))
        return turn

    async def _dial(self) -> _End:
        return _End()

    def ready(self, user: str, name: str = "web") -> Any:
        made = self.begin(user, name)
        assert made.called, "it waits"
        return made.result


def test_the_biggest_user_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many users together are too many at one node, the one with most loses the oldest; the rest stay."""
    monkeypatch.setattr(shares, "YOUNG_AT_NODE", Room(10, 10))
    turns = Turns()
    friend = turns.ready("alice")
    floods = [turns.ready(user) for _ in range(20) for user in ("bob", "eve", "mallory")]
    assert not friend.end.aborted
    assert sum(not each.end.aborted for each in floods) == 9
    elsewhere = turns.ready("eve", "db")
    assert not elsewhere.end.aborted
    for each in (friend, elsewhere, *floods):
        each.end.abort()
    assert not turns.shares._nodes
    assert not turns.clock.getDelayedCalls()


def test_one_users_line_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user alone, with more to dial than there are places, loses none of the connections that are under way."""
    monkeypatch.setattr(shares, "YOUNG_PER_USER", 6)
    monkeypatch.setattr(shares, "YOUNG_AT_NODE", Room(10, 6))
    turns = Turns()
    begun = [turns.begin("eve") for _ in range(40)]
    for left in range(34, -1, -1):
        under_way = [turn_of(each) for each in begun if each.called and not turn_of(each).end.is_gone]
        assert len(under_way) == 6
        assert sum(not each.called for each in begun) == left
        under_way[-1].end.abort()
    for each in under_way[:-1]:
        each.end.abort()


def test_a_long_line_at_a_full_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each place that is freed is taken by a dial that frees the next, however many wait, none is lost."""
    monkeypatch.setattr(shares, "YOUNG_PER_USER", 6)
    monkeypatch.setattr(shares, "YOUNG_AT_NODE", Room(10, 6))
    turns = Turns()
    begun = [turns.begin("eve") for _ in range(400)]
    friends = [turns.ready("bob") for _ in range(4)]
    friends.append(turns.ready("alice"))
    assert all(each.called for each in begun)
    assert not any(each.end.is_gone for each in friends)
    live = [turn_of(each) for each in begun if not turn_of(each).end.is_gone]
    assert len(live) == 5
    for each in (*live, *friends):
        each.end.abort()
    assert not turns.shares._nodes
    assert [(share.connections, share.places.tokens) for share in turns.shares._users.values()] == [(0, 6)] * 3


def test_a_users_pace() -> None:
    """A user's dials beyond a burst begin at a steady pace, also when each ends at once; another user's do not wait."""
    turns = Turns()
    for _ in range(shares.DIALS_AT_ONCE):
        turns.ready("eve").end.abort()
    waiting = [turns.begin("eve") for _ in range(100)]
    assert sum(each.called for each in waiting) <= 1
    turns.ready("alice")
    turns.clock.advance(10 / shares.DIALS_PER_SECOND)
    assert 9 <= sum(each.called for each in waiting) <= 12
    turns.clock.pump([0.01] * 100)
    assert all(each.called for each in waiting)


def test_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a turn is refused after a while, and at once where very many wait."""
    monkeypatch.setattr(shares, "YOUNG_PER_USER", 1)
    monkeypatch.setattr(shares, "LINE", 3)
    monkeypatch.setattr(shares, "LINE_SECONDS", 5.0)
    turns = Turns()
    first = turns.ready("eve")
    waiting = [turns.begin("eve") for _ in range(5)]
    refused = [each for each in waiting if each.called]
    assert len(refused) == 2
    first.end.abort()
    assert waiting[0].called
    turns.clock.advance(shares.LINE_SECONDS)
    assert all(each.called for each in waiting)
    for each in waiting[1:]:
        each.addErrback(lambda failure: failure.trap(LimitExceeded) and None)
    turn_of(waiting[0]).end.abort()
    turns.ready("eve")


def test_what_does_not_begin_takes_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused, or given up by whoever asked, puts off nothing that comes later."""
    monkeypatch.setattr(shares, "LINE", 3)
    turns = Turns()
    for _ in range(shares.DIALS_AT_ONCE):
        turns.ready("eve").end.abort()
    ended = []
    for _ in range(1000):
        ended += [turns.begin("eve"), Deferred.fromCoroutine(turns.shares.pace("eve"))]
        ended[-2].cancel()
    for each in ended:
        each.addErrback(lambda failure: failure.trap(LimitExceeded, CancelledError) and None)
    turns.clock.pump([0.01] * 10)
    assert all(each.called for each in ended)
    turns.ready("eve").end.abort()
    assert not turns.clock.getDelayedCalls()


def test_connections_of_a_user_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far they have come, one user's connections through a proxy are bounded: each is an open file."""
    monkeypatch.setattr(shares, "CONNECTIONS_PER_USER", 5)
    turns = Turns()
    held = [turns.ready("eve") for _ in range(5)]
    for each in held:
        assert not each.heard(TO_KEYS)
    over = turns.begin("eve")
    over.addErrback(lambda failure: failure.trap(LimitExceeded) and "refused")
    assert over.result == "refused"
    turns.ready("alice")
    held[0].end.abort()
    turns.ready("eve")


def test_users_are_forgotten() -> None:
    """Users who have gone cost no memory for ever."""
    turns = Turns()
    for number in range(1000):
        turns.ready(f"user-{number}").end.abort()
        turns.clock.advance(1)
    assert len(turns.shares._users) < 10
