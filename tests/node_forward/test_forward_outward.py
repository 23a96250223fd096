"""-L, -D and -W: connections that leave from the node."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.threads import deferToThread

from teleconch.codec import string, uint32
from teleconch.ssh.channel import Channel
from teleconch.ssh.problems import ChannelRefused
from tests.worlds.forward import ask, checksum, free_port, listens, master, program, talk, upper
from tests.worlds.node import ME, World
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

pytestmark = pytest.mark.program("ssh")


def _forwarded(port: int, target: str) -> tuple[str, str]:
    return ("-L", f"127.0.0.1:{port}:{target}")


@pytest_twisted.ensureDeferred
async def test_local_forward(world: World) -> None:
    """`ssh -L` carries a connection both ways, and the end of data one way at a time."""
    port = free_port()
    with program(upper) as server:
        ssh = await master(world, *_forwarded(port, f"localhost:{server.getsockname()[1]}"))
        assert await ask(("127.0.0.1", port), b"half" * 50_000) == b"HALF" * 50_000
        (event,) = world.logged("port", success=True)
        assert (event["user"], event["login"], event["kind"]) == ("alice", ME, "direct-tcpip")
        assert event["addr"] == f"localhost:{server.getsockname()[1]}"
        await ssh.end()


@pytest_twisted.ensureDeferred
async def test_what_the_target_says_first(world: World) -> None:
    """A target that speaks first and closes is heard to its last byte, although the client's end stays open."""

    def speak(sock: socket.socket) -> None:
        sock.sendall(b"welcome" * 100_000)

    with program(speak) as server:
        client = world.start(options=("-W", f"127.0.0.1:{server.getsockname()[1]}"), stdin=None)
        assert len((await client.done).out) == 700_000


@pytest_twisted.ensureDeferred
async def test_ipv6(world: World) -> None:
    """An IPv6 address is a target, too."""
    with program(upper, ("::1", 0)) as server:
        assert (await world.ssh(options=("-W", f"[::1]:{server.getsockname()[1]}"), stdin=b"six")).out == b"SIX"


