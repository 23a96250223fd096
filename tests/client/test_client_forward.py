"""`tsh ssh` with forwarding, by real programs on both sides."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from socket import AddressFamily
from typing import Any

import pytest

from tests.worlds.checks import found
from tests.worlds.client import World, terminal_run
from tests.worlds.cluster import BIN, free_ports


@contextlib.contextmanager
def echo_server(
    family: AddressFamily = socket.AF_INET, address: str | tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[Any]:
    """Says back in capitals all that it hears until EOF; its address."""
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    heard = b"".join(iter(partial(peer.recv, 65536), b""))
                    peer.sendall(heard.upper())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def ask(address: str | tuple[str, int], data: bytes, family: AddressFamily = socket.AF_INET) -> bytes:
    """What the echo server behind ``address`` says; retries while nobody listens."""
    until = time.monotonic() + 20
    while True:
        with socket.socket(family) as client:
            client.settimeout(20)
            try:
                client.connect(address)
            except OSError:
                assert time.monotonic() < until, "nobody listens"
                time.sleep(0.05)
                continue
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))


@contextlib.contextmanager
def running(world: World, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`tsh ssh` in the background; ended by SIGTERM."""
    process = subprocess.Popen(
        [BIN / "tsh", "ssh", *arguments], env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_local_forward(world: World) -> None:
    """-L leads to a server beside the node, megabytes and end of data too; -N runs nothing."""
    (port,) = free_ports(1)
    data = b"x" * 3_000_000
    with echo_server() as (_, there), running(world, "-N", "-L", f"{port}:127.0.0.1:{there}", f"{world.login}@alpha"):
        assert ask(("127.0.0.1", port), b"hello") == b"HELLO"
        assert ask(("127.0.0.1", port), data) == data.upper()


def test_local_forward_of_unix_sockets(world: World, tmp_path: Path) -> None:
    """-L takes Unix sockets on either side."""
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    with (
        echo_server(socket.AF_UNIX, there),
        running(world, "-N", "-L", f"{here}:{there}", f"{world.login}@alpha"),
    ):
        assert ask(here, b"hello", socket.AF_UNIX) == b"HELLO"
    assert not os.path.exists(here)


def test_dynamic_forward(world: World) -> None:
    """-D is a SOCKS proxy as curl knows it."""
    (port,) = free_ports(1)
    with echo_server() as (_, there), running(world, "-N", "-D", str(port), f"{world.login}@alpha"):
        spoken = b"\5\1\0\5\1\0\3\x09localhost" + there.to_bytes(2, "big")
        assert ask(("127.0.0.1", port), spoken + b"hello").endswith(b"HELLO")
        refused = ask(("127.0.0.1", port), b"\5\1\0\5\1\0\1\x7f\0\0\1\0\1")
        assert refused[2:4] == b"\5\5"
        with pytest.raises(ConnectionResetError):
            ask(("127.0.0.1", port), b"GET / HTTP/1.0\r\n\r\n")


def test_remote_forward(world: World) -> None:
    """-R leads from the node to this machine; for port 0 the node chooses and tsh says which."""
    with echo_server() as (_, here), running(world, "-N", "-R", f"0:127.0.0.1:{here}", f"{world.login}@alpha") as tsh:
        line = tsh.stderr.readline()
        port = int(found(rb"Allocated port:? (\d+)", line)[1])
        assert ask(("127.0.0.1", port), b"hello") == b"HELLO"


def test_remote_dynamic_forward(world: World) -> None:
    """-R with nothing but a port is a SOCKS proxy on the node."""
    (port,) = free_ports(1)
    with echo_server() as (_, here), running(world, "-N", "-R", str(port), f"{world.login}@alpha"):
        spoken = b"\4\1" + here.to_bytes(2, "big") + b"\x7f\0\0\1\0"
        assert ask(("127.0.0.1", port), spoken + b"hello").endswith(b"HELLO")


def test_local_command_with_a_forward(world: World) -> None:
    """--local runs a command here while the forward stands, and gives its exit status."""
    (port,) = free_ports(1)
    with echo_server() as (_, there):
        code = f"import socket; s=socket.create_connection(('127.0.0.1', {port})); s.send(b'hi'); s.shutdown(1); "
        done = world.tsh(
            "ssh", "--local", "-L", f"{port}:127.0.0.1:{there}", f"{world.login}@alpha",
            f'python3 -c "{code} print(s.recv(9))"; exit 6',
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (6, b"b'HI'\n", b"")


def test_agent_forward(world: World, tmp_path: Path) -> None:
    """-A lends the agent to the node; without it the node has none."""
    path = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        env = {**world.env, "SSH_AUTH_SOCK": path}
        while subprocess.run(["ssh-add", "-l"], env=env, capture_output=True, check=False).returncode == 2:
            assert agent.poll() is None  # there is no agent yet that listens: the socket is there before
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lent", "-f", key], check=True)
        subprocess.run(["ssh-add", "-q", key], env=env, check=True, stderr=subprocess.DEVNULL)
        for flags, found in ((("-A",), True), (("-o", "ForwardAgent=yes"), True), ((), False)):
            done = world.tsh("ssh", *flags, f"{world.login}@alpha", "ssh-add -l", env=env)
            assert (b"lent" in done.stdout) is found, (flags, done)
        done = world.tsh("ssh", "-o", "AddKeysToAgent=yes", f"{world.login}@alpha", "true", env=env)
        assert done.returncode == 0
        listed = subprocess.run(["ssh-add", "-l"], env=env, capture_output=True, check=True).stdout
        assert b"teleport:joe@example.test" in listed
    finally:
        agent.terminate()
        agent.wait()


def test_session_beside_a_forward(world: World) -> None:
    """A command with a forward has input, output, errors and exit status as one without, whatever the streams are."""
    (port,) = free_ports(1)
    flags = ("ssh", "-L", f"{port}:127.0.0.1:1", f"{world.login}@alpha")
    data = os.urandom(5_000_000)
    done = world.tsh(*flags, "cat; echo err >&2; exit 7", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (7, True, b"err\n")
    (world.home / "in").write_bytes(data)
    line = f'"{BIN}/tsh" {" ".join(flags)} "cat; exit 3" < "{world.home}/in" > "{world.home}/out"'
    assert subprocess.run(line, shell=True, env=world.env, timeout=30).returncode == 3
    assert (world.home / "out").read_bytes() == data
    done = world.tsh(*flags, "kill -9 $$")
    assert (done.returncode, done.stderr) == (255, b"ERROR: The command was ended by the signal KILL.\n")
    line = f'"{BIN}/tsh" {" ".join(flags)} yes | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], env=world.env, timeout=30, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert (done.stdout, done.returncode) == (b"y\n", 141), done


def test_terminal_beside_a_forward(world: World) -> None:
    """A shell with a forward is a shell; ~# lists what goes through it, ~? helps, ~. leaves."""
    (port,) = free_ports(1)

    with echo_server() as (_, there):

        def talk(
            write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
        ) -> None:
            expect(rb"[#$] ")
            write(b"stty size; echo $((6*7))done\r")
            expect(rb"30 90\r+\n42done")
            with socket.create_connection(("127.0.0.1", port)):
                time.sleep(0.5)
                write(b"\r~#")
                expect(rb"#0 session.*#1 direct-tcpip 127.0.0.1:%d|#1 direct-tcpip 127.0.0.1:%d" % (there, there))
            write(b"~?")
            expect(rb"Supported escape sequences")
            write(b"~.")
            expect(rb"Connection to alpha closed\.")

        flags = ("ssh", "-L", f"{port}:127.0.0.1:{there}", f"{world.login}@alpha")
        assert terminal_run(world, *flags, talk=talk, size=(30, 90)) == 255


@pytest.mark.parametrize("flags", [("-N",), ()])
def test_port_that_is_taken(world: World, flags: tuple[str]) -> None:
    """A port that is taken here is a warning, with ExitOnForwardFailure an error."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("::1", taken.getsockname()[1]), family=socket.AF_INET6),
    ):
        port = taken.getsockname()[1]
        strict = world.tsh("ssh", *flags, "-o", "ExitOnForwardFailure=yes", "-L", f"{port}:x:1", f"{world.login}@alpha")
        assert strict.returncode == 255
        assert re.match(rb"ERROR: tsh cannot listen on localhost:\d+ here \(Address already in use\)", strict.stderr)
        if not flags:
            done = world.tsh("ssh", "-L", f"{port}:x:1", f"{world.login}@alpha", "echo in")
            assert (done.returncode, done.stdout) == (0, b"in\n")
            assert done.stderr.startswith(b"WARNING: tsh cannot listen")


def test_slow_reader_beside_a_forward(world: World) -> None:
    """A reader that rests makes the node rest."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [BIN / "tsh", "ssh", "-L", f"{port}:127.0.0.1:1", f"{world.login}@alpha", "head -c 100000000 /dev/zero"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=world.env,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        select.select([process.stdout], [], [], 20)
        time.sleep(1)
        with open(f"/proc/{process.pid}/status") as status:
            assert int(found(r"VmRSS:\s+(\d+)", status.read())[1]) < 120_000
        assert len(process.stdout.read()) == 100_000_000
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
