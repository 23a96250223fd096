"""What stands at both sides of a proxy: listeners that are scripted, and a user who asks to be relayed to them."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.codec import string, uint32
from teleconch.resources.secret import Secret
from teleconch.ssh import client
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import RequestRefused
from tests.worlds.proxy import World
from tests.worlds.reactor import port_of, reactor
from tests.worlds.waiting import reply


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """A listener that is scripted by its subclass."""

    greeting = b"SSH-2.0-peer\r\n"
    lives: list[Peer]

    def __init__(self) -> None:
        self.got = b""
        self.count = 0
        self.hash = hashlib.sha256()
        self.half_closed: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.lives.append(self)
        if self.greeting:
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.got = (self.got + data)[:4096]
        self.count += len(data)
        self.hash.update(data)

    def readConnectionLost(self) -> None:
        self.half_closed.callback(None)
        self.answer()
        self.transport.loseConnection()

    def answer(self) -> None:
        """What to say when the other side has said all."""

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Caller(Channel):
    """The client's side of a channel: keeps what comes."""

    name = b"session"

    def __init__(self, name: bytes = b"session", keep: int = 1 << 20) -> None:
        super().__init__()
        self.name = name
        self.keep = keep
        self.out = self.err = b""
        self.count = 0
        self.hash = hashlib.sha256()
        self.status: int | None = None
        self.eof: Deferred[None] = Deferred()
        self.end: Deferred[None] = Deferred()
        self.wanted: tuple[int, Deferred[Any]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.out = (self.out + data)[: self.keep]
        self.count += len(data)
        self.hash.update(data)
        if self.wanted is not None and self.count >= self.wanted[0]:
            wanted, self.wanted = self.wanted, None
            wanted[1].callback(None)

    def extReceived(self, kind: int, data: bytes) -> None:
        self.err += data

    def request_exit_status(self, data: bytes) -> bool:
        self.status = int.from_bytes(data, "big")
        return True

    def eofReceived(self) -> None:
        self.eof.callback(None)

    def closed(self) -> None:
        self.end.callback(None)

    def until(self, count: int) -> Deferred[Any]:
        wanted: Deferred[None] = Deferred()
        if self.count >= count:
            wanted.callback(None)
        else:
            self.wanted = (count, wanted)
        return wanted


class Ports:
    """Listeners of a test, closed at its end."""

    def __init__(self) -> None:
        self.open: list[Any] = []

    async def listen(self, peer: type[Peer]) -> tuple[str, list[Peer]]:
        kind: Any = type("Scripted", (peer,), {"lives": []})
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(kind))
        self.open.append((port, kind))
        return f"127.0.0.1:{port_of(port)}", kind.lives

    async def close(self) -> None:
        for port, kind in self.open:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
            for peer in kind.lives:
                peer.transport.abortConnection()


class Echo(Peer):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


class Database(Peer):
    greeting = b"\x4a\x00\x00\x00\x0a8.0.36\x00"


class Web(Peer):
    greeting = b""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")


class Closes(Peer):
    greeting = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.loseConnection()


async def login(world: World, user: str = "alice", as_: str = "root") -> Connection:
    key = (world.folder / user).read_text()
    line = (world.folder / f"{user}-cert.pub").read_text()
    return await client.connect(
        reactor,
        TCP4ClientEndpoint(reactor, "127.0.0.1", world.port),
        user=as_,
        private_key_pem=Secret(key),
        certificate=line,
        verify_host=lambda blob: None,
    )


def jump_to(host: str, port: int) -> bytes:
    return string(host.encode()) + uint32(port) + string(b"127.0.0.1") + uint32(1)


async def jump(connection: Connection, host: str, port: int = 22) -> Caller:
    channel = Caller(b"direct-tcpip")
    await connection.open(channel, jump_to(host, port))
    return channel


async def subsystem(connection: Connection, name: str) -> tuple[Caller, bool]:
    channel = Caller()
    await connection.open(channel)
    try:
        await reply(connection.sendRequest(channel, b"subsystem", string(name.encode()), wantReply=1))
    except RequestRefused:
        return channel, False
    return channel, True
