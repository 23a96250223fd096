"""Strangers at a port of TLS: what they cost, and whose handshake is next."""

from __future__ import annotations

import gc
import weakref
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from teleconch.admission import Admission, Bounds, Room
from teleconch.visitors import Visitors

PATIENCE = 10.0


class Transport(StringTransport):
    """Ends like a socket: it tells so once."""

    aborting = False
    protocol: Any

    def abortConnection(self) -> None:
        self.aborting = True
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Wrapped(Protocol):
    """In the place of TLS: it says to whom it belongs. A handshake is complete unless it says that it is a part."""

    def dataReceived(self, data: bytes) -> None:
        if data == b"broken":
            raise ValueError("broken")
        self.factory.heard.append(data)
        if not data.startswith(b"part"):
            self.transport.handshaken()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost += 1


class Reactor(Clock):
    """One whose turns a test takes: what is called later is never called in the same one."""

    def turn(self) -> None:
        for call in [each for each in self.calls if each.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class World:
    def __init__(self, room: int = 100) -> None:
        self.clock = Reactor()
        self.inner: Any = cast("Any", Factory.forProtocol(Wrapped))
        self.inner.heard, self.inner.lost, self.built = [], 0, 0
        build = self.inner.buildProtocol

        def counted(address: IPv4Address) -> Any:
            self.built += 1
            return build(address)

        self.inner.buildProtocol = counted
        bounds = Bounds(1000, (Room(room, room), Room(room, room)))
        self.admission = Admission(bounds, self.clock.seconds, "test")
        self.visitors = Visitors(self.inner, self.admission, self.clock, PATIENCE)

    def come(self, host: str, said: bytes = b"") -> Transport:
        address = IPv4Address("TCP", host, 1)
        transport = Transport(peerAddress=address)
        transport.protocol = self.visitors.buildProtocol(address)
        transport.protocol.makeConnection(transport)
        if said:
            transport.protocol.dataReceived(said)
        return transport

    def turn(self) -> list[bytes]:
        """What was heard in one turn of the reactor."""
        before = len(self.inner.heard)
        self.clock.turn()
        heard: list[bytes] = self.inner.heard[before:]
        return heard


def test_silence_costs_no_tls() -> None:
    """Connections that say nothing never get to TLS, are counted, and end; one that speaks is served as ever."""
    world = World()
    silent = [world.come("192.0.2.1") for _ in range(5)]
    honest = world.come("192.0.2.2", b"hello")
    honest.protocol.dataReceived(b"more")
    assert (world.built, world.inner.heard, len(world.admission)) == (1, [b"hello", b"more"], 6)
    world.clock.advance(PATIENCE)
    assert all(each.aborting for each in silent)
    assert not honest.aborting
    assert (len(world.admission), list(world.visitors.protocols), world.inner.lost) == (1, [honest.protocol], 0)
    honest.abortConnection()
    assert (len(world.admission), dict(world.visitors.protocols), world.inner.lost) == (0, {}, 1)
    assert not world.clock.getDelayedCalls()


def test_silence_leaves_nothing_behind() -> None:
    """What a silent connection held goes with it, not when a collector comes, which holds all others up meanwhile."""
    world = World()
    gc.collect()
    gc.disable()
    try:
        transport = world.come("192.0.2.1")
        left = weakref.ref(transport.protocol)
        transport.abortConnection()
        transport.protocol = None  # as a socket's does
        assert left() is None
    finally:
        gc.enable()


def test_sources_take_turns() -> None:
    """One handshake begins in each turn of the reactor, and one source's crowd is not before another's first."""
    world = World()
    crowd = [world.come("192.0.2.1", b"crowd %d" % each) for each in range(6)]
    honest = world.come("192.0.2.2", b"honest")
    assert world.inner.heard == [b"crowd 0"]
    assert honest.producerState == "paused", "what it sends waits in the kernel"
    assert world.turn() == [b"crowd 1"]
    assert world.turn() == [b"honest"]
    assert honest.producerState == "producing"
    crowd[2].abortConnection()
    assert [world.turn() for _ in range(4)] == [[b"crowd 3"], [b"crowd 4"], [b"crowd 5"], []]
    assert len(world.visitors.handshakes) == 0
    world.come("192.0.2.3", b"later")
    assert world.inner.heard[-1] == b"later", "at once, where nobody waits"


def test_parts_take_turns() -> None:
    """Handshakes that were begun with a byte each, and sent the rest at once, go on one in each turn as well."""
    world = World()
    crowd = [world.come("192.0.2.1", b"part %d" % each) for each in range(3)]
    honest = world.come("192.0.2.2", b"part of honest")
    assert [len(world.turn()) for _ in range(4)] == [1, 1, 1, 0]
    for each in (*crowd, honest):
        each.protocol.dataReceived(b"rest")
    assert len(world.inner.heard) == 5, "one, in this turn"
    assert [each.producerState for each in (*crowd, honest)] == ["producing", "paused", "paused", "paused"]
    crowd[1].abortConnection()
    assert (len(world.visitors.handshakes), world.inner.lost) == (2, 1)
    assert [len(world.turn()) for _ in range(3)] == [1, 1, 0]
    for each in (crowd[0], crowd[2], honest):
        each.protocol.dataReceived(b"more")
    assert world.inner.heard[-3:] == [b"more"] * 3, "at once, after the handshake"


def test_crowd_makes_room() -> None:
    """Those that wait are bounded: the oldest of who has most goes, and is not begun."""
    world = World(room=4)
    crowd = [world.come("192.0.2.1", b"crowd %d" % each) for each in range(6)]
    honest = world.come("192.0.2.2", b"honest")
    assert [each.aborting for each in crowd] == [True, True, True, False, False, False]
    assert len(world.visitors.handshakes) == 4
    assert [world.turn() for _ in range(5)] == [[b"crowd 3"], [b"honest"], [b"crowd 4"], [b"crowd 5"], []]
    assert not honest.aborting


def test_fault_ends_one() -> None:
    """A connection that breaks at its turn is ended, and the next one has its turn."""
    world = World()
    world.come("192.0.2.1", b"first")
    broken = world.come("192.0.2.2", b"broken")
    world.come("192.0.2.3", b"third")
    world.turn()
    assert broken.aborting
    assert world.turn() == [b"third"]


def test_waiting_ends() -> None:
    """Whoever waits for a turn in vain is ended, and a service that stops turns them away."""
    world = World()
    begun, waits, silent = world.come("192.0.2.1", b"1"), world.come("192.0.2.1", b"2"), world.come("192.0.2.1")
    world.visitors.turn_away()
    assert (begun.aborting, waits.aborting, silent.aborting) == (False, True, True)
    assert len(world.visitors.handshakes) == 0
    world.visitors.abort()
    assert begun.aborting
    assert len(world.admission) == 0
