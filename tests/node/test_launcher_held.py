"""Users who hold what the launcher starts as them: it serves everybody else all the same, and it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.errors import TeleconchError
from teleconch.node import process as processes
from teleconch.node.process import Launcher, Process
from teleconch.node.start import LoginRules, Request
from teleconch.ssh.account import Account
from tests.worlds.node import World, alive, running_node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

# Stops every process of its user but itself, again and again. (This test's own Python may be out of that user's reach.)
STOP_ALL = b"""exec /usr/bin/python3 -I -S -c '
import os
while True:
    try: os.kill(-1, 19)
    except OSError: pass'
"""
CLOSING = """
import os, signal, sys, time
sys.path.append(sys.argv[1])
from teleconch.node.launch import attend
attend.CLOSE_LIMIT = 1
note = attend.Note()
attending = os.fork()
if attending == 0:
    child = os.fork()
    if child == 0:
        os._exit(7)
    attend.attend(child, [], lambda: time.sleep(600), note)
status = os.waitpid(attending, 0)[1]
print(status, note.read(status))
"""


@pytest_twisted.async_yield_fixture
async def launcher() -> AsyncIterator[Launcher]:
    """A running launcher."""
    launcher = Launcher(reactor)
    launcher.start()
    yield launcher
    await launcher.stop()


@pytest.fixture
def stack(other_user: str, tmp_path: Path) -> Iterator[tuple[LoginRules, Path]]:
    """A PAM service that logs sessions into a file."""
    log, hook, service = tmp_path / "pam.log", tmp_path / "hook", Path("/etc/pam.d", f"teleconch-test-{other_user}")
    hook.write_text(f'#!/bin/sh\necho "$PAM_TYPE" >> {log}\n')
    hook.chmod(0o755)
    service.write_text(f"account required pam_permit.so\nsession required pam_exec.so quiet {hook}\n")
    yield LoginRules(service.name), log
    service.unlink()


def _spawn(launcher: Launcher, command: bytes, login: str) -> Process:
    null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    return launcher.spawn(Request(login, command, {}, False), *null, owner=Account(1 << 24))


def _tree(pid: int) -> list[int]:
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [each for child in children for each in _tree(child)]


def _held(launcher: Launcher) -> list[int]:
    """Stopped processes of the launcher's that have not become another program yet."""
    assert launcher.pid is not None
    found = []
    for pid in _tree(launcher.pid):
        try:
            stopped = "State:\tT" in Path(f"/proc/{pid}/status").read_text()
            if stopped and b"teleconch.node.launched" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


async def _root_gets_in(launcher: Launcher) -> None:
    process = _spawn(launcher, b"exit 3", "root")
    process.ended.addTimeout(20, reactor)
    assert await process.ended == 3 << 8
    await process.started


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_user_who_stops_what_signals(launcher: Launcher, other_user: str) -> None:
    """A user who stops the process that signals their session keeps nobody else out, and it does not stay."""
    victim = _spawn(launcher, b"exec sleep 600", other_user)
    await victim.started
    attacker = _spawn(launcher, STOP_ALL, other_user)
    await attacker.started

    def caught() -> bool:
        victim.signal(signal.SIGWINCH)
        return bool(_held(launcher))

    await until(caught, 30, "nothing was caught")
    held = _held(launcher)
    await _root_gets_in(launcher)
    await until(lambda: not any(alive(pid) for pid in held), 30, "what signals stays")
    subprocess.run(["pkill", "-KILL", "-u", other_user, "-f", "while"], check=True)
    await attacker.ended
    victim.signal(signal.SIGKILL)
    assert await victim.ended == signal.SIGKILL


@pytest.mark.root
@pytest.mark.parametrize("pam", [False, True])
@pytest_twisted.ensureDeferred
async def test_user_who_stops_a_start(other_user: str, stack: tuple[LoginRules, Path], pam: bool) -> None:
    """A start that its user stops before there is a shell ends at the deadline, with its PAM session closed."""
    rules, log = stack
    launcher = Launcher(reactor, rules if pam else LoginRules())
    launcher.start()
    attacker = _spawn(launcher, STOP_ALL, other_user)
    await attacker.started
    ends = 0
    for _ in range(3000):
        assert not attacker.ended.called
        process = _spawn(launcher, b"exec sleep 600", other_user)
        answered: list[object] = []
        process.started.addBoth(answered.append)
        await until(lambda: answered or _held(launcher), 30, "neither held nor started")  # noqa: B023 - called at once
        if not answered:
            await _root_gets_in(launcher)
            ends += 1
        process.kill_start()
        process.ended.addTimeout(20, reactor)
        assert await process.ended == signal.SIGKILL
        await until(lambda: answered, 30, "no answer")  # noqa: B023
        if ends:
            break
    assert ends, "nothing was caught"
    assert not _held(launcher)
    await launcher.stop()
    subprocess.run(["pkill", "-KILL", "-u", other_user], check=False)
    if pam:
        await until(lambda: log.read_text().count("close") == log.read_text().count("open") > 1, 30, "PAM stays open")


@pytest.mark.root
def test_modules_that_do_not_close() -> None:
    """A PAM module that never ends keeps neither the status from the client nor a process for ever."""
    line = [sys.executable, "-I", "-S", "-c", CLOSING, os.getcwd()]
    said = subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.split() == [str(int(signal.SIGALRM)), str(7 << 8)]


@pytest_twisted.ensureDeferred
async def test_launcher_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon ends in bounded time even with a launcher that does nothing any more."""
    monkeypatch.setattr(processes, "END_LIMIT", 0.1)
    launcher = Launcher(reactor)
    launcher.start()
    pid = launcher.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await launcher.stop()
    assert not alive(pid)


@pytest.mark.program("ssh")
@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_pipes_in_the_home(tmp_path: Path, other_user: str) -> None:
    """Whatever file of theirs a user makes a FIFO: at most their own session waits, and the node ends in time."""
    home = Path(f"~{other_user}").expanduser()
    world: World = await running_node(tmp_path, rules=LoginRules(user_environment=True))
    world.allow(other_user, "root")
    names = (".hushlogin", ".tsh/environment", ".ssh/environment", ".ssh/rc", ".pam_environment", ".bashrc", ".profile")
    try:
        for name in names:
            (home / name).parent.mkdir(exist_ok=True)
            (home / name).unlink(missing_ok=True)
            os.mkfifo(home / name, 0o666)
        subprocess.run(["chown", "-R", other_user, home], check=True)
        stuck = [world.start("-tt", login=other_user, stdin=None) for _ in range(5)]
        stuck += [world.start("echo in", login=other_user) for _ in range(5)]
        await until(lambda: len(world.logged("session.start", success=True)) == len(stuck), 30, "they do not start")
        assert (await world.ssh("echo in")).out == b"in\n"
    finally:
        await world.close()


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_start_whose_output_nobody_takes(launcher: Launcher, other_user: str) -> None:
    """A greeting that its user does not read holds up that start alone."""
    (Path(f"~{other_user}").expanduser() / ".hushlogin").unlink(missing_ok=True)
    master, slave = os.openpty()
    os.set_blocking(master, False)
    os.set_blocking(slave, False)
    try:
        while os.write(slave, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(slave, True)
    process = launcher.spawn(Request(other_user, None, {}, True), slave, slave, slave, owner=Account(1 << 24))
    process.started.addErrback(lambda failure: failure.trap(TeleconchError))
    await _root_gets_in(launcher)
    process.kill_start()
    await process.ended
    os.close(master)
