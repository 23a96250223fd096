"""Rows for forwarding toward the node's side: -L, -D, -W, what is refused and how, connections that only forward."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import socket
import struct
import subprocess
import time
from pathlib import Path

from conformance import Side, behaviour, until
from forward_world import Address, address_family, ask, checksum, program, talk, upper
from forwarding_clients import (
    Raw,
    beside,
    code,
    connected,
    free_port,
    listen,
    master,
    opened,
    plain,
    said,
    tcp,
    unix,
)
from twisted.internet import reactor, task
from twisted.internet.defer import DeferredList

from teleconch.ssh.codec import string, uint32

OUT = "Forwarding: -L, -D, -W"
REFUSED = "Forwarding that is refused"
ONLY = "Connections that only forward"

UNKNOWN = (
    "RFC 4254 section 5.1 has a code for an unknown type (3), and the node uses it. There are no tunnel devices "
    "(PermitTunnel is off in sshd as well)."
)
TELLS_WHY = "The same codes. Where sshd says only that it failed, the node adds why."


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
            for address in (*(("127.0.0.1", port) for port in ports), here):
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
    heard = []

    def target(sock: socket.socket) -> None:
        sock.sendall(b"first")
        sock.shutdown(socket.SHUT_WR)
        heard.append(sock.recv(100))

    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            first = b""
            while piece := sock.recv(100):
                first += piece
            sock.sendall(b"second")
            return first

    port = free_port()
    with program(target) as server:
        async with master(side) as ssh:
            await ssh.forward("-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
            first = await beside(client, port)
            await until(lambda: heard, 5)
    return f"{first.decode()} {b''.join(heard).decode()}"


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


# --- refused ---------------------------------------------------------------------------------------------------------


@behaviour(REFUSED, "-W to a closed port")
async def stdio_refused(side: Side) -> str:
    result = await side.ssh(options=("-W", f"127.0.0.1:{free_port()}"))
    return f"{result.err.decode()} {result.code}"


@behaviour(REFUSED, "-L to a closed port: what the program sees")
async def local_refused(side: Side) -> str:
    port = free_port()
    async with master(side) as ssh:
        await ssh.forward("-L", f"{port}:127.0.0.1:{free_port()}")
        answer = await beside(talk, ("127.0.0.1", port), b"")
    return "end" if answer == b"" else str(answer)


@behaviour(REFUSED, "direct-tcpip: the codes for a closed port, no route, no such name, port 0, no host")
async def tcp_codes(side: Side) -> str:
    async with connected(side) as (connection, _):
        return " ".join(
            [
                await code(connection, b"direct-tcpip", tcp(host, port))
                for host, port in (
                    (b"127.0.0.1", free_port()),
                    (b"255.255.255.255", 9),
                    (b"nothere.invalid", 9),
                    (b"127.0.0.1", 0),
                    (b"", free_port()),
                )
            ]
        )


@behaviour(
    REFUSED,
    "direct-tcpip: the code for port 65536",
    reason="Nothing was prohibited (1); there is no such port, so that nothing can be connected to (2).",
)
async def beyond(side: Side) -> str:
    async with connected(side) as (connection, _):
        return await code(connection, b"direct-tcpip", tcp(b"127.0.0.1", 65536))


@behaviour(REFUSED, "direct-tcpip: the sentences for a closed port, no route, no such name", reason=TELLS_WHY)
async def tcp_sentences(side: Side) -> str:
    async with connected(side) as (connection, _):
        return "; ".join(
            [
                str(await opened(connection, b"direct-tcpip", tcp(host, port)))
                for host, port in ((b"127.0.0.1", free_port()), (b"255.255.255.255", 9), (b"nothere.invalid", 9))
            ]
        )


def _paths(side: Side) -> dict[str, str]:
    folder = side.home
    return {
        "missing": str(folder / "missing"),
        "no socket": "/etc/passwd",
        "root's": str(folder / "root"),
        "too long": "/tmp/" + "x" * 110,
        "abstract": "\0x",
        "empty": "",
    }


async def _unix_refusals(side: Side) -> list[tuple[str, str]]:
    paths = _paths(side)
    Path(paths["root's"]).unlink(missing_ok=True)
    with program(upper, paths["root's"]):
        Path(paths["root's"]).chmod(0o600)
        found = []
        for name, path in paths.items():
            async with connected(side) as (connection, _):  # an own one: sshd ends it for what is malformed
                answer = await opened(connection, b"direct-streamlocal@openssh.com", unix(path))
                found.append((name, "opened" if isinstance(answer, Raw) else answer))
    return found


@behaviour(
    REFUSED,
    "direct-streamlocal: a missing path, no socket, root's socket, too long, abstract, empty",
    reason=TELLS_WHY + " sshd ends the connection for the zero byte of an abstract socket's name.",
)
async def unix_sentences(side: Side) -> str:
    return "; ".join(f"{name}: {answer}" for name, answer in await _unix_refusals(side))


@behaviour(REFUSED, "direct-streamlocal: a path without a slash")
async def unix_relative(side: Side) -> str:
    path = str(side.home / "relative")
    with program(upper, path):
        Path(path).chmod(0o777)
        async with connected(side) as (connection, _):
            return await code(connection, b"direct-streamlocal@openssh.com", unix(path.lstrip("/")))


@behaviour(
    REFUSED,
    "A tunnel device, an unknown channel, x11 and auth-agent from the client, an empty type",
    reason=UNKNOWN,
)
async def unknown_channels(side: Side) -> str:
    async with connected(side) as (connection, _):
        return "; ".join(
            [
                f"{kind.decode() or 'empty'}: {await opened(connection, kind, data)}"
                for kind, data in (
                    (b"tun@openssh.com", uint32(1) + uint32(0)),
                    (b"nonesuch@example.com", b""),
                    (b"forwarded-tcpip", tcp(b"127.0.0.1", 1)),
                    (b"x11", string(b"127.0.0.1") + uint32(1)),
                    (b"auth-agent@openssh.com", b""),
                    (b"", b""),
                )
            ]
        )


@behaviour(REFUSED, "-w (a tunnel device)", reason=UNKNOWN)
async def tunnel(side: Side) -> str:
    result = await side.ssh("true", options=("-w", "any:any", "-o", "ExitOnForwardFailure=yes"))
    return f"{plain(result.err)} {result.code}"


@behaviour(
    REFUSED,
    "Without permit-port-forwarding: -W, a Unix socket, -R, -R of a Unix socket",
    reason="The node has one code for all that is not permitted (1), and says what is missing.",
)
async def no_permit(side: Side) -> str:
    without = ("permit-port-forwarding",)
    with program(upper) as server:
        async with connected(side, without=without) as (connection, _):
            seen = [
                str(await opened(connection, b"direct-tcpip", tcp(b"127.0.0.1", server.getsockname()[1]))),
                str(await opened(connection, b"direct-streamlocal@openssh.com", unix("/nothing"))),
                await said(connection, b"tcpip-forward", listen(b"", 0)),
                await said(connection, b"streamlocal-forward@openssh.com", string(b"/tmp/never")),
            ]
    return "; ".join(seen)


@behaviour(REFUSED, "ExitOnForwardFailure, and without it: -L and -R on ports that are taken")
async def exit_on_failure(side: Side) -> str:
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            for way in ("-L", "-R"):
                for strict in ("yes", "no"):
                    options = (way, f"{port}:127.0.0.1:1", "-o", f"ExitOnForwardFailure={strict}")
                    result = await side.ssh("echo runs", options=options)
                    told = "failed" if b"forward" in result.err else "silent"
                    seen.append(f"{way} {strict}: {result.out.decode().strip() or 'ends'} {told} {result.code}")
    return "; ".join(seen)


@behaviour(
    REFUSED,
    "Global requests: keepalive, an unknown one, one without a name, a cancel of nothing; answers come in order",
)
async def global_requests(side: Side) -> str:
    async with connected(side) as (connection, _):
        names = (b"keepalive@openssh.com", b"nonesuch@example.com", b"", b"cancel-tcpip-forward")
        answers = [await said(connection, name, listen(b"", 1)) for name in names]
        port = free_port()
        three = [
            connection.sendGlobalRequest(b"tcpip-forward", listen(b"localhost", 0), 1),
            connection.sendGlobalRequest(b"nonesuch@example.com", b"", 1),
            connection.sendGlobalRequest(b"tcpip-forward", listen(b"localhost", port), 1),
        ]
        order = [
            {True: "no", False: "number" if isinstance(answer, bytes) and answer else "yes"}[not good]
            for good, answer in await DeferredList(three, consumeErrors=True)  # type: ignore[arg-type]
        ]
    return f"{' '.join(answers)}; {' '.join(order)}"


# --- only forwarding -------------------------------------------------------------------------------------------------


async def _through(side: Side, login: str = "") -> str:
    """What -N -L gives on an account."""
    port = free_port()
    with program(upper) as server:
        options = ("-N", "-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
        client = side.start(options=options, stdin=None, login=login or side.user)
        await until(lambda: client.done.called or _answers(("127.0.0.1", port)))
        answer = await beside(talk, ("127.0.0.1", port), b"abc")
        if not client.done.called:
            client.kill()
            await client.done
    assert await until(lambda: not _processes(side))
    return answer.decode() if answer and isinstance(answer, bytes) else "refused"


def _processes(side: Side) -> bytes:
    return subprocess.run(["pgrep", "-u", side.user], capture_output=True, check=False).stdout


def _answers(address: Address) -> bool:
    with socket.socket(address_family(address)) as sock:
        return sock.connect_ex(address) == 0


@behaviour(ONLY, "-N, with a shell, as root, with the shell nologin, without a home")
async def accounts(side: Side) -> str:
    seen = [await _through(side), await _through(side, "root")]
    for change, back in (
        (("-s", "/usr/sbin/nologin"), ("-s", "/bin/bash")),
        (("-d", "/nonexistent"), ("-d", f"/home/{side.user}")),
    ):
        subprocess.run(["usermod", *change, side.user], check=True)
        seen.append(await _through(side))
        subprocess.run(["usermod", *back, side.user], check=True)
    return " ".join(seen)


@behaviour(ONLY, "-N on an account that has expired")
async def expired(side: Side) -> str:
    subprocess.run(["chage", "-E", str(int(time.time() // 86400) - 1), side.user], check=True)
    seen = await _through(side)
    subprocess.run(["chage", "-E", "-1", side.user], check=True)
    return seen


@behaviour(
    ONLY,
    "-N while /etc/nologin is there, for a user and for root",
    reason="Whatever a user asks for, he is not in while the machine is shut. sshd with UsePAM, Debian's default, "
    "refuses him as well.",
)
async def nologin(side: Side) -> str:
    file = Path("/etc/nologin")
    file.write_text("Down\n")
    try:
        return f"{await _through(side)} {await _through(side, 'root')}"
    finally:
        file.unlink()


@behaviour(ONLY, "Stays without a session, while the client's keep-alives are answered")
async def stays(side: Side) -> str:
    options = ("-N", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    client = side.start(options=options, stdin=None)
    await task.deferLater(reactor, 2.5)
    lives = not client.done.called
    client.kill()
    await client.done
    return "stays" if lives else "ended"


@behaviour(ONLY, "After no-more-sessions: a forwarding, a session")
async def no_more_sessions(side: Side) -> str:
    with program(upper) as server:
        async with connected(side) as (connection, _):
            target = tcp(b"127.0.0.1", server.getsockname()[1])
            seen = [await code(connection, b"session"), await said(connection, b"no-more-sessions@openssh.com")]
            seen += [await code(connection, b"direct-tcpip", target), await code(connection, b"session")]
    return " ".join(seen)


@behaviour(ONLY, "Sessions, -L and -R side by side on one connection")
async def together(side: Side) -> str:
    here, there = free_port(), free_port()
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        async with master(side, "-L", f"{here}:{target}", "-R", f"{there}:{target}") as ssh:
            session = side.start("cat; exit 3", options=("-S", ssh.path), stdin=None)
            session.write(b"one")
            await session.until(b"one")
            answers = [await ask(("127.0.0.1", port), b"abc") for port in (here, there)]
            session.transport.closeStdin()
            result = await session.done
    return f"{b' '.join(answers).decode()} {result.out.decode()} {result.code}"


@behaviour(ONLY, "What a forwarding leaves behind when its connection breaks: connections, processes")
async def cut(side: Side) -> str:
    seen: list[str] = []

    def target(sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            while sock.recv(100):
                pass
        except OSError:
            pass
        seen.append("connection closed")

    port = free_port()
    with program(target) as server:
        options = ("-N", "-L", f"{port}:127.0.0.1:{server.getsockname()[1]}")
        client = side.start(options=options, stdin=None)
        await until(lambda: _answers(("127.0.0.1", port)))
        with socket.create_connection(("127.0.0.1", port)):
            await task.deferLater(reactor, 0.3)
            client.kill()
            await client.done
            await until(lambda: seen, 5)
    gone = await until(lambda: not _processes(side), 5)
    return f"{seen[0] if seen else 'connection stays'}, {'no process' if gone else 'processes'}"
