"""Rows for what comes before a login: version lines, peers that speak no SSH, what is announced, and names."""

from __future__ import annotations

import re
import socket

from tests.interop.conformance import Side, behaviour, until

BEGINNING = "Before the login"


async def _answer(side: Side, sent: bytes) -> bytes:
    """What the server says to this, until it closes the connection."""
    heard = bytearray()

    def is_over() -> bool:
        try:
            heard.extend(data := peer.recv(4096))
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return not data

    with socket.create_connection(("127.0.0.1", side.world.port)) as peer:
        peer.sendall(sent)
        peer.setblocking(False)
        assert await until(is_over), f"{sent[:20]!r}: {heard!r}"
    return bytes(heard)


@behaviour(
    BEGINNING,
    "The version line",
    reason="Clients know by it what a server does differently, and read a version after OpenSSH\\_.",
)
async def version(side: Side) -> str:
    return re.sub(r"Debian-.*", "Debian", (await _answer(side, b"\n")).split(b"\r\n")[0].decode())


@behaviour(BEGINNING, "Peers that speak no SSH: HTTP, TLS, nothing but newlines, zero bytes, a line without end")
async def no_ssh(side: Side) -> str:
    told = []
    for name, sent in (
        ("HTTP", b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(189) + b"\n"),
        ("newlines", b"\n" * 2000),
        ("zeros", bytes(2000)),
        ("without end", b"x" * 20000),
    ):
        _, _, rest = (await _answer(side, sent)).partition(b"\r\n")
        told.append(f"{name}: {rest!r}"[:120])
    return "; ".join(told)


@behaviour(BEGINNING, "Versions of the protocol: 1.5, 3.0, 2, none")
async def versions(side: Side) -> str:
    told = []
    for version in ("1.5-test", "3.0-test", "2-test", ""):
        _, _, rest = (await _answer(side, f"SSH-{version}\r\n".encode())).partition(b"\r\n")
        told.append(f"{version or 'none'}: {rest!r}"[:120])
    return "; ".join(told)


@behaviour(BEGINNING, "What is announced once keys are there (RFC 8308)")
async def announced(side: Side) -> str:
    said = (await side.ssh("true", options=("-vv",))).err.decode()
    found = re.findall(r"^debug1: kex_\w+: (\S+@\S+|server-sig-algs)=<?([^>\s]*)", said, re.MULTILINE)
    return ", ".join(sorted({name if name == "server-sig-algs" else f"{name}={value}" for name, value in found}))


@behaviour(BEGINNING, "How a login is refused that the certificate does not have")
async def not_named(side: Side) -> str:
    result = await side.ssh("true", login="daemon")
    return f"{result.err.decode()} {result.code}"


async def _as(side: Side, *logins: str) -> str:
    told = [await side.ssh("id -un", login=login) for login in logins]
    return "; ".join(f"{each.out.decode().strip()} ({each.code})" for each in told).replace(side.user, "USER").strip()


@behaviour(BEGINNING, "Logins with a style: USER:style, USER:a:b")
async def styles(side: Side) -> str:
    return await _as(side, f"{side.user}:style", f"{side.user}:a:b")


@behaviour(
    BEGINNING,
    "A login with an empty style: USER:",
    reason="The node cuts it off like any other. Of sshd's two processes, one takes it for no style at all, so that "
    "they disagree about what was signed.",
)
async def empty_style(side: Side) -> str:
    return await _as(side, f"{side.user}:")
