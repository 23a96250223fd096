"""The session channel under a client that does what OpenSSH's does not: odd orders, signals, no reading, floods."""

from __future__ import annotations

import os
import resource
import struct
from typing import Any, cast

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import task

from teleconch.codec import string
from teleconch.node.session import SessionChannel
from teleconch.ssh import limits
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from tests.worlds.node import World
from tests.worlds.node_client import open_session, run_command, until_said
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply


@pytest_twisted.ensureDeferred
async def test_order_of_the_end(connection: Connection) -> None:
    """Output first, then the exit status, then EOF, then CLOSE: no client can lose the status or a byte."""
    session = await open_session(connection)
    await run_command(connection, session, b"head -c 3000000 /dev/zero; exit 3")
    await session.over
    assert len(session.said()) == 3_000_000
    assert session.heard[-3:] == [("status", 3), ("eof", None), ("close", None)]


@pytest_twisted.ensureDeferred
async def test_exit_signal(connection: Connection) -> None:
    """A process that dies by a signal is told by the signal's name, with the core-dumped flag (RFC 4254, 6.10)."""
    session = await open_session(connection)
    await run_command(connection, session, b"ulimit -c 0; kill -TERM $$")
    await session.over
    assert ("signal", string(b"TERM") + b"\0" + string(b"") + string(b"")) in session.heard
    assert not [each for each in session.heard if each[0] == "status"]


@pytest_twisted.ensureDeferred
async def test_signals(connection: Connection) -> None:
    """A client's signals reach the command, even when they come before it has started; unknown ones are refused."""
    session = await open_session(connection)
    await run_command(connection, session, b"trap 'echo usr1; exit 4' USR1; echo up; while :; do sleep 0.05; done")
    await until_said(session, b"up")
    assert await reply(connection.sendRequest(session, b"signal", string(b"USR1"), 1))
    await session.over
    assert session.said() == b"up\nusr1\n"
    session = await open_session(connection)
    connection.sendRequest(session, b"exec", string(b"sleep 400"))
    connection.sendRequest(session, b"signal", string(b"TERM"))
    with pytest.raises(RequestRefused):
        await reply(connection.sendRequest(session, b"signal", string(b"NOSUCH"), 1))
    await session.over
    assert [what for what, _ in session.heard] == ["signal", "eof", "close"]


@pytest_twisted.ensureDeferred
async def test_requests_at_odd_moments(connection: Connection) -> None:
    """A second command, a terminal after the start, requests cut short: refused, and the session goes on."""
    session = await open_session(connection)
    pty = string(b"xterm") + struct.pack(">4L", 80, 24, 0, 0) + string(b"")
    for name, data in ((b"window-change", struct.pack(">4L", 1, 1, 0, 0)), (b"break", bytes(4)), (b"pty-req", pty[:9])):
        with pytest.raises(RequestRefused):
            await reply(connection.sendRequest(session, name, data, 1))
    await run_command(connection, session, b"cat")
    for name, data in ((b"exec", string(b"id")), (b"shell", b""), (b"pty-req", pty), (b"env", string(b"LANG") * 2)):
        with pytest.raises(RequestRefused):
            await reply(connection.sendRequest(session, name, data, 1))
    session.write(b"still here")
    connection.sendEOF(session)
    await session.over
    assert session.said() == b"still here"


@pytest_twisted.ensureDeferred
async def test_data_before_the_command(connection: Connection) -> None:
    """What a hasty client sends before it says what to run is not dropped."""
    session = await open_session(connection)
    session.write(b"early ")
    session.write(b"bird")
    connection.sendEOF(session)
    await run_command(connection, session, b"cat; echo .")
    await session.over
    assert session.said() == b"early bird.\n"


@pytest_twisted.ensureDeferred
async def test_endless_data_before_the_command(connection: Connection) -> None:
    """A client that sends and does not say what to run is stopped by the window; what it runs then gets all of it."""
    session = await open_session(connection)
    session.write(bytes(3 * limits.CHANNEL_WINDOW))
    await task.deferLater(reactor, 0.3)
    assert session.unsent_bytes == 3 * limits.CHANNEL_WINDOW - limits.FIRST_WINDOW
    connection.sendEOF(session)
    await run_command(connection, session, b"wc -c")
    await session.over
    assert int(session.said()) == 3 * limits.CHANNEL_WINDOW


@pytest_twisted.ensureDeferred
async def test_command_too_long(connection: Connection) -> None:
    """A command longer than the system takes is refused with a sentence; a zero byte in one likewise."""
    session = await open_session(connection)
    await run_command(connection, session, b"echo " + b"x" * 200_000)
    await session.over
    assert b"longer than" in session.said("err")
    assert ("status", 255) in session.heard
    session = await open_session(connection)
    with pytest.raises(RequestRefused):
        await run_command(connection, session, b"id\0; rm")
    session.loseConnection()
    await session.over


