"""What the rows for forwarding ask with: our own client's channels and requests, and an ssh that takes commands."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionLost
from twisted.internet.threads import deferToThread

from teleconch.ca.ssh import PERMITS
from teleconch.codec import string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from tests.interop.conformance import Side, until
from tests.worlds.node import Client
from tests.worlds.reactor import reactor

PATIENCE = 10  # seconds


class EndsFirst:
    """A program that says something, ends, and listens on; ``heard`` is what it gets then."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def serve(self, sock: socket.socket) -> None:
        sock.sendall(b"first")
        sock.shutdown(socket.SHUT_WR)
        self.heard.append(sock.recv(100))


def hear_then_answer(port: int) -> bytes:
    """Read to the end, and answer; what was read."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        first = b""
        while piece := sock.recv(100):
            first += piece
        sock.sendall(b"second")
        return first


class Raw(Channel):
    """A channel of our own client; ``out`` is what came, ``heard`` how it ended."""

    def __init__(self, kind: bytes) -> None:
        super().__init__()
        self.name = kind
        self.out = b""
        self.heard: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.out += data

    def eofReceived(self) -> None:
        self.heard.append("EOF")

    def closed(self) -> None:
        self.heard.append("CLOSE")


@define
class Answering:
    """Our client's side of what a server opens: takes each channel, and keeps what it was told."""

    opened: list[tuple[bytes, bytes]] = field(factory=list)
    channels: list[Raw] = field(factory=list)
    requests: list[bytes] = field(factory=list)
    act: Callable[[Raw], None] = lambda channel: None

    def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Raw:
        self.opened.append((kind, data))
        self.channels.append(Raw(kind))
        reactor.callLater(0, self.act, self.channels[-1])
        return self.channels[-1]

    def global_request(self, name: bytes, data: bytes) -> bool:
        self.requests.append(name)
        return False


@asynccontextmanager
async def connected(
    side: Side, *, login: str = "", without: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Connection, Answering]]:
    """Our own client, with a certificate that lacks the permits ``without``."""
    login = login or side.user
    permits = [each for each in PERMITS if each not in without]
    certificate = side.world.authorities.user_cert(side.world.public(), (login,), extensions=permits)
    connection = await side.world.connect(login, certificate)
    connection.avatar = answering = Answering()
    try:
        yield connection, answering
    finally:
        connection.close()
        await connection.disconnected


async def opened(connection: Connection, kind: bytes, data: bytes = b"") -> Raw | str:
    """The channel, or how it was refused: ``code: sentence``."""
    channel = Raw(kind)
    try:
        await connection.open(channel, data).addTimeout(PATIENCE, reactor)
    except ChannelRefused as refused:
        return f"{refused.code}: {refused.sentence}"
    except (ConnectionLost, DeferredTimeout) as error:
        return type(error).__name__
    return channel


async def code(connection: Connection, kind: bytes, data: bytes = b"") -> str:
    """``opened``, or the code of the refusal."""
    found = await opened(connection, kind, data)
    if isinstance(found, Raw):
        found.loseConnection()
        return "opened"
    return found.split(":")[0]


async def asked(connection: Connection, name: bytes, data: bytes = b"") -> bytes | None:
    """The answer to a global request; ``None`` for no."""
    try:
        return await connection.sendGlobalRequest(name, data, 1).addTimeout(PATIENCE, reactor)
    except (RequestRefused, DeferredTimeout, ConnectionProblem, ConnectionLost):
        return None


async def said(connection: Connection, name: bytes, data: bytes = b"") -> str:
    """Yes or no to a global request."""
    return "no" if await asked(connection, name, data) is None else "yes"


async def requested(channel: Channel, name: bytes, data: bytes = b"") -> str:
    """Yes or no to a channel request."""
    try:
        await channel.conn.sendRequest(channel, name, data, 1).addTimeout(PATIENCE, reactor)
    except (RequestRefused, DeferredTimeout, ConnectionProblem, ConnectionLost):
        return "no"
    return "yes"


def tcp(host: bytes, port: int, origin: bytes = b"127.0.0.1", origin_port: int = 1) -> bytes:
    """The data of a ``direct-tcpip``."""
    return string(host) + uint32(port) + string(origin) + uint32(origin_port)


def unix(path: str | bytes) -> bytes:
    """The data of a ``direct-streamlocal@openssh.com``."""
    return string(os.fsencode(path)) + string(b"") + uint32(0)


def listen(host: bytes, port: int) -> bytes:
    """The data of a ``tcpip-forward`` and of its cancel."""
    return string(host) + uint32(port)


# --- OpenSSH's ssh ---------------------------------------------------------------------------------------------------


@define
class Master:
    """An ssh that stays, and takes forwardings one by one (ControlMaster)."""

    side: Side
    client: Client
    path: str

    async def control(self, command: str, *options: str) -> str:
        """``ssh -O command``: what it says, without ports, and its exit status."""
        result = await self.side.ssh(options=("-S", self.path, "-O", command, *options))
        return f"{(result.out + result.err).decode().strip()} {result.code}".strip()

    async def forward(self, *options: str) -> None:
        """``-O forward``, which must work."""
        answer = await self.control("forward", *options)
        assert answer.endswith("0"), answer

    async def end(self) -> None:
        """The end of the connection."""
        if not self.client.done.called:
            await self.control("exit")
            await self.client.done


@asynccontextmanager
async def master(side: Side, *options: str, login: str = "", **how: Any) -> AsyncIterator[Master]:
    """A connection of OpenSSH's ssh without a session."""
    path = str(side.world.path / f"m-{side.name}-{len(side.world.clients)}")
    client = side.start(options=("-M", "-S", path, "-N", *options), stdin=None, login=login or side.user, **how)
    assert await until(lambda: client.done.called or os.path.exists(path))
    assert not client.done.called, client.err
    made = Master(side, client, path)
    try:
        yield made
    finally:
        await made.end()


# --- programs --------------------------------------------------------------------------------------------------------


def plain(text: str | bytes) -> str:
    """Without ports and folders of this run."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return re.sub(r"\b\d{4,5}\b", "PORT", re.sub(r"/\S*/(?=[^/\s])", "", words)).strip()


async def beside(call: Callable[..., Any], *arguments: Any) -> Any:
    """Run what blocks on a thread of its own; an OSError is given by its text."""
    try:
        return await deferToThread(call, *arguments)
    except OSError as error:
        return error.strerror or type(error).__name__
