"""Joining channels and sockets, and SSH inside SSH."""

from __future__ import annotations

import hashlib
import resource
import socket
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from teleconch.codec import string, uint32
from teleconch.ssh import limits
from teleconch.ssh.account import Account
from teleconch.ssh.ends import OneEnd, RelayChannel, SocketEnd
from teleconch.ssh.problems import ChannelRefused
from tests.worlds.reactor import port_of, reactor
from tests.worlds.ssh import BLOCK, ClientSession, execute, login, make_factory, pattern, start


def target(port: int, host: bytes = b"127.0.0.1") -> bytes:
    return string(host) + uint32(port) + string(b"127.0.0.1") + uint32(0)


class Jump(RelayChannel):
    name = b"direct-tcpip"


class Raw(ClientSession):
    name = b"direct-tcpip"


@implementer(IHalfCloseableProtocol)
class Target(Protocol):
    """A socket that answers at the end of what it hears with how much it was; ``mute`` ones read nothing."""

    mute = False

    def connectionMade(self) -> None:
        self.size = 0
        self.lost: Deferred[None] = Deferred()
        if self.mute:
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)

    def readConnectionLost(self) -> None:
        self.transport.write(b"%d" % self.size)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class Targets(Factory):
    noisy = False
    mute = False

    def __init__(self) -> None:
        self.all: list[Target] = []

    def buildProtocol(self, addr: Any) -> Target:
        target = Target()
        target.mute = self.mute
        self.all.append(target)
        return target


class World:
    """A server, a target, and a client connection."""

    async def start(self) -> Any:
        self.factory, self.targets = make_factory(), Targets()
        self.ports = [reactor.listenTCP(0, each, interface="127.0.0.1") for each in (self.factory, self.targets)]
        self.port, self.target = (port_of(port) for port in self.ports)
        return await login(self.port)

    async def stop(self, *connections: Any) -> None:
        for connection in connections:
            connection.close()
            await connection.disconnected
        for port in self.ports:
            await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_half_close_through_a_relay() -> None:
    """The target sees the end of what the client sends, and its answer still comes back."""
    world = World()
    connection = await world.start()
    channel = Raw()
    await connection.open(channel, target(world.target))
    for block in pattern(5_000_000):
        channel.write(block)
    channel.loseWriteConnection()
    await channel.done
    assert bytes(channel.data) == b"5000000"
    await world.targets.all[0].lost
    await world.stop(connection)


@pytest_twisted.ensureDeferred
async def test_a_target_that_goes_away() -> None:
    """When the target closes, the channel does; when the client closes, the target is closed."""
    world = World()
    connection = await world.start()
    channels = [Raw(), Raw(), Raw()]
    for channel in channels:
        await connection.open(channel, target(world.target))
    while len(world.targets.all) < 3:
        await deferLater(reactor, 0.01)
    channels[0].eofReceived = channels[0].loseConnection
    world.targets.all[0].transport.loseConnection()
    await channels[0].done
    channels[1].loseConnection()
    await world.targets.all[1].lost
    connection.close()
    await world.targets.all[2].lost
    await connection.disconnected
    await world.stop()


@pytest_twisted.ensureDeferred
async def test_sockets_that_outlive_their_channels_are_counted() -> None:
    """A target that takes nothing keeps its socket for minutes: a user has as many as fit into the budget, no more."""
    written, count = 256 * 1024, 20
    ends = []
    account = Account(count * written // 2)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(2 * count)
        for _ in range(count):
            gone: Deferred[None] = Deferred()
            end = SocketEnd(gone=partial(gone.callback, None))
            await TCP4ClientEndpoint(reactor, *deaf.getsockname()).connect(OneEnd(end))
            end.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for _ in range(written // 1024):
                end.write(bytes(1024))
            end.loseConnection()
            before = account.held
            end.linger(account)
            ends.append((end, gone))
            assert account.held - before in (0, end._wire.unsent + limits.CONNECTION_COST)
        left = [end for end, _ in ends if end._lingering is not None]
        assert 0 < len(left) < count
        for end in left:
            end.abort()
        for _, gone in ends:
            await gone
    assert account.held == 0


@pytest_twisted.ensureDeferred
async def test_a_target_that_is_not_there() -> None:
    """A closed port refuses the channel with a sentence, and the connection goes on."""
    world = World()
    connection = await world.start()
    with pytest.raises(ChannelRefused):
        await connection.open(Raw(), target(1))
    assert (await execute(connection, b"hello")).code == 3
    await world.stop(connection)


@pytest_twisted.ensureDeferred
async def test_jump() -> None:
    """SSH inside an SSH channel: data in both directions is whole, and ends end each other."""
    world = World()
    connection = await world.start()
    jump = Jump()
    await connection.open(jump, target(world.port))
    inner = await login(0, endpoint=jump)
    size = 8_000_000
    session = await execute(inner, b"send %d" % size, keep=False)
    assert session.hash.digest() == hashlib.sha256(b"".join(pattern(size))).digest()
    up = await start(inner, b"hash")
    for block in pattern(1_500_000):
        up.write(block)
    up.loseWriteConnection()
    await up.done
    assert up.data.decode() == hashlib.sha256(b"".join(pattern(1_500_000))).hexdigest()
    inner.close()
    await inner.disconnected
    await world.stop(connection)


@pytest_twisted.ensureDeferred
async def test_the_outer_connection_breaks() -> None:
    """When the jump host goes away, the connection inside ends too."""
    world = World()
    connection = await world.start()
    jump = Jump()
    await connection.open(jump, target(world.port))
    inner = await login(0, endpoint=jump)
    session = await start(inner, b"mute")
    connection.transport.abortConnection()
    await inner.disconnected
    await session.done
    await connection.disconnected
    await world.stop()


@pytest_twisted.ensureDeferred
async def test_flat_memory_and_others_stay_quick() -> None:
    """A target that never reads, a process that never reads and a client that never reads cost a fixed amount of
    memory, and another user's session answers at once."""
    world = World()
    connection = await world.start()
    world.targets.mute = True
    other = await login(world.port)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pushed = [0, 0]

    class Push:
        def __init__(self, channel: Any, which: int) -> None:
            self.channel, self.which = channel, which
            channel.registerProducer(self, False)

        def resumeProducing(self) -> None:
            if pushed[self.which] < 300_000_000:
                pushed[self.which] += len(BLOCK)
                self.channel.write(BLOCK)

        def stopProducing(self) -> None:
            pass

    channel = Raw()
    await connection.open(channel, target(world.target))
    Push(channel, 0)
    Push(await start(connection, b"mute"), 1)
    idle = ClientSession(keep=False)
    idle.pauseProducing()
    await connection.open(idle)
    await connection.sendRequest(idle, b"exec", string(b"send 300000000"), 1)
    worst = 0.0
    for _ in range(30):
        begun = reactor.seconds()
        session = await execute(other, b"echo", b"key")
        worst = max(worst, reactor.seconds() - begun)
        assert bytes(session.data) == b"key"
    assert worst < 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 * 1024, grown  # KiB, for both ends of each, since client and server share this process
    assert max(pushed) < 50_000_000
    connection.transport.abortConnection()
    await connection.disconnected
    for mute in world.targets.all:
        mute.transport.abortConnection()
    await world.stop(other)
