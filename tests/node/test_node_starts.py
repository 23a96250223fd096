"""Starts that are under way: a launcher that is slow, or held, costs each user as much as their share, and no more."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted

from teleconch.codec import string
from teleconch.errors import LimitExceeded, TeleconchError, Unavailable
from teleconch.node import starting
from teleconch.node.process import Launcher, Process
from teleconch.node.start import Request
from teleconch.ssh.account import Account
from teleconch.ssh.channel import Channel
from tests.worlds.node import ME, World
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply, until

FILES = 800
OF_USER = FILES // starting.OF_USER
OF_ALL = FILES // starting.OF_ALL


@pytest.fixture
def few_files() -> Iterator[None]:
    """A process with few descriptors, so that a share of them is soon taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_twisted.async_yield_fixture
async def held(few_files: None) -> AsyncIterator[Launcher]:
    """A launcher that does nothing until it is signalled."""
    launcher = Launcher(reactor)
    launcher.start()
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGSTOP)
    yield launcher
    if launcher.pid is not None:
        os.kill(launcher.pid, signal.SIGCONT)
    await launcher.stop()


def narrow(launcher: Launcher) -> None:
    """The socket to the launcher takes a few starts only; the others wait in the daemon."""
    assert launcher._control is not None
    launcher._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def spawn(launcher: Launcher, owner: Account, command: bytes = b"exit 3") -> Process:
    ends = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    return launcher.spawn(Request(ME, command, {}, False), *ends, owner=owner)


def spawn_all(launcher: Launcher, user: Account, memory: int = 1 << 30) -> tuple[list[Process], LimitExceeded]:
    """As many as go, each from a connection of its own."""
    processes: list[Process] = []
    while True:
        try:
            processes.append(spawn(launcher, Account(memory, user)))
        except LimitExceeded as error:
            return processes, error


@pytest.mark.parametrize("waiting", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_held_launcher_costs_a_share(held: Launcher, waiting: bool) -> None:
    """However many starts wait, one user's take an eighth of the descriptors and all users' a quarter; once the
    launcher goes on they all run, and nothing is held any more."""
    if waiting:
        narrow(held)
    before = open_files()
    users = [Account(1 << 30) for _ in range(2 * starting.OF_USER)]
    processes, error = spawn_all(held, users[0])
    assert str(error) == starting.TOO_MANY
    assert OF_USER - 10 <= open_files() - before <= OF_USER
    for user in users[1:]:
        more, error = spawn_all(held, user)
        processes += more
    assert str(error) == starting.TOO_MANY_OF_ALL
    assert OF_ALL - 10 <= open_files() - before <= OF_ALL
    assert all(user.held for user in users[:2])
    os.kill(held.pid or 0, signal.SIGCONT)
    for process in processes:
        await process.started
        assert await process.ended == 3 << 8
    assert not any(user.held for user in users)
    assert open_files() == before
    process = spawn(held, users[0])
    await process.started
    await process.ended


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS])
@pytest_twisted.ensureDeferred
async def test_no_room_for_a_message(held: Launcher, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """When the system has no room for a message to the launcher, it goes later: no session is lost for it."""
    os.kill(held.pid or 0, signal.SIGCONT)
    really, refusals = socket.send_fds, [3]

    def send_fds(*arguments: Any) -> int:
        if refusals[0]:
            refusals[0] -= 1
            raise OSError(number, os.strerror(number))
        return really(*arguments)

    running = spawn(held, Account(1 << 30), b"sleep 60")
    await running.started
    monkeypatch.setattr(socket, "send_fds", send_fds)
    process = spawn(held, Account(1 << 30))
    assert (await process.started).pid
    assert await process.ended == 3 << 8
    refusals[0] = 3
    running.signal(signal.SIGTERM)
    assert await running.ended == signal.SIGTERM
    refusals[0] = 1 << 30  # and one that is still waiting when the launcher is stopped
    spawn(held, Account(1 << 30)).started.addErrback(lambda failure: failure.trap(Unavailable))


@pytest_twisted.ensureDeferred
async def test_starts_cost_memory(held: Launcher) -> None:
    """What is asked for is in the connection's account until there is a process, also when the connection is gone."""
    user = Account(1 << 30)
    connection = Account(starting.START_COST + 50_000, user)
    process = spawn(held, connection, b": " + b"x" * 20_000)
    with pytest.raises(LimitExceeded, match="for its memory"):
        spawn(held, connection)
    del connection
    assert user.held > starting.START_COST + 20_000
    os.kill(held.pid or 0, signal.SIGCONT)
    await process.started
    assert user.held == 0
    await process.ended


@pytest.mark.parametrize("give_up", [Process.hang_up, Process.kill_start])
@pytest_twisted.ensureDeferred
async def test_starts_that_are_given_up(held: Launcher, give_up: Callable[[Process], None]) -> None:
    """A start that is given up, by its client or at the deadline, while the launcher does not know of it, is over."""
    narrow(held)
    before = open_files()
    user = Account(1 << 30)
    while not held._outgoing:  # the socket takes some
        spawn(held, Account(1 << 30)).started.addErrback(lambda failure: failure.trap(TeleconchError))
    here = open_files()
    processes, _ = spawn_all(held, user)
    for process in processes:
        give_up(process)
        assert process.ended.called
    for process in processes:
        with pytest.raises(Unavailable):
            await process.started
    assert user.held == 0
    assert open_files() == here
    os.kill(held.pid or 0, signal.SIGKILL)
    await until(lambda: open_files() < before)


class Session(Channel):
    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.status: bytes | None = None

    def extReceived(self, dataType: int, data: bytes) -> None:
        self.said += data

    def request_exit_status(self, data: bytes) -> bool:
        self.status = data
        return True


@pytest.mark.program("ssh")
@pytest_twisted.ensureDeferred
async def test_who_starts_too_much_is_told(few_files: None, world: World) -> None:
    """A user who begins sessions without end and leaves each at once is refused with a sentence and 255, the log has a
    line; later all is well."""
    world.allow(ME)
    connection = await world.connect()
    launcher = world.node.parts.launcher.pid or 0
    os.kill(launcher, signal.SIGSTOP)
    before = open_files()
    try:
        for _ in range(OF_USER + 1):
            session = Session()
            await connection.open(session)
            await reply(connection.sendRequest(session, b"exec", string(b"exec sleep 60"), wantReply=1))
            session.loseConnection()
        assert open_files() - before < OF_USER + 20
        await connection.open(session := Session())
        await reply(connection.sendRequest(session, b"exec", string(b"exit 3"), wantReply=1))
        await until(lambda: session.status)
        assert session.status == b"\0\0\0\xff"
        assert session.said.decode() == starting.TOO_MANY + "\r\n"
        assert world.logged("session.start", success=False, error=starting.TOO_MANY)
    finally:
        os.kill(launcher, signal.SIGCONT)
    await until(lambda: not world.node.parts.launcher._processes)
    assert open_files() <= before
    assert (await world.ssh("echo in")).out == b"in\n"
    connection.close()
    await connection.disconnected
