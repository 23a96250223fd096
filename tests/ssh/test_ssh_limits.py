"""What strangers can take: connections, time, memory, log lines (CVE-2022-21716, CVE-2026-7776)."""

from __future__ import annotations

import gc
import random
import resource
import socket
import weakref
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from teleconch.ssh import limits
from teleconch.ssh import messages as m
from teleconch.ssh.server_limits import Limits
from teleconch.ssh.wire import READ_SIZE
from tests.worlds.reactor import port_of, reactor
from tests.worlds.ssh import Pair, execute, login, make_factory, options


def server_hears(*pieces: bytes) -> tuple[Pair, Any]:
    """A server that got these bytes from a peer without a client of ours."""
    pair = Pair()
    server = pair.server
    pair.ends[1].written.clear()
    for piece in pieces:
        if not server.ended:
            server.dataReceived(piece)
    return pair, server


NO_SSH, OTHER_SSH = b"Invalid SSH identification string.\r\n", b"Protocol major versions differ.\r\n"  # sshd's words


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"GET / HTTP/1.1\r\n", NO_SSH),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NO_SSH),  # TLS, which sends no newline
        (b"\n", NO_SSH),
        (b"SSH-\n", NO_SSH),
        (b"SSH-2.0\r\n", NO_SSH),
        (b"SSH-2.0-\r\n", NO_SSH),
        (b"SSH-2-x\r\n", NO_SSH),
        (b"SSH-2.0-nul\0\r\n", NO_SSH),
        (b"SSH-2.0-a\rb\r\n", NO_SSH),
        (b"x" * 300, NO_SSH),
        (b"SSH-2.0-" + b"x" * 300 + b"\r\n", NO_SSH),
        (b"hello\r\nSSH-2.0-late\r\n", NO_SSH),
        (b"SSH-1.5-old\r\n", OTHER_SSH),
        (b"SSH-3.0-new\r\n", OTHER_SSH),
        (b"SSH-99.0-new\r\n", OTHER_SSH),
    ],
)
def test_version_lines(line: bytes, answer: bytes) -> None:
    """What is no SSH 2 client, or never ends its first line, is cut off at once, with sshd's words as text."""
    pair, server = server_hears(line)
    assert server.ended
    assert server.service is None
    assert b"".join(pair.ends[0].written) == b"SSH-2.0-OpenSSH_9.9 Teleconch\r\n" + answer
    pair.end()


@pytest.mark.parametrize(
    "line", [b"SSH-2.0-x\n", b"SSH-2.0-x\r\r\n", b"SSH-1.99-x\r\n", b"SSH-2.1-x\r\n", b"SSH-2.0- \r\n"]
)
def test_version_lines_that_do(line: bytes) -> None:
    """What sshd takes for a version line is one here."""
    pair, server = server_hears(line)
    assert not server.ended
    pair.end()


def test_a_version_line_byte_by_byte() -> None:
    """A slow client is a client."""
    pair, server = server_hears(*(bytes((byte,)) for byte in b"SSH-2.0-slow\r\n"))
    assert not server.ended
    assert server.otherVersionString == b"SSH-2.0-slow"
    pair.end()


def test_long_packets_and_lists_before_login() -> None:
    """Before anyone is logged in, packets are short and lists of algorithms are too."""
    version = b"SSH-2.0-x\r\n"
    pair, server = server_hears(version, (limits.PACKET_MAX_EARLY + 4).to_bytes(4, "big"))
    assert server.ended
    pair.end()
    body = bytes((m.KEXINIT,)) + bytes(16) + (20_000).to_bytes(4, "big") + b"x," * 10_000 + bytes(40)
    padding = 8 - (len(body) + 5) % 8 + 8
    packet = (len(body) + 1 + padding).to_bytes(4, "big") + bytes((padding,)) + body + bytes(padding)
    with capturedLogs() as log:
        pair, server = server_hears(version, packet)
    assert server.ended
    assert log[0]["error"] == "a list of algorithms is too long"
    pair.end()


def test_a_flood_of_messages_before_login() -> None:
    """Nobody can keep the server busy with messages that say nothing before logging in."""
    ignore = b"\0\0\0\x0c\x0a\x02" + bytes(10)
    pair, server = server_hears(b"SSH-2.0-x\r\n", *([ignore] * limits.MESSAGES_EARLY))
    assert not server.ended
    server.dataReceived(ignore)
    assert server.ended
    pair.end()


