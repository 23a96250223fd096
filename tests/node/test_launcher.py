"""The process that starts users' processes: what it keeps apart, and what its end or the daemon's end means."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import task

from teleconch.errors import AccessDenied, LimitExceeded, NotFound, TeleconchError, Unavailable
from teleconch.node.launch import accounts
from teleconch.node.launch.launcher import Loop, data, text
from teleconch.node.process import COMMAND_MAX, Launcher, Process
from teleconch.node.start import Request, Started, understand
from teleconch.ssh.account import Account
from tests.worlds.node import ME, alive, own_signals
from tests.worlds.reactor import reactor

DAEMON = """
import getpass, os, sys, time
from twisted.internet import reactor
from teleconch.node.process import Launcher
from teleconch.node.start import Request
from teleconch.ssh.account import Account
def begin():
    launcher = Launcher(reactor)
    launcher.start()
    null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    process = launcher.spawn(Request(getpass.getuser(), b"exec sleep 600", {}, False), *null, owner=Account(1 << 24))
    process.started.addCallback(lambda facts: print(facts.pid, launcher.pid, flush=True))
reactor.callWhenRunning(begin)
reactor.run()
"""


@pytest_twisted.async_yield_fixture
async def launcher() -> AsyncIterator[Launcher]:
    """A running launcher."""
    launcher = Launcher(reactor)
    launcher.start()
    yield launcher
    await launcher.stop()


def _spawn(launcher: Launcher, command: bytes | None, login: str = ME, **environment: bytes) -> tuple[Process, int]:
    """A process and the reading end of its output."""
    reading, writing = os.pipe()
    variables = {name.encode(): value for name, value in environment.items()}
    null = os.open(os.devnull, os.O_RDONLY)
    request = Request(login, command, variables, False)
    return launcher.spawn(request, null, writing, os.dup(writing), owner=Account(1 << 24)), reading


async def _gone(pid: int) -> None:
    for _ in range(500):
        if not alive(pid):
            return
        await task.deferLater(reactor, 0.02)
    raise AssertionError(f"{pid} still runs")


def test_no_process_for_a_start_that_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start for which there is no process, and for which nobody waits any more, ends the launcher for nobody else."""

    def none_left() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", none_left)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, reply = os.pipe()
    os.close(reading)
    null = os.open(os.devnull, os.O_RDWR)
    with ours, theirs:
        socket.send_fds(ours, [b"start 7"], [null, reply, null, null, null])
        os.close(reply)
        os.close(null)
        assert Loop(theirs, None, {})._obey()
        assert ours.recv(256) == b"exit 7 65280"


@pytest_twisted.ensureDeferred
async def test_killed_daemon_leaves_no_session() -> None:
    """`kill -9` of the daemon hangs up every session, and the launcher goes too."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert daemon.stdout is not None
    session, launcher = map(int, daemon.stdout.readline().split())
    assert alive(session)
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    await _gone(session)
    await _gone(launcher)


@pytest_twisted.ensureDeferred
async def test_launcher_holds_nothing_of_the_daemon(launcher: Launcher) -> None:
    """A session's parent knows neither the daemon's environment nor its files; Ctrl-C at the daemon passes it by."""
    process, reading = _spawn(launcher, b"true")
    await process.started
    await process.ended
    os.close(reading)
    environment = Path(f"/proc/{launcher.pid}/environ").read_bytes().split(b"\0")
    assert not [pair for pair in environment if pair and not pair.startswith((b"LC_", b"LANG"))]
    files = [os.readlink(each) for each in Path(f"/proc/{launcher.pid}/fd").iterdir()]
    assert len([name for name in files if name.startswith("socket:")]) == 1
    assert launcher.pid is not None
    assert "\nThreads:\t1\n" in Path(f"/proc/{launcher.pid}/status").read_text()  # it forks
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(launcher.pid, number)
    process, reading = _spawn(launcher, b"echo still")
    await process.ended
    assert os.read(reading, 100) == b"still\n"
    os.close(reading)


@pytest_twisted.ensureDeferred
async def test_signals_blocked_in_the_daemon() -> None:
    """A signal that the daemon blocks or ignores is not blocked in a session."""
    launcher = Launcher(reactor)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        launcher.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process, reading = _spawn(launcher, b"exec grep -E 'Sig(Blk|Ign)' /proc/self/status")
    await process.ended
    assert own_signals(os.read(reading, 1000)) == [0, 0]
    os.close(reading)
    await launcher.stop()


@pytest_twisted.ensureDeferred
async def test_many_starts_at_once(launcher: Launcher) -> None:
    """A hundred sessions that start in one moment all start, and each gets its own output and status."""
    running = [_spawn(launcher, b"echo %d; exit %d" % (n, n)) for n in range(100)]
    for n, (process, reading) in enumerate(running):
        status = await process.ended
        assert status is not None
        assert os.waitstatus_to_exitcode(status) == n
        assert os.read(reading, 100) == b"%d\n" % n
        os.close(reading)
        await process.started


@pytest_twisted.ensureDeferred
async def test_refusals(launcher: Launcher) -> None:
    """An unknown user and a command too long are errors of their kinds, and no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    process, reading = _spawn(launcher, b"id", login="nosuchuser")
    with pytest.raises(NotFound, match="nosuchuser"):
        await process.started
    await process.ended
    assert os.read(reading, 100) == b""
    os.close(reading)
    null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    with pytest.raises(LimitExceeded):
        launcher.spawn(Request(ME, b"x" * (COMMAND_MAX + 1), {}, False), *null, owner=Account(1 << 24))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest_twisted.ensureDeferred