@pytest_twisted.ensureDeferred
async def test_socks(world: World) -> None:
    """`ssh -D` serves a SOCKS client; names are looked up on the node's side."""
    port = free_port()

    def web(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nproxy")

    with program(web) as server:
        ssh = await master(world, "-D", f"127.0.0.1:{port}")
        line = ["curl", "-s", "--noproxy", "", "--socks5-hostname", f"127.0.0.1:{port}"]
        line.append(f"http://localhost:{server.getsockname()[1]}/")
        assert await deferToThread(subprocess.check_output, line) == b"proxy"
        await ssh.end()


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("127.0.0.1:1", b"connect failed: Connection refused"),
        ("nowhere.invalid:80", b"connect failed: Name or service not known"),
        ("/nowhere/at/all", b"connect failed: No such file or directory"),
        ("{here}/file", b"connect failed: Connection refused"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_reasons(world: World, tmp_path: Path, target: str, word: bytes) -> None:
    """ssh tells why a target was not reached, in the words that it has with sshd; the log has it too."""
    port = free_port()
    (tmp_path / "file").touch()
    ssh = await master(world, *_forwarded(port, target.format(here=tmp_path)))
    assert await ask(("127.0.0.1", port), b"") == b""
    await until(lambda: word in ssh.client.err)
    assert world.logged("port", success=False)[0]["error"].encode() in word
    await ssh.end()


@pytest_twisted.ensureDeferred
async def test_malformed_targets(world: World) -> None:
    """A port or a path that cannot be is refused, without a fault in the log; also an abstract socket's name."""
    connection = await world.connect()
    for kind, data in (
        (b"direct-tcpip", string(b"127.0.0.1") + uint32(70_000) + string(b"") + uint32(0)),
        (b"direct-tcpip", string(b"127.0.0.1") + uint32(0) + string(b"") + uint32(0)),
        (b"direct-tcpip", string(b"a\0b") + uint32(22) + string(b"") + uint32(0)),
        (b"direct-tcpip", string(b"a" * 300) + uint32(22) + string(b"") + uint32(0)),
        (b"direct-tcpip", b"\xff\xff\xff\xff"),
        (b"direct-streamlocal@openssh.com", string(b"") + string(b"") + uint32(0)),
        (b"direct-streamlocal@openssh.com", string(b"\0abstract") + string(b"") + uint32(0)),
        (b"direct-streamlocal@openssh.com", string(b"/" + b"a" * 200) + string(b"") + uint32(0)),
    ):
        channel = Channel()
        channel.name = kind
        with pytest.raises(ChannelRefused) as refused:
            await connection.open(channel, data)
        assert refused.value.code == 2
    assert len(world.logged("port", success=False, user="alice")) == 8
    assert not [event for event in world.events if "log_failure" in event]
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_unix_socket(world: World) -> None:
    """`ssh -L port:/path` reaches a Unix socket on the node."""
    port, path = free_port(), str(world.path / "service")
    with program(upper, path):
        ssh = await master(world, *_forwarded(port, path))
        assert await ask(("127.0.0.1", port), b"unix" * 100_000) == b"UNIX" * 100_000
        assert world.logged("port", success=True)[0]["addr"] == path
        await ssh.end()


@pytest_twisted.ensureDeferred
async def test_unix_to_unix(world: World) -> None:
    """`ssh -L /local:/remote` joins two Unix sockets."""
    here, there = str(world.path / "here"), str(world.path / "there")
    with program(upper, there):
        ssh = await master(world, "-L", f"{here}:{there}")
        assert await ask(here, b"both") == b"BOTH"
        await ssh.end()


@pytest_twisted.ensureDeferred
async def test_two_hundred_at_once(world: World) -> None:
    """200 connections through one `ssh -L` carry their own data, whole."""
    port = free_port()

    def one(number: int) -> bool:
        data = os.urandom(20_000 + number * 97)
        return talk(("127.0.0.1", port), data, 60) == hashlib.sha256(data).hexdigest().encode()

    def all_of_them() -> list[bool]:
        with ThreadPoolExecutor(200) as pool:
            return list(pool.map(one, range(200)))

    with program(checksum) as server:
        ssh = await master(world, *_forwarded(port, f"127.0.0.1:{server.getsockname()[1]}"))
        assert all(await deferToThread(all_of_them))
        assert len(world.logged("port", success=True)) == 200
        await ssh.end()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_target_that_never_reads(world: World, unix: bool) -> None:
    """A target that reads nothing stops the sender; it costs the node a fixed amount, and other channels go on."""
    port, leave = free_port(), threading.Event()
    path = str(world.path / "deaf")

    def deaf(sock: socket.socket) -> None:
        leave.wait(30)

    with program(deaf, path if unix else ("127.0.0.1", 0)) as server:
        target = path if unix else f"127.0.0.1:{server.getsockname()[1]}"
        ssh = await master(world, *_forwarded(port, target))
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setblocking(False)
            before, sent, idle = _resident(), 0, 0
            while idle < 50:
                try:
                    sent += sock.send(bytes(1 << 20))
                    idle = 0
                except BlockingIOError:
                    idle += 1
                await task.deferLater(reactor, 0.01)
                assert sent < 100 << 20
            assert _resident() - before < 24 << 20
            assert (await world.ssh("echo on", options=("-S", ssh.path))).out == b"on\n"
        leave.set()
        await ssh.end()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_nothing_left_after_a_kill(world: World, unix: bool) -> None:
    """After `kill -9` of ssh, the target's connection ends, even where the target takes nothing."""
    port = free_port()
    path = str(world.path / "service")
    over = threading.Event()

    def watch(sock: socket.socket) -> None:
        while sock.recv(1 << 16):
            pass
        over.set()

    with program(watch, path if unix else ("127.0.0.1", 0)) as server:
        target = path if unix else f"127.0.0.1:{server.getsockname()[1]}"
        ssh = await master(world, *_forwarded(port, target))
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"some")
            await until(lambda: world.logged("port", success=True))
            ssh.client.kill()
            await until(over.is_set)
        await ssh.client.done
    assert not listens(("127.0.0.1", port))
