"""Rows for forwarding that is refused, and for connections that only forward."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from twisted.internet import task
from twisted.internet.defer import DeferredList

from teleconch.codec import string, uint32
from tests.interop.conformance import Side, behaviour, processes, until, usermod
from tests.interop.forwarding_clients import (
    Raw,
    beside,
    code,
    connected,
    listen,
    master,
    opened,
    said,
    tcp,
    unix,
)
from tests.worlds.forward import Address, address_family, ask, free_port, program, talk, upper
from tests.worlds.reactor import reactor

REFUSED = "Forwarding that is refused"
ONLY = "Connections that only forward"

UNKNOWN = (
    "RFC 4254 section 5.1 has a code for an unknown type (3), and the node uses it. There are no tunnel devices "
    "(PermitTunnel is off in sshd as well)."
)
TELLS_WHY = "The same codes. Where sshd says only that it failed, the node adds why."


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
    assert await until(lambda: not processes(side))
    return answer.decode() if answer and isinstance(answer, bytes) else "refused"


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
        await usermod(side, *change)
        seen.append(await _through(side))
        await usermod(side, *back)
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
    options = ("-N", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")
    client = side.start(options=options, stdin=None)
    await task.deferLater(reactor, 3.5)
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
    gone = await until(lambda: not processes(side), 5)
    return f"{seen[0] if seen else 'connection stays'}, {'no process' if gone else 'processes'}"
