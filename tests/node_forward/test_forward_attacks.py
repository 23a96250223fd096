"""As root with unprivileged logins: what a user does to his forwarding process, and to another's display."""

from __future__ import annotations

import array
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from teleconch.errors import TeleconchError
from teleconch.node.forward import listening
from teleconch.node.forward.errands import Errands
from teleconch.node.start import Request, Started
from teleconch.ssh.account import Account
from tests.worlds.forward import agent_folders, children, master, program, ssh_agent, upper
from tests.worlds.node import World
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.program("ssh", "ssh-agent", "useradd", "runuser")]


class Hostile:
    """In the place of the launcher: the child's end of the socket is the test's."""

    def __init__(self) -> None:
        self.end = -1
        self.hung_up = 0
        self.started: Deferred[Started] = Deferred()

    def spawn(self, request: Request, stdin: int, stdout: int, stderr: int, *, owner: Account) -> Hostile:
        self.end = stdin
        os.close(stdout)
        self.started.callback(Started(1, 1, "/", "/bin/sh"))
        return self

    def hang_up(self) -> None:
        self.hung_up += 1

    def send(self, message: bytes, *descriptors: int) -> None:
        with socket.socket(fileno=os.dup(self.end)) as sock:
            sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])

    def close(self) -> None:
        os.close(self.end)


def _stream() -> list[int]:
    left, right = socket.socketpair()
    right.close()
    return [left.detach()]


def _datagram() -> list[int]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.close()
    return [left.detach()]