async def test_bytes_of_command_and_variables(launcher: Launcher) -> None:
    """Commands and variables reach the shell byte for byte, also those that are no UTF-8 and the longest ones."""
    odd = bytes(range(1, 256))
    process, reading = _spawn(launcher, b'printf %s "$LC_ODD"', LC_ODD=odd)
    await process.ended
    assert os.read(reading, 1000) == odd
    os.close(reading)
    await process.started
    command = b"echo " + b"x" * (COMMAND_MAX - 13) + b" | wc -c"
    process, reading = _spawn(launcher, command)
    await process.ended
    assert int(os.read(reading, 1000)) > 100_000
    os.close(reading)
    await process.started


@pytest_twisted.ensureDeferred
async def test_start_that_hangs(launcher: Launcher) -> None:
    """A start that hangs (a directory server that does not answer) is killed at the deadline, and told as such."""
    process, reading = _spawn(launcher, b"sleep 600")
    process.kill_start()
    try:
        await process.started
    except Unavailable:
        pass  # killed before exec, as in a real hang
    assert await process.ended == signal.SIGKILL
    os.close(reading)


@pytest.mark.root
def test_rights_are_given_up_or_nothing_runs(other_user: str) -> None:
    """Were a system call to keep a right silently, the session would not start (each call left out in turn)."""
    program = (
        "import os, sys\n"
        "sys.path.append(sys.argv[1])\n"
        "from teleconch.node.launch import accounts\n"
        "from teleconch.errors import AccessDenied\n"
        "account = accounts.look_up(sys.argv[2])\n"
        "os.setgroups([0, 4])\n"
        "setattr(os, sys.argv[3], lambda *args: None)\n"
        "try: accounts.become(account); print('in')\n"
        "except AccessDenied as error: print(error)\n"
    )
    told = {
        name: subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, os.getcwd(), other_user, name],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for name in ("umask", "setgroups", "setresgid", "setresuid")
    }
    assert told.pop("umask") == "in\n"
    for name, said in told.items():
        assert "could not take on the rights" in said, name


def test_accounts() -> None:
    """Look-ups answer as `id` does; a name that no system has is a sentence."""
    root, own = accounts.look_up("root"), accounts.look_up(ME)
    assert (root.uid, root.gid, root.home) == (0, 0, "/root")
    for name in ("nosuchuser", "a\0b", "../x", ""):
        with pytest.raises(NotFound):
            accounts.look_up(name)
    with pytest.raises(AccessDenied, match="cannot be used"):
        accounts.check(own._replace(shell="/bin/nothere"))
    with pytest.raises(AccessDenied, match="not a program"):
        accounts.check(own._replace(shell="/etc/passwd"))


@given(st.binary())
def test_text_is_one_to_one(given_bytes: bytes) -> None:
    """No byte is changed on the way to the launcher."""
    assert data(json.loads(json.dumps(text(given_bytes)))) == given_bytes


@given(st.binary(max_size=100))
def test_odd_replies(heard: bytes) -> None:
    """Whatever a dying child leaves in its pipe, the session gets a sentence."""
    with pytest.raises(TeleconchError):
        understand(heard)


def test_replies() -> None:
    """Facts, a refusal, and an exec that failed behind the facts."""
    facts = b'{"pid": 1, "uid": 2, "home": "/h", "shell": "/s"}\n'
    assert understand(facts) == Started(1, 2, "/h", "/s")
    with pytest.raises(NotFound, match="no user"):
        understand(b'{"code": "not-found", "error": "no user"}\n')
    with pytest.raises(TeleconchError, match="gone"):
        understand(facts + b'{"code": "error", "error": "gone"}\n')