@pytest_twisted.ensureDeferred
async def test_client_that_does_not_read(connection: Connection) -> None:
    """A client that stops reading stops the command; memory stays flat, other sessions go on."""
    session = await open_session(connection)
    session.pauseProducing()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await run_command(connection, session, b"head -c 200000000 /dev/zero; echo done >&2")
    other = await open_session(connection)
    await run_command(connection, other, b"sleep 1; echo other")
    await other.over
    assert other.said() == b"other\n"
    got = len(session.said())
    await task.deferLater(reactor, 0.5)
    assert len(session.said()) == got
    assert got <= 8 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024  # KiB; both ends live here
    session.heard.clear()
    session.resumeProducing()
    await session.over
    assert got + len(session.said()) == 200_000_000
    assert session.said("err") == b"done\n"


@pytest_twisted.ensureDeferred
async def test_process_that_does_not_read(connection: Connection, world: World) -> None:
    """A command that does not read stops the client; what the node keeps is bounded, and goes on when it reads."""
    session = await open_session(connection)
    await run_command(connection, session, b"read line; sleep 1; cat | wc -c")
    block = bytes(1 << 20)

    class Producer:
        sent = 0
        stopped = False

        def resumeProducing(self) -> None:
            for _ in range(1 if self.sent < 64 else 0):
                Producer.sent += 1
                session.write(block)
            if self.sent >= 64 and not self.stopped:
                self.stopped = True
                session.unregisterProducer()
                connection.sendEOF(session)

        def stopProducing(self) -> None:
            pass

    session.write(b"go\n")
    session.registerProducer(Producer(), False)
    await task.deferLater(reactor, 0.7)
    assert Producer.sent < 16
    (live,) = world.node.parts.live
    assert 0 < cast("Any", live.program)._wires._sink.size <= 4 << 20
    await session.over
    assert session.said().strip() == b"67108864"


@pytest_twisted.ensureDeferred
async def test_other_kinds_of_channel(connection: Connection, world: World) -> None:
    """Every other kind of channel is refused with a sentence, and logged."""
    for kind in (b"forwarded-tcpip", b"auth-agent@openssh.com", b"x11", b"tun@openssh.com", b"nonsense"):
        channel = Channel()
        channel.name = kind
        with pytest.raises(ChannelRefused) as refused:
            await connection.open(channel, string(b"127.0.0.1") + bytes(4) + string(b"127.0.0.1") + bytes(4))
        assert refused.value.code in (1, 3)
        assert str(refused.value).endswith(".")
    assert len(world.logged("port", success=False, user="alice")) == 5


@pytest_twisted.ensureDeferred
async def test_certificate_ends_while_connected(world: World) -> None:
    """Once its certificate has ended, a connection that still stands opens no new session."""
    clock = task.Clock()
    connection = await world.connect()
    session = await open_session(connection)
    session.loseConnection()
    (transport,) = world.node.factory.connections
    user = transport.service.avatar
    clock.advance(user.identity.valid_before + 1)
    user._parts = evolve(user._parts, now=clock.seconds)
    with pytest.raises(ChannelRefused, match="expired"):
        await open_session(connection)
    connection.close()
    await connection.disconnected


def test_no_session_without_a_permit(world: World) -> None:
    """A session cannot even be made without a permit: no road around the gate."""
    with pytest.raises(TypeError):
        SessionChannel(None, None, world.node.parts, None, None, None, None)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_ping_pong_on_a_terminal(connection: Connection) -> None:
    """Terminal modes of the client are applied: no echo, no line editing, and a byte comes back as it is."""
    session = await open_session(connection)
    modes = bytes([53]) + bytes(4) + bytes([51]) + bytes(4) + bytes([72]) + bytes(4) + bytes([3, 0, 0, 0, 9, 0])
    await reply(
        connection.sendRequest(
            session, b"pty-req", string(b"vt100") + struct.pack(">4L", 100, 30, 0, 0) + string(modes), 1
        )
    )
    await run_command(connection, session, b"stty -a; stty size; echo $TERM; exec cat")
    await until_said(session, b"vt100")
    said = session.said().decode()
    assert all(word in said for word in ("-echo ", "-icanon", "-onlcr", "erase = ^I", "30 100"))
    session.heard.clear()
    session.write(os.fsencode("é\x7f"))
    await until_said(session, os.fsencode("é\x7f"))
    session.loseConnection()
    await session.over
