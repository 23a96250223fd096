"""Key exchanges while data flows."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.defer import maybeDeferred

from teleconch.codec import string
from teleconch.ssh import algorithms, limits, states
from teleconch.ssh.client import ClientOptions
from teleconch.ssh.server_limits import Limits
from tests.worlds.reactor import port_of, reactor
from tests.worlds.ssh import BLOCK, ClientSession, Pair, execute, login, make_factory, options, pattern, start

SIZE = 6_000_000
EXPECTED = hashlib.sha256(b"".join(pattern(SIZE))).hexdigest()


class Up:
    """Sends a pattern and then EOF."""

    def __init__(self, channel: ClientSession, size: int) -> None:
        self.channel, self.blocks = channel, pattern(size)
        channel.registerProducer(self, False)

    def resumeProducing(self) -> None:
        block = next(self.blocks, None)
        if block is None:
            self.channel.unregisterProducer()
            self.channel.loseWriteConnection()
        else:
            self.channel.write(block)

    def stopProducing(self) -> None:
        pass


@pytest.mark.parametrize("cipher", algorithms.CIPHERS)
@pytest.mark.parametrize(("ours", "theirs"), [(1 << 18, 1 << 40), (1 << 40, 1 << 18), (1 << 18, 1 << 18)])
@pytest_twisted.ensureDeferred
async def test_both_directions(cipher: bytes, ours: int, theirs: int) -> None:
    """Data in both directions arrives whole while the server, the client, or both of them re-key all the time."""
    factory = make_factory(options=options(limits=Limits(rekey_bytes=ours)))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    connection = await login(port_of(port), options=ClientOptions(ciphers=(cipher.decode(),), rekey_bytes=theirs))
    down = await start(connection, b"send %d" % SIZE, keep=False)
    up = await start(connection, b"hash")
    Up(up, SIZE)
    await down.done
    await up.done
    assert down.hash.hexdigest() == EXPECTED
    assert up.data.decode() == EXPECTED
    assert connection.transport.keyExchanges > 3
    connection.close()
    await connection.disconnected
    await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_at_any_moment() -> None:
    """Either side may begin a key exchange at any moment, both at once too, also while channels open and close."""
    factory = make_factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    connection = await login(port_of(port))
    (server,) = factory.connections
    rekeys = [task.LoopingCall(server.rekey), task.LoopingCall(connection.transport.rekey)]
    loops = [loop.start(0.001) for loop in rekeys]
    for _ in range(30):
        session = await execute(connection, b"echo", BLOCK)
        assert bytes(session.data) == BLOCK
        assert session.code == 0
    for loop in rekeys:
        loop.stop()
    for ended in loops:
        await ended
    assert connection.transport.keyExchanges > 3
    connection.close()
    await connection.disconnected
    await maybeDeferred(port.stopListening)


def test_after_an_hour_and_after_a_gibibyte() -> None:
    """New keys come at the latest after an hour, and after 1 GiB."""
    pair = Pair()
    pair.pump()
    assert pair.server.keyExchanges == 1
    for _ in range(3600):
        pair.clock.advance(1)
    pair.pump()
    assert pair.server.keyExchanges == 2
    assert limits.REKEY_BYTES == 1 << 30
    pair.server._bytes_left = 10
    pair.server.sendPacket(2, string(bytes(20)))
    pair.pump()
    assert pair.server.keyExchanges == 3
    pair.end()


def test_before_a_counter_repeats() -> None:
    """Many tiny packets lead to new keys too, long before 2**32 of them."""
    assert limits.REKEY_PACKETS < 1 << 31
    pair = Pair()
    pair.pump()
    pair.server._packets_left = 1
    for _ in range(3):
        pair.server.sendPacket(2, string(b""))
    pair.pump()
    assert pair.server.keyExchanges == 2
    pair.end()


def test_keys_change_with_each_exchange() -> None:
    """The session id stays, the keys do not."""
    pair = Pair()
    pair.pump()
    session_id, opener = pair.server.sessionID, pair.server._opener
    pair.client.rekey()
    pair.server.rekey()
    pair.pump()
    assert pair.server.keyExchanges == pair.client.keyExchanges == 2
    assert pair.server.sessionID == pair.client.sessionID == session_id
    assert pair.server._opener is not opener
    assert pair.server.state == pair.client.state == states.OPEN
    pair.end()


def test_a_peer_that_never_ends_its_exchange() -> None:
    """Someone who begins a key exchange and goes on asking cannot fill our memory with answers."""
    pair = Pair()
    pair.pump()
    pair.server.rekey()
    pair.ends[0].written.clear()
    for _ in range(10_000):
        if not pair.server.ended:
            pair.client.seal(b"\x50", string(b"plain") + b"\1")
            pair.pump()
    assert pair.server.ended
    assert not pair.server._blocked or len(pair.server._blocked) <= 4096
    pair.end()
