"""Sessions opened and closed in a row, a third of them cut off somewhere: nothing grows (issue 4, item 6)."""

from __future__ import annotations

import ctypes
import gc
import os
import random
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout

from teleconch.codec import string, uint32
from teleconch.errors import TeleconchError
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import RequestRefused, SSHProblem
from tests.worlds.node import World
from tests.worlds.node_client import Session
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply

PER_CONNECTION = 10
TOGETHER = 4
PTY = string(b"xterm") + b"".join(map(uint32, (80, 24, 0, 0))) + string(b"\0")


async def _one(connection: Connection, chance: random.Random) -> None:
    """A session to its end."""
    session = Session()
    await connection.open(session)
    terminal = chance.random() < 0.3
    if terminal:
        await reply(connection.sendRequest(session, b"pty-req", PTY, 1))
    command = chance.choice(("true", "echo x; exit 3", "cat", "head -c 100000 /dev/zero", "echo x >&2", "kill $$"))
    await reply(connection.sendRequest(session, b"exec", string(command.encode()), 1))
    session.write(b"some input\n\x04" if terminal else b"some input\n")
    connection.sendEOF(session)
    await session.over


async def _cut(connection: Connection, chance: random.Random) -> None:
    """A session that is left at some point: before it has begun, while it starts, runs, prints or ends."""
    session = Session()
    await connection.open(session)
    stop = chance.randrange(5)
    if stop > 0 and chance.random() < 0.4:
        await reply(connection.sendRequest(session, b"pty-req", PTY, 1))
    if stop > 1:
        command = chance.choice(("sleep 300", "yes", "cat", "true", "sleep 300 & wait", "trap '' HUP; exec sleep 0.2"))
        asked = connection.sendRequest(session, b"exec", string(command.encode()), stop != 2)
        if asked is not None:
            await asked
    if stop > 3:
        await task.deferLater(reactor, chance.random() / 20)


async def _connection(world: World, login: str, chance: random.Random) -> None:
    connection = await world.connect(login)
    for _ in range(PER_CONNECTION - PER_CONNECTION // 3):
        await _one(connection, chance)
    cuts = [Deferred.fromCoroutine(_cut(connection, chance)) for _ in range(PER_CONNECTION // 3)]
    for cut in cuts:
        cut.addErrback(lambda failure: failure.trap(TeleconchError, SSHProblem, RequestRefused))
    await DeferredList(cuts).addTimeout(30, reactor)
    if chance.random() < 0.5:
        connection.transport.transport.abortConnection()  # a reset; else a word of good-bye
    else:
        connection.close()
    await connection.disconnected.addErrback(lambda failure: None)


def _inventory(world: World, user: str) -> dict[str, Any]:
    launcher = world.node.parts.launcher.pid
    processes = 0
    uid = Path(f"/home/{user}").stat().st_uid
    for each in Path("/proc").glob("[0-9]*"):
        try:
            processes += each.stat().st_uid == uid and "State:\tZ" not in (each / "status").read_text()
        except OSError:
            continue
    terminals = 0
    for each in Path("/dev/pts").iterdir():
        try:
            terminals += each.stat().st_uid == uid
        except OSError:
            continue
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "launcher's descriptors": len(os.listdir(f"/proc/{launcher}/fd")),
        "launcher's children": len(Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()),
        "user's processes": processes,
        "user's terminals": terminals,
        "sessions": len(world.node.parts.live),
        "connections": len(world.node.factory.connections),
    }


def _resident(pid: int | str) -> int:
    """KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


async def _soak(world: World, user: str, sessions: int, growth: int) -> None:
    """``growth`` is what may be added, in KiB, between the first half's end and the second's."""
    chance = random.Random(4)
    world.allow(user)
    await _connection(world, user, chance)
    await _settled(world)
    for _ in range(500):
        before = _inventory(world, user)
        if not before["launcher's children"]:  # those that write the records of logins and logouts
            break
        await task.deferLater(reactor, 0.02)
    sizes = []
    rounds = sessions // (PER_CONNECTION * TOGETHER)
    for half in range(2):
        for _ in range(rounds // 2 + half * (rounds % 2)):
            runs = [Deferred.fromCoroutine(_connection(world, user, chance)) for _ in range(TOGETHER)]
            for _, failure in await DeferredList(runs, consumeErrors=True):
                if failure is not None:
                    failure.raiseException()
            world.events.clear()
        await _settled(world)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what libc keeps for later tells how busy the machine was, not what is held
        sizes.append((_resident("self"), _resident(world.node.parts.launcher.pid or 0)))
    for _ in range(500):
        after = _inventory(world, user)
        if after == before:
            break
        await task.deferLater(reactor, 0.02)
    assert after == before
    assert max(late - early for early, late in zip(*sizes, strict=True)) < growth, sizes


async def _settled(world: World) -> None:
    for _ in range(1000):
        if not world.node.factory.connections and not world.node.parts.live:
            return
        await task.deferLater(reactor, 0.02)
    raise DeferredTimeout


@pytest.mark.root
@pytest.mark.parametrize("part", range(2))
@pytest_twisted.ensureDeferred
async def test_sessions_leave_nothing(world: World, other_user: str, part: int) -> None:
    """After hundreds of sessions, many cut off, no process, descriptor or terminal is left over (pain 14)."""
    await _soak(world, other_user, 280, growth=8 * 1024)


@pytest.mark.root
@pytest.mark.soak
@pytest_twisted.ensureDeferred
async def test_twenty_thousand_sessions(world: World, other_user: str) -> None:
    """After 20,000 sessions memory is what it was after 10,000, and nothing is left (pain 14)."""
    await _soak(world, other_user, 20_000, growth=4 * 1024)
