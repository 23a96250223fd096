"""The user's child, asked directly, and what many aborted connections leave behind."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from teleconch.errors import ConnectionProblem, LimitExceeded, NotFound, TeleconchError
from teleconch.node.forward import errands as module
from teleconch.node.forward.child import Work
from teleconch.node.forward.errands import Errands
from teleconch.ssh.account import Account
from tests.worlds.forward import agent_folders, children, free_port, listens, master, program, upper
from tests.worlds.node import ME, World
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

pytestmark = pytest.mark.program("ssh")


def _errands(world: World, login: str = ME) -> Errands:
    return Errands(reactor, world.node.parts.launcher, login, lambda: Account(1 << 24))


@pytest_twisted.ensureDeferred
async def test_many_names_at_once(world: World) -> None:
    """Many names that are looked up at the same time are all answered, good and bad, by one process."""
    errands = _errands(world)
    with program(upper) as server:
        port = server.getsockname()[1]
        good = [Deferred.fromCoroutine(errands.dial(b"localhost", port)) for _ in range(60)]
        bad = Deferred.fromCoroutine(errands.dial(b"nowhere.invalid", port))
        for sock in await gatherResults(good):
            assert sock.getpeername()[1] == port
            sock.close()
        with pytest.raises(ConnectionProblem, match="not known"):
            await bad
        assert len(children(world)) == 1
    errands.close()
    await until(lambda: not children(world))


@pytest_twisted.ensureDeferred
async def test_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the child is bounded; what waits when the connection ends is told so."""
    monkeypatch.setattr(module, "ERRANDS_MAX", 3)
    errands = _errands(world)
    waiting = [Deferred.fromCoroutine(errands.dial(b"192.0.2.1", 9)) for _ in range(3)]
    with pytest.raises(LimitExceeded):
        await errands.dial(b"192.0.2.1", 9)
    errands.close()
    for each in waiting:
        with pytest.raises(ConnectionProblem):
            await each
    with pytest.raises(ConnectionProblem, match="closed"):
        await errands.dial(b"127.0.0.1", 9)
    await until(lambda: not children(world))


@pytest_twisted.ensureDeferred
async def test_no_such_account(world: World) -> None:
    """Where the account is gone, that is what is said."""
    errands = _errands(world, "nosuchuser")
    with pytest.raises(NotFound, match="no user nosuchuser"):
        await errands.agent()
    errands.close()


@pytest_twisted.ensureDeferred
async def test_a_fault_in_the_child(world: World) -> None:
    """A request that the child cannot make sense of is refused and logged; the next one works."""
    errands = _errands(world)
    with pytest.raises(ConnectionProblem, match="did not work"):
        await errands._ask("dial-unix", path=5)
    assert [event for event in world.events if "AttributeError" in str(event.get("detail"))]
    with program(upper) as server:
        (await errands.dial(b"127.0.0.1", server.getsockname()[1])).close()
    errands.close()
    await until(lambda: not children(world))


@pytest_twisted.ensureDeferred
async def test_nothing_grows(world: World) -> None:
    """Connections with every kind of forwarding, killed at random moments, leave no descriptor, file or process."""
    chance = random.Random(4)
    folders = agent_folders()
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        counts = []
        for number in range(6):
            port, path = free_port(), world.path / f"listener{number}"
            ssh = await master(
                world, "-A", "-R", f"0:{target}", "-R", f"{path}:{target}", "-L", f"127.0.0.1:{port}:{target}"
            )
            # One that comes too late for the master is not to connect by itself.
            joined = ("-S", ssh.path, "-o", "ProxyCommand=false")
            sessions = [world.start("sleep 60", options=joined, stdin=None) for _ in range(2)]
            await task.deferLater(reactor, chance.random() / 3)
            ssh.client.kill()
            await gatherResults([ssh.client.done, *(session.done for session in sessions)])
            os.unlink(ssh.path)
            await until(lambda: not children(world) and not world.node.factory.connections)
            assert not path.exists()
            assert not listens(("127.0.0.1", port))
            counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] <= counts[1]
    assert agent_folders() == folders


@pytest_twisted.ensureDeferred
async def test_what_a_held_child_does_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of a child that its user has stopped does not gather in the daemon: another child takes over."""
    monkeypatch.setattr(module, "DEADLINE", 1.0)
    errands = _errands(world)
    with program(upper) as server:
        port = server.getsockname()[1]
        (await errands.dial(b"127.0.0.1", port)).close()
        (held,) = children(world)
        os.kill(held, signal.SIGSTOP)
        waiting = [Deferred.fromCoroutine(errands.dial_unix(b"x" * 8000)) for _ in range(200)]
        assert errands._outgoing
        for each in waiting:
            with pytest.raises(TeleconchError):
                await each
        assert not errands._outgoing
        (await errands.dial(b"127.0.0.1", port)).close()
    errands.close()
    await until(lambda: not children(world))


def test_no_room_for_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no room for a listener's descriptors, that one errand fails, and the next is done."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    really = socket.send_fds

    def send_fds(sock: socket.socket, buffers: list[bytes], fds: list[int]) -> int:
        if fds and full:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return really(sock, buffers, fds)

    monkeypatch.setattr(socket, "send_fds", send_fds)
    with ours, theirs:
        work = Work(theirs)
        for full in (True, False):
            ours.send(json.dumps({"id": 7, "do": "listen", "hosts": ["127.0.0.1"], "port": 0}).encode())
            assert work._obey()
            message, descriptors, _, _ = socket.recv_fds(ours, 4096, 8)
            answer = json.loads(message)
            if full:
                assert answer == {"id": 7, "error": os.strerror(errno.ETOOMANYREFS), "short": True}
            for descriptor in descriptors:
                os.close(descriptor)
        assert answer["port"]
        assert len(descriptors) == 1
        work.clean()
