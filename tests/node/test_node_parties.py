"""Several SSH channels in one session, with a real process: what a later release offers to users as joining."""

from __future__ import annotations

import struct

import pytest
import pytest_twisted
from twisted.internet import task

from teleconch.codec import string
from teleconch.node.session import SessionChannel
from teleconch.session.live import Live
from teleconch.session.parties import WATCHER_MAX, Right
from teleconch.ssh import limits
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import RequestRefused
from tests.worlds.node import World
from tests.worlds.node_client import Session, open_session, run_command, until_said
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply, until


async def _join(world: World, connection: Connection, right: Right) -> tuple[Session, SessionChannel]:
    """A new channel that takes part in the one session that runs: the client's end and the node's."""
    (live,) = world.node.parts.live
    session = await open_session(connection)
    (transport,) = world.node.factory.connections
    channel = max(transport.service.channels.values(), key=lambda each: each.id)
    channel.take_part(live, right)
    return session, channel


@pytest_twisted.ensureDeferred
async def test_two_who_write(connection: Connection, world: World) -> None:
    """Both see one terminal and both type; when one leaves the other goes on; when nobody is left it is hung up."""
    first = await open_session(connection)
    pty = string(b"xterm") + struct.pack(">4L", 80, 24, 0, 0) + string(b"")
    await reply(connection.sendRequest(first, b"pty-req", pty, 1))
    await run_command(connection, first, b"stty -echo; echo ready; while read line; do echo =$line; done")
    await until_said(first, b"ready")
    second, _ = await _join(world, connection, Right.WRITE)
    first.write(b"one\n")
    await until_said(second, b"=one")
    second.write(b"two\n")
    await until_said(first, b"=two")
    await until_said(second, b"=two")
    assert await reply(connection.sendRequest(second, b"window-change", struct.pack(">4L", 100, 30, 0, 0), 1))
    first.loseConnection()
    await first.over
    second.write(b"three\n")
    await until_said(second, b"=three")
    assert second.said() == b"=one\r\n=two\r\n=three\r\n"
    assert not world.logged("session.end")
    second.loseConnection()
    await second.over
    await until(lambda: not world.node.parts.live)
    (end,) = world.logged("session.end")
    assert end["success"] is False
    assert end["exit_code"] is None


@pytest_twisted.ensureDeferred
async def test_one_who_watches(connection: Connection, world: World) -> None:
    """One who only watches sees all from the joining on, and the status; nothing of theirs reaches the program."""
    writer = await open_session(connection)
    await run_command(connection, writer, b"echo before; while read line; do echo =$line; done; echo err >&2; exit 3")
    await until_said(writer, b"before")
    watcher, _ = await _join(world, connection, Right.WATCH)
    watcher.write(b"x" * 3 * limits.FIRST_WINDOW)  # dropped, and more may come
    with pytest.raises(RequestRefused):
        await reply(connection.sendRequest(watcher, b"signal", string(b"KILL"), 1))
    connection.sendEOF(watcher)
    writer.write(b"mine\n")
    await until_said(watcher, b"=mine")
    connection.sendEOF(writer)
    await writer.over
    await watcher.over
    for session in (writer, watcher):
        assert session.said("err") == b"err\n"
        assert session.heard[-3:] == [("status", 3), ("eof", None), ("close", None)]
    assert watcher.said() == b"=mine\n"
    assert writer.said() == b"before\n=mine\n"


@pytest_twisted.ensureDeferred
async def test_slow_writer_and_slow_watcher(connection: Connection, world: World) -> None:
    """The program waits for one who may write; one who only watches is dropped, and the others miss no byte."""
    size = 24 << 20
    first = await open_session(connection)
    await run_command(connection, first, b"read line; head -c %d /dev/zero; exit 4" % size)
    slow, _ = await _join(world, connection, Right.WRITE)
    watcher, watching = await _join(world, connection, Right.WATCH)
    slow.pauseProducing()
    watcher.pauseProducing()
    first.write(b"go\n")
    await until(lambda: len(first.said()) >= limits.FIRST_WINDOW)
    got = -1
    while got < len(first.said()):  # until nothing more comes
        got = len(first.said())
        await task.deferLater(reactor, 0.3)
    assert got < 8 << 20  # a window, what is on the way, and what one channel keeps
    assert not watching.closing
    assert watching.unsent_bytes <= WATCHER_MAX
    slow.resumeProducing()
    await first.over
    await slow.over
    assert len(first.said()) == len(slow.said()) == size
    assert first.heard[-3:] == slow.heard[-3:] == [("status", 4), ("eof", None), ("close", None)]
    watcher.resumeProducing()
    await watcher.over
    assert len(watcher.said()) < size
    assert not [what for what, _ in watcher.heard if what == "status"]
    await until(lambda: not world.node.parts.live)
    (end,) = world.logged("session.end")
    assert end["success"] is True
    assert end["exit_code"] == 4


@pytest_twisted.ensureDeferred
async def test_the_node_stops(connection: Connection, world: World) -> None:
    """All who take part are let go when the node stops, whether they may write or only watch."""
    writer = await open_session(connection)
    await run_command(connection, writer, b"echo up; sleep 400")
    await until_said(writer, b"up")
    watcher, _ = await _join(world, connection, Right.WATCH)
    (live,) = world.node.parts.live
    assert isinstance(live, Live)
    assert len(live.parties) == 2
    live.hang_up("the node stops")
    await writer.over
    await watcher.over
    (end,) = world.logged("session.end")
    assert end["error"] == "the node stops"
    assert not world.node.parts.live
