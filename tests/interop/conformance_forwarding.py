"""Rows for forwarding toward the node's side: -L, -D, -W."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import socket
import struct
from pathlib import Path

from twisted.internet import task
from twisted.internet.defer import DeferredList

from tests.interop.conformance import Side, behaviour, until
from tests.interop.forwarding_clients import (
    EndsFirst,
    Raw,
    beside,
    connected,
    hear_then_answer,
    master,
    opened,
    tcp,
    unix,
)
from tests.worlds.forward import ask, checksum, free_port, program, talk, upper
from tests.worlds.reactor import reactor

OUT = "Forwarding: -L, -D, -W"


# --- to the other side -----------------------------------------------------------------------------------------------


@behaviour(OUT, "-L to an address, a name, an IPv6 address, a Unix socket; from a Unix socket")
async def local(side: Side) -> str:
    path, here = str(side.home / "target"), str(side.world.path / f"l-{side.name}")
    ports = [free_port() for _ in range(4)]
    seen = []
    with program(upper) as four, program(upper, ("::1", 0)) as six, program(upper, path):
        Path(path).chmod(0o777)
        one, two = four.getsockname()[1], six.getsockname()[1]
        targets = [f"127.0.0.1:{one}", f"localhost:{one}", f"[::1]:{two}", path]
        options = [f"{port}:{target}" for port, target in zip(ports, targets, strict=True)]
        async with master(side) as ssh:
            for option in (*options, f"{here}:127.0.0.1:{one}"):
                await ssh.forward("-L", option)
            addresses: list[tuple[str, int] | str] = [*(("127.0.0.1", port) for port in ports), here]
            for address in addresses:
                seen.append((await ask(address, b"abc")).decode())
    return " ".join(seen)


@behaviour(OUT, "-W")
async def stdio(side: Side) -> str:
    with program(upper) as server:
        result = await side.ssh(options=("-W", f"127.0.0.1:{server.getsockname()[1]}"), stdin=b"through")
    return f"{result.out.decode()} {result.code}"


def _socks(port: int, *steps: tuple[bytes, int]) -> bytes:
    """Say each step, and read its answer of so many bytes; then ``abc`` to the target."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        for step, length in steps:
            sock.sendall(step)
            answer = b""
            while len(answer) < length and (piece := sock.recv(length - len(answer))):
                answer += piece
            if len(answer) < length:
                return b"closed"
        sock.sendall(b"abc")
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(100)


@behaviour(OUT, "-D: SOCKS 4, 4a, 5 to an address, a name, an IPv6 address, a closed port")
async def socks(side: Side) -> str:
    port, closed = free_port(), free_port()
    hello = (b"\5\1\0", 2)
    seen = []
    with program(upper) as four, program(upper, ("::1", 0)) as six:
        one, two = (struct.pack(">H", server.getsockname()[1]) for server in (four, six))
        async with master(side) as ssh:
            await ssh.forward("-D", str(port))
            for steps in (
                [(b"\4\1" + one + b"\x7f\0\0\1me\0", 8)],
                [(b"\4\1" + one + b"\0\0\0\1me\0localhost\0", 8)],
                [hello, (b"\5\1\0\1\x7f\0\0\1" + one, 10)],
                [hello, (b"\5\1\0\3\x09localhost" + one, 10)],
                [hello, (b"\5\1\0\4" + bytes(15) + b"\1" + two, 10)],
                [hello, (b"\5\1\0\1\x7f\0\0\1" + struct.pack(">H", closed), 10)],
            ):
                answer = await beside(_socks, port, *steps)
                seen.append(answer.decode() if isinstance(answer, bytes) and answer else "closed")
    return " ".join(seen)


def _bye(sock: socket.socket) -> None:
    sock.sendall(b"bye")


