"""What the proxy relays: every byte, in order, in both directions, at a fixed cost."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from teleconch.codec import string
from tests.worlds.peers import Caller, Echo, Peer, Ports, jump, login, subsystem
from tests.worlds.proxy import World, node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply


@pytest_twisted.ensureDeferred
async def test_first_bytes_pass_unchanged(world: World, ports: Ports) -> None:
    """The node's version line reaches the user's ssh as the node sent it, also when it comes in pieces."""

    class Slow(Echo):
        greeting = b""

        def connectionMade(self) -> None:
            super().connectionMade()
            for turn, part in enumerate((b"S", b"SH-", b"1.9", b"9-old\r\nmore")):
                reactor.callLater(0.02 * turn, self.transport.write, part)

    addr, _ = await ports.listen(Slow)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    for asked in (True, False):
        channel = await jump(connection, "web") if asked else (await subsystem(connection, "proxy:web:22"))[0]
        await channel.until(17)
        assert channel.out == b"SSH-1.99-old\r\nmore"[:17] or channel.out == b"SSH-1.99-old\r\nmore"
        channel.loseConnection()
        await channel.end
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_early_data_keeps_its_order(world: World, ports: Ports) -> None:
    """What a client sends before the node has answered arrives there in order, behind nothing else."""

    class Late(Echo):
        greeting = b""

        def connectionMade(self) -> None:
            super().connectionMade()
            reactor.callLater(0.2, self.transport.write, b"SSH-2.0-late\r\n")

    addr, peers = await ports.listen(Late)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    channel = Caller()
    await connection.open(channel)
    asked = connection.sendRequest(channel, b"subsystem", string(b"proxy:web:22"), wantReply=1)
    early = b"".join(b"%06d" % n for n in range(20_000))
    for start in range(0, len(early), 1000):
        channel.write(early[start : start + 1000])
    await deferLater(reactor, 0.1)
    assert peers[0].count == 0, "nothing may reach what has not yet proved to be an SSH server"
    assert await reply(asked) is True
    await channel.until(len(early) + 14)
    assert channel.out == b"SSH-2.0-late\r\n" + early
    channel.loseConnection()
    await channel.end
    assert channel.status is None
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_half_close(world: World, ports: Ports) -> None:
    """When one side has said all, the other can still answer: both directions end by themselves."""

    class Answers(Peer):
        def answer(self) -> None:
            self.transport.write(b"%d bytes" % self.count)

    class Closes(Peer):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.loseWriteConnection()

    first, _ = await ports.listen(Answers)
    second, peers = await ports.listen(Closes)
    world.nodes.put(node(1, "answers", first), node(2, "closes", second))
    await (await world.start()).watched(2)
    connection = await login(world)
    for asked in (True, False):
        channel = await jump(connection, "answers") if asked else (await subsystem(connection, "proxy:answers:22"))[0]
        channel.write(b"x" * 100_000)
        connection.sendEOF(channel)
        await channel.end
        assert channel.out == Peer.greeting + b"100000 bytes"
        assert channel.status == (None if asked else 0)
        channel = await jump(connection, "closes") if asked else (await subsystem(connection, "proxy:closes:22"))[0]
        await channel.eof
        channel.write(b"y" * 100_000)
        connection.sendEOF(channel)
        await channel.end
        await peers[-1].lost  # the relay has ended when the bytes are on their way, not when they are read
        assert peers[-1].count == 100_000
    connection.close()
    await connection.disconnected


class Source:
    """Writes pseudo-random bytes as fast as its consumer takes them."""

    def __init__(self, consumer: Any, total: int) -> None:
        self.consumer, self.left = consumer, total
        self.block = random.Random(1).randbytes(64 * 1024)
        self.hash = hashlib.sha256()
        self.paused = True
        self.pauses = 0
        self.done: Deferred[None] = Deferred()
        consumer.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.left:
            block = self.block[: self.left]
            self.left -= len(block)
            self.hash.update(block)
            self.consumer.write(block)
        if not self.left and not self.done.called:
            self.consumer.unregisterProducer()
            self.done.callback(None)

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def stopProducing(self) -> None:
        self.paused, self.left = True, 0


@pytest_twisted.ensureDeferred
async def test_bytes_are_whole(world: World, ports: Ports) -> None:
    """Both directions at once through jump and subsystem: every byte arrives, none twice, none changed."""
    total = 24 * 1024 * 1024
    sources: list[Source] = []

    class Sends(Peer):
        greeting = b"SSH-2.0-"

        def connectionMade(self) -> None:
            super().connectionMade()
            sources.append(Source(self.transport, total))

    addr, peers = await ports.listen(Sends)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    channels = [await jump(connection, "web"), (await subsystem(connection, "proxy:web:22"))[0]]
    ups = [Source(channel, total) for channel in channels]
    await gatherResults([channel.until(total + 8) for channel in channels] + [up.done for up in ups])
    for channel in channels:
        connection.sendEOF(channel)
    await gatherResults([peer.half_closed for peer in peers])
    for channel, peer, up, down in zip(channels, peers, ups, sources, strict=True):
        expected = hashlib.sha256(b"SSH-2.0-")
        source = Source(_Sink(expected), total)
        assert channel.count == total + 8
        assert channel.hash.digest() == expected.digest()
        assert peer.count == total
        assert peer.hash.digest() == up.hash.digest() == source.hash.digest()
        assert down.pauses
    await gatherResults([channel.end for channel in channels])
    connection.close()
    await connection.disconnected


class _Sink:
    def __init__(self, digest: Any) -> None:
        self.write = digest.update

    def registerProducer(self, producer: Source, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass


@pytest_twisted.ensureDeferred
async def test_slow_sides_cost_a_fixed_amount(world: World, ports: Ports) -> None:
    """A node or a user that does not read stops the other side, instead of filling the proxy's memory."""
    total = 256 * 1024 * 1024
    down: list[Source] = []

    class Deaf(Peer):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()
            down.append(Source(self.transport, total))

    addr, peers = await ports.listen(Deaf)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    channel = await jump(connection, "web")
    channel.pauseProducing()
    up = Source(channel, total)
    before = None
    for _ in range(100):
        await deferLater(reactor, 0.03)
        if before == (up.left, down[0].left):
            break
        before = (up.left, down[0].left)
    # Windows, socket buffers of the system and what is on the way: far below what was offered.
    assert total - up.left < 24 * 1024 * 1024
    assert total - down[0].left < 24 * 1024 * 1024
    other = await jump(connection, "web")
    await other.until(len(Peer.greeting))
    connection.transport.abortConnection()
    await connection.disconnected
    for peer in peers:
        peer.transport.resumeProducing()
        await peer.lost