@pytest_twisted.ensureDeferred
async def test_tiny_packets_are_read_in_small_portions() -> None:
    """A flood of tiny packets is read in small portions, so that others get their turn; big ones in big portions."""
    factory = make_factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    connection = await login(port_of(port))
    (server,) = factory.connections
    await execute(connection, b"count", bytes(3_000_000))
    assert server._wire.read_size == READ_SIZE
    for _ in range(20_000):
        connection.transport.sendPacket(m.IGNORE, bytes(4))
    await execute(connection, b"hello")
    assert server._wire.read_size <= 32 * 1024
    connection.close()
    await connection.disconnected
    await maybeDeferred(port.stopListening)


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 400), flips=st.lists(st.integers(0, 20_000), max_size=5))
def test_noise_on_the_wire(seed: int, cut: int, flips: list[int]) -> None:
    """Whatever happens to the bytes on their way, flipped, cut, doubled or left out: no traceback, nothing left, and no
    one is logged in who would not be."""
    rng, at_byte = random.Random(seed), 0

    def alter(data: bytes, to_server: bool) -> bytes:
        nonlocal at_byte
        raw = bytearray(data)
        for flip in flips:
            if 0 <= flip - at_byte < len(raw):
                raw[flip - at_byte] ^= 1 << rng.randrange(8)
        at_byte += len(raw)
        fate = rng.randrange(30)
        if fate == 0:
            return bytes(raw[:cut])
        if fate == 1:
            return bytes(raw * 2)
        return b"" if fate == 2 else bytes(raw)

    with capturedLogs() as log:
        pair = Pair(alter=alter)
        pair.pump()
        pair.end()
    assert not [event for event in log if "log_failure" in event]
    assert not pair.clock.getDelayedCalls()
    assert not pair.factory.connections


def test_a_silent_flood_ends_no_login() -> None:
    """Whoever has sent a version line, or has keys, stays while a crowd from the same source that says nothing goes."""
    bounds = Limits(max_unauthenticated=20, max_unauthenticated_per_source=10)
    for come_to in (
        lambda pair: pair.server.otherVersionString,
        lambda pair: pair.server._agreed,
        lambda pair: pair.server.sessionID,
    ):
        pair = Pair(options=options(limits=bounds))
        while not come_to(pair):
            pair.pump(1)
        crowd = [Pair.silent(pair.factory) for _ in range(100)]
        assert sum(not each.ended for each in crowd) == 10
        if pair.server._agreed is not None or pair.server.sessionID is not None:
            for _ in range(20):
                crowd.append(Pair.silent(pair.factory))
                crowd[-1].dataReceived(b"SSH-2.0-flood\r\n")
        assert not pair.server.ended
        pair.pump()
        assert pair.server.user == "alice"
        assert not pair.client.ended
        pair.end()
        for each in crowd:
            each.connectionLost(Failure(ConnectionError()))
        assert len(pair.factory.admission) == 0


@pytest.mark.parametrize("line", [b"", b"SSH-2.0-flood\r\n"])
@pytest_twisted.ensureDeferred
async def test_strangers_leave_nothing_behind(line: bytes) -> None:
    """What a connection held goes with it, not when a collector comes, which holds all others up while it looks."""
    factory = make_factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    gc.collect()
    gc.disable()
    try:
        sockets = [socket.create_connection(("127.0.0.1", port_of(port))) for _ in range(5)]
        while len(factory.connections) < len(sockets):
            await deferLater(reactor, 0)
        left = [weakref.ref(each) for each in factory.connections]
        for each in sockets:
            each.sendall(line)
            each.close()
        while factory.connections:
            await deferLater(reactor, 0)
        await deferLater(reactor, 0)
        assert [each() for each in left] == [None] * len(sockets)
    finally:
        gc.enable()
        await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_two_thousand_half_handshakes() -> None:
    """2,000 sockets that begin a handshake and stop cost little, and others log in at once meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    factory = make_factory(options=options(limits=Limits(max_unauthenticated=300)))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1", backlog=512)
    number = port_of(port)
    sockets = []
    try:
        worst = 0.0
        for turn in range(2000):
            sockets.append(each := socket.socket())
            each.setblocking(False)
            each.bind((f"127.0.0.{2 + turn % 20}", 0))
            each.connect_ex(("127.0.0.1", number))
            if turn % 50 == 49:
                await deferLater(reactor, 0.001)
                for one in sockets[-50:]:
                    try:
                        one.send((b"SSH-2.0-half\r\n" + bytes(20))[: turn % 30])
                    except OSError:
                        pass
            if turn % 400 == 399:
                begun = reactor.seconds()
                connection = await login(number)
                assert (await execute(connection, b"hello")).code == 3
                worst = max(worst, reactor.seconds() - begun)
                connection.close()
                await connection.disconnected
        assert len(factory.connections) <= 451
        assert worst < 2
    finally:
        for each in sockets:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await maybeDeferred(port.stopListening)
        for connection in list(factory.connections):
            connection.abortConnection()