def _reset(sock: socket.socket) -> None:
    sock.recv(10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _channel(side: Side, server: socket.socket, say: bytes, end: bool = False) -> str:
    async with connected(side) as (connection, _):
        channel = await opened(connection, b"direct-tcpip", tcp(b"127.0.0.1", server.getsockname()[1]))
        assert isinstance(channel, Raw), channel
        channel.write(say)
        if end:
            connection.sendEOF(channel)
        await until(lambda: channel.heard, 3)
        if not end:
            await task.deferLater(reactor, 0.1)
            connection.sendEOF(channel)
        await until(lambda: "CLOSE" in channel.heard, 3)
        return " ".join([channel.out.decode(), *channel.heard]).strip()


@behaviour(OUT, "A target that says something and closes")
async def closes(side: Side) -> str:
    with program(_bye) as server:
        return await _channel(side, server, b"")


@behaviour(
    OUT,
    "A target that resets the connection",
    reason="A reset is no end of the data: the node does not say that it is one, and closes.",
)
async def resets(side: Side) -> str:
    with program(_reset) as server:
        return await _channel(side, server, b"x")


@behaviour(OUT, "The end of what is sent reaches the target, whose answer comes back (half-close)")
async def half_to_target(side: Side) -> str:
    with program(upper) as server:
        return await _channel(side, server, b"abc", end=True)


@behaviour(OUT, "The target ends first, and still hears (half-close)")
async def half_to_client(side: Side) -> str:
    target = EndsFirst()
    port = free_port()
    with program(target.serve) as server:
        async with master(side) as ssh:
            await ssh.forward("-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
            first = await beside(hear_then_answer, port)
            await until(lambda: target.heard, 5)
    return f"{first.decode()} {b''.join(target.heard).decode()}"


@behaviour(OUT, "The client's program goes away in the middle: what the target sees")
async def client_goes(side: Side) -> str:
    seen: list[str] = []

    def target(sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            while sock.recv(100):
                pass
            seen.append("end")
        except OSError as error:
            seen.append(error.strerror or "?")

    port = free_port()
    with program(target) as server:
        async with master(side) as ssh:
            await ssh.forward("-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"x")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until(lambda: seen, 5)
    return " ".join(seen)


@behaviour(OUT, "20 MiB each way at the same time")
async def much(side: Side) -> str:
    data = os.urandom(1 << 20) * 20
    port = free_port()
    with program(checksum) as server:
        async with master(side) as ssh:
            await ssh.forward("-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
            answers = [await each for each in [ask(("127.0.0.1", port), data) for _ in range(2)]]
    right = hashlib.sha256(data).hexdigest().encode()
    return " ".join("equal" if answer == right else "different" for answer in answers)


@behaviour(OUT, "100 connections at once")
async def many(side: Side) -> str:
    port = free_port()
    with program(upper) as server:
        async with master(side) as ssh:
            await ssh.forward("-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
            runs = DeferredList([ask(("127.0.0.1", port), b"%d x" % n) for n in range(100)])
            right = sum(answer == b"%d X" % n for n, (_, answer) in enumerate(await runs))
    return f"{right} of 100"


def _owner(port: int, peer: int) -> str:
    """Whose the socket is that has ``peer`` as its own port and ``port`` as the other's."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{peer:04X}") and fields[2].endswith(f":{port:04X}"):
            return pwd.getpwuid(int(fields[7])).pw_name
    return "nobody"


@behaviour(OUT, "Whose the connection to the target is: TCP, Unix socket (SO_PEERCRED)")
async def owner(side: Side) -> str:
    path = str(side.home / "owner")
    seen: list[str] = []

    def target(sock: socket.socket) -> None:
        if sock.family == socket.AF_INET:
            seen.append(_owner(sock.getsockname()[1], sock.getpeername()[1]))
        else:
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            seen.append(pwd.getpwuid(uid).pw_name)

    with program(target) as server, program(target, path):
        Path(path).chmod(0o777)
        async with connected(side) as (connection, _):
            for kind, data in (
                (b"direct-tcpip", tcp(b"127.0.0.1", server.getsockname()[1])),
                (b"direct-streamlocal@openssh.com", unix(path)),
            ):
                assert isinstance(await opened(connection, kind, data), Raw)
            await until(lambda: len(seen) == 2)
    return " ".join(sorted(seen)).replace(side.user, "USER")


@behaviour(OUT, "ssh -O: check, forward, cancel, an address that is taken")
async def commands(side: Side) -> str:
    port = free_port()
    seen = []
    with program(upper) as server:
        line = f"{port}:127.0.0.1:{server.getsockname()[1]}"
        async with master(side) as ssh:
            seen.append(re.sub(r"\(.*\)", "", await ssh.control("check")))
            for command in ("forward", "cancel", "forward"):
                seen.append(f"{command} {await ssh.control(command, '-L', line)}")
                seen.append(await beside(talk, ("127.0.0.1", port), b"abc"))
    return ", ".join(each.decode() if isinstance(each, bytes) else each for each in seen)