OK = json.dumps({"id": 1, "port": 7, "path": "/x", "number": 3}).encode()
ANSWERS: dict[str, tuple[bytes, Callable[[], list[int]]]] = {
    "no socket": (OK, list),
    "a file": (OK, lambda: [os.open("/etc/passwd", os.O_RDONLY)]),
    "a pipe behind a socket": (OK, lambda: [*_stream(), *os.pipe()]),
    "datagrams": (OK, _datagram),
    "two sockets": (OK, lambda: _stream() + _stream()),
    "too many": (OK, lambda: [fd for _ in range(60) for fd in _stream()]),
    "sockets with an error": (json.dumps({"id": 1, "error": "no"}).encode(), _stream),
    "nothing, with a socket": (b"", _stream),
    "no JSON": (b"\xff{", _stream),
    "deep JSON": (b"[" * 16000, _stream),
    "no object": (b"[1]", _stream),
    "no id": (b"{}", _stream),
    "another id": (b'{"id": 99}', _stream),
    "odd id": (b'{"id": {}}', _stream),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest_twisted.ensureDeferred
async def test_answers_of_a_hostile_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a forwarding process that its user has got hold of sends, only its own errand fails, and the daemon
    keeps none of the descriptors."""
    monkeypatch.setattr("teleconch.node.forward.errands.DEADLINE", 0.3)
    before = len(os.listdir("/proc/self/fd"))
    hostile: Any = Hostile()
    errands = Errands(reactor, hostile, "nobody", lambda: Account(1 << 24))
    message, make = ANSWERS[name]
    dialled = Deferred.fromCoroutine(errands.dial(b"localhost", 1))
    descriptors = make()
    hostile.send(message, *descriptors)
    for fd in descriptors:
        os.close(fd)
    with pytest.raises(TeleconchError):
        await dialled
    errands.close()
    hostile.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("port", [None, -1, 70_000, "7", 1.5, True])
@pytest_twisted.ensureDeferred
async def test_odd_numbers_of_a_hostile_process(port: object) -> None:
    """A port that is none is refused."""
    before = len(os.listdir("/proc/self/fd"))
    hostile: Any = Hostile()
    errands = Errands(reactor, hostile, "nobody", lambda: Account(1 << 24))
    listened = Deferred.fromCoroutine(errands.listen(("127.0.0.1",), 0))
    (fd,) = _stream()
    hostile.send(json.dumps({"id": 1, "port": port}).encode(), fd)
    os.close(fd)
    with pytest.raises(TeleconchError):
        await listened
    errands.close()
    hostile.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest_twisted.ensureDeferred
async def test_cancelled_listener_and_the_rest(world: World, users: tuple[str, str]) -> None:
    """`ssh -O cancel` of one Unix socket takes that one away, and neither another one nor the agent's."""
    user, _ = users
    world.allow(user)
    one, two = f"/tmp/{user}.one", f"/tmp/{user}.two"
    before = agent_folders()
    with ssh_agent(world.path / "agent") as agent, program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        ssh = await master(world, "-A", "-R", f"{one}:{target}", "-R", f"{two}:{target}", login=user, env=agent)
        await until(lambda: os.path.exists(one) and os.path.exists(two))
        (child,) = children(world)
        held = world.start("sleep 60", options=("-A", "-S", ssh.path), login=user, env=agent)
        await until(lambda: agent_folders() - before)
        await ssh.control("cancel", "-R", f"{one}:{target}")
        await until(lambda: not os.path.exists(one))
        assert os.path.exists(two)
        assert agent_folders() - before
        assert child in children(world)
        held.kill()
        await held.done
        await ssh.end()
        await until(lambda: not os.path.exists(two) and not agent_folders() - before)


@pytest_twisted.ensureDeferred
async def test_stopped_process_ends_with_the_connection(world: World, users: tuple[str, str]) -> None:
    """A forwarding process that its user has stopped is not left over when the connection ends."""
    user, _ = users
    world.allow(user)
    path = f"/tmp/{user}.listener"
    ssh = await master(world, "-R", f"{path}:127.0.0.1:1", login=user)
    await until(lambda: os.path.exists(path))
    (child,) = children(world)
    os.kill(child, signal.SIGSTOP)
    ssh.client.kill()
    await ssh.client.done
    await until(lambda: not children(world) and not os.path.exists(path))


@pytest.mark.parametrize("host", listening.LOOPBACK)
@pytest_twisted.ensureDeferred
async def test_display_that_another_listens_on(world: World, users: tuple[str, str], host: str) -> None:
    """A user who listens on one loopback address of the next display gets no other user's X11 connections: that
    display is passed over (CVE-2008-1483 in OpenSSH)."""
    user, other = users
    world.allow(user)
    code = (
        "import socket, sys, time\n"
        "made = []\n"
        "for port in range(6010, 6060):\n"
        f"    s = socket.socket(socket.AF_INET6 if ':' in {host!r} else socket.AF_INET)\n"
        "    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        f"    try: s.bind(({host!r}, port)); s.listen(); made.append(s)\n"
        "    except OSError: pass\n"
        "print('on', flush=True); time.sleep(60)\n"
    )
    line = ["runuser", "-u", other, "--", "/usr/bin/python3", "-c", code]
    attacker = subprocess.Popen(line, stdout=subprocess.PIPE, cwd="/")
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"on\n"
        result = await world.ssh("echo $DISPLAY", options=("-Y",), login=user, env={"DISPLAY": ":1"})
        display = re.search(rb"localhost:(\d+)\.", result.out)
        assert display is not None, result
        assert int(display[1]) >= 60
    finally:
        subprocess.run(["pkill", "-KILL", "-u", other], check=False)
        attacker.communicate()


@pytest_twisted.ensureDeferred
async def test_xauthority_that_leads_elsewhere(world: World, users: tuple[str, str]) -> None:
    """~/.Xauthority as a link to a file of root's: `ssh -Y` neither reads nor changes that file."""
    user, _ = users
    world.allow(user)
    victim = Path(f"/root/{user}.victim")
    victim.write_text("root's")
    victim.chmod(0o600)
    for name in (".Xauthority", ".Xauthority-c", ".Xauthority-l", ".Xauthority-n"):
        Path(f"/home/{user}/{name}").symlink_to(victim)
    try:
        result = await world.ssh("echo in", options=("-Y",), login=user, env={"DISPLAY": ":1"})
        assert b"in" in result.out
        assert victim.read_text() == "root's"
        assert sorted(path.name for path in Path("/root").glob(f"{user}*")) == [victim.name]
    finally:
        victim.unlink()
