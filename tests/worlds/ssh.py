"""A cluster's keys, a server and clients over loopback TCP or in memory, for the tests of ``teleconch.ssh``."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from attrs import evolve
from twisted.conch.interfaces import IConchUser
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from teleconch.ca import authority, keys
from teleconch.codec import string, uint32
from teleconch.service.events import LogEmitter
from teleconch.ssh.auth_client import Signer
from teleconch.ssh.channel import Channel
from teleconch.ssh.checker import CertificateChecker
from teleconch.ssh.client import ClientOptions, SSHClientTransport, connect
from teleconch.ssh.ends import OneEnd, SocketEnd, ToEnd
from teleconch.ssh.problems import ChannelRefused
from teleconch.ssh.reader import Reader
from teleconch.ssh.server import HostKey, ServerOptions, SSHServerFactory, SSHServerTransport
from tests.worlds import certificates
from tests.worlds.certificates import host_cert
from tests.worlds.reactor import reactor

NOW = float(int(time.time()))  # of the real clock, since real programs check these certificates too

USER_CA = authority.new_authority("user", "test", NOW)
HOST_CA = authority.new_authority("host", "test", NOW)
HOST_PEM, HOST_LINE = keys.new_ssh_key()
HOST_CERT = host_cert(HOST_CA, HOST_LINE, nodename="n1")
USER_PEM, USER_LINE = keys.new_ssh_key()


def user_cert(**changes: Any) -> str:
    """A user certificate for ``USER_LINE``; ``changes`` are arguments of ``issue_user_cert``."""
    given: dict[str, Any] = {
        "extensions": ("permit-pty",),
        "valid_after": NOW - 60,
        "valid_before": NOW + 3600,
        "serial": 2,
    }
    given |= changes
    return certificates.user_cert(given.pop("authority", USER_CA), given.pop("public_key", USER_LINE), **given)


USER_CERT = user_cert()


class Session(Channel):
    """A session whose exec commands are: ``echo``, ``count`` (bytes until EOF), ``send N``, ``mute`` (reads nothing),
    ``hash`` (SHA-256 until EOF)."""

    name = b"session"

    avatar: Any

    def __init__(self, avatar: Avatar) -> None:
        super().__init__()
        self.avatar = avatar
        self.command = b""
        self.received = 0
        self.hash = hashlib.sha256()

    def request_exec(self, data: bytes) -> Any:
        self.command = Reader(data).string()
        word, *arguments = self.command.split()
        if word == b"slow":
            return self.slow()
        if word == b"fail":
            raise RuntimeError("secret of the server")
        if word == b"send":
            self.registerProducer(Pattern(self, int(arguments[0])), False)
        if word == b"mute":
            self.pauseProducing()
        if word == b"hello":
            self.write(b"hello\n")
            self.finish(3)
        return True

    async def slow(self) -> bool:
        answer: Deferred[bool] = Deferred()
        self.avatar.slow.append(answer)
        return await answer

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self.hash.update(data)
        if self.command == b"echo":
            self.write(data)

    def eofReceived(self) -> None:
        if self.command == b"count":
            self.write(b"%d" % self.received)
        if self.command == b"hash":
            self.write(self.hash.hexdigest().encode())
        if not self.command.startswith((b"send", b"mute")):
            self.finish(0)

    def finish(self, code: int) -> None:
        self.conn.sendRequest(self, b"exit-status", uint32(code))
        self.loseWriteConnection()
        self.loseConnection()

    def closed(self) -> None:
        self.avatar.closed_channels += 1


BLOCK = hashlib.shake_256(b"pattern").digest(64 * 1024)


class Pattern:
    """A pull producer of ``size`` bytes."""

    def __init__(self, channel: Session, size: int) -> None:
        self.channel, self.left = channel, size

    def resumeProducing(self) -> None:
        size = min(self.left, len(BLOCK))
        self.left -= size
        if not self.left:
            self.channel.unregisterProducer()
        self.channel.write(BLOCK[:size])
        if not self.left:
            self.channel.finish(0)

    def stopProducing(self) -> None:
        pass


class Avatar:
    """A user who may open sessions and ``direct-tcpip`` channels to anywhere."""

    conn: Any = None

    def __init__(self, identity: Any) -> None:
        self.identity = identity
        self.user = getattr(identity, "user", "somebody")
        self.slow: list[Deferred[bool]] = []
        self.closed_channels = 0
        self.logged_out = 0

    def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Any:
        if kind == b"session":
            return Session(self)
        if kind == b"direct-tcpip":
            return self.dial(Reader(data))
        if kind == b"broken":
            raise RuntimeError("secret of the server")
        raise ChannelRefused(1, "not here")

    async def dial(self, target: Reader) -> Channel:
        end = SocketEnd()
        host, port = target.string().decode(), target.uint32()
        await TCP4ClientEndpoint(reactor, host, port).connect(OneEnd(end))
        return ToEnd(end)

    def global_request(self, name: bytes, data: bytes) -> Any:
        return b"reply" if name == b"good" else name == b"plain"

    def logout(self) -> None:
        self.logged_out += 1


class Realm:
    def __init__(self) -> None:
        self.avatars: list[Avatar] = []

    def requestAvatar(self, avatar_id: Any, mind: Any, *interfaces: Any) -> Any:
        avatar = Avatar(avatar_id[0])
        self.avatars.append(avatar)
        return IConchUser, avatar, avatar.logout


def make_factory(
    clock: Any = reactor, options: ServerOptions | None = None, host_keys: Any = None, checkers: Any = None
) -> Any:
    """A server that trusts ``USER_CA``; its ``realm`` holds the avatars."""
    realm = Realm()
    checkers = checkers or [CertificateChecker(lambda: [authority.trusted(USER_CA)], lambda: NOW)]
    host_keys = host_keys or [HostKey(HOST_PEM.reveal(), HOST_CERT)]
    factory: Any = SSHServerFactory(
        clock, Portal(cast("Any", realm), checkers), lambda: host_keys, options, "test", emitter=LogEmitter()
    )
    factory.realm = realm
    return factory


async def login(port: int, host: str = "127.0.0.1", **changes: Any) -> Any:
    """A logged-in client connection."""
    given: dict[str, Any] = {
        "user": "root",
        "private_key_pem": USER_PEM,
        "certificate": USER_CERT,
        "verify_host": lambda blob: None,
    }
    given |= changes
    endpoint = given.pop("endpoint", None) or HostnameEndpoint(reactor, host, port)
    return await connect(reactor, endpoint, **given)


class ClientSession(Channel):
    """What a client hears of a session. ``data`` is kept unless ``keep`` is false; ``done`` fires when it is closed."""

    name = b"session"
    data: Any  # Conch means something else by it

    def __init__(self, keep: bool = True, **given: Any) -> None:
        super().__init__(**given)
        self.keep = keep
        self.data = bytearray()
        self.size = 0
        self.hash = hashlib.sha256()
        self.code: int | None = None
        self.eof = False
        self.done: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self.hash.update(data)
        if self.keep:
            self.data += data

    def eofReceived(self) -> None:
        self.eof = True

    def request_exit_status(self, data: bytes) -> bool:
        self.code = Reader(data).uint32()
        return True

    def closed(self) -> None:
        self.done.callback(None)


async def execute(connection: Any, command: bytes, stdin: bytes | None = b"", **given: Any) -> ClientSession:
    """Run ``command`` to its end."""
    session = await start(connection, command, **given)
    if stdin is not None:
        session.write(stdin)
        session.loseWriteConnection()
    await session.done
    return session


async def start(connection: Any, command: bytes, **given: Any) -> ClientSession:
    session = ClientSession(**given)
    await connection.open(session)
    await connection.sendRequest(session, b"exec", string(command), 1)
    return session


def pattern(size: int) -> Iterator[bytes]:
    """What ``send`` sends."""
    while size > 0:
        yield BLOCK[:size]
        size -= len(BLOCK)


# -- in memory --


class Memory:
    """One end of a connection in memory: what is written waits until :meth:`Pair.pump`."""

    def __init__(self) -> None:
        self.written: deque[bytes] = deque()
        self.closed = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written.append(data)

    def loseConnection(self) -> None:
        self.closed = True

    abortConnection = loseConnection

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def getPeer(self) -> Any:
        return IPv4Address("TCP", "127.0.0.1", 40000)

    getHost = getPeer


class Pair:
    """A server and a client protocol, joined in memory, on one :class:`Clock`.

    ``alter(packet_bytes, to_server)`` may change or drop (``b""``) what goes over the wire.
    """

    def __init__(
        self,
        client: Callable[[Clock], Any] | None = None,
        options: ServerOptions | None = None,
        client_options: ClientOptions | None = None,
        alter: Callable[[bytes, bool], bytes] | None = None,
        server: type[SSHServerTransport] | None = None,
        **factory: Any,
    ) -> None:
        self.clock = Clock()
        self.factory = make_factory(self.clock, options, **factory)
        self.server: Any = (
            server(self.factory) if server else self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        )
        self.client: Any = client(self.clock) if client else make_client(self.clock, options=client_options)
        self.alter = alter or (lambda data, to_server: data)
        self.ends = (Memory(), Memory())
        self._lost = [False, False]
        self.server.makeConnection(self.ends[0])
        self.client.makeConnection(self.ends[1])

    @staticmethod
    def silent(factory: Any) -> Any:
        """A server's side of a connection over which nothing comes."""
        server = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40001))
        assert server is not None
        server.makeConnection(Memory())
        return server

    def pump(self, turns: int = 10_000) -> None:
        """Carry bytes until nothing moves."""
        protocols = (self.server, self.client)
        for _ in range(turns):
            moved = False
            for mine, other in ((0, 1), (1, 0)):
                end = self.ends[mine]
                if end.written:
                    moved = True
                    data = self.alter(end.written.popleft(), mine == 1)
                    if data and not self._lost[other] and not self.ends[other].closed:
                        protocols[other].dataReceived(data)
                elif end.closed and not self._lost[mine]:
                    moved = True
                    self.lose(mine)
                    if not self._lost[other]:
                        self.lose(other)
            if not moved:
                return

    def lose(self, which: int) -> None:
        self._lost[which] = True
        self.ends[which].closed = True
        (self.server, self.client)[which].connectionLost(Failure(ConnectionError()))

    def end(self) -> None:
        """Cut the wire."""
        for which in (0, 1):
            if not self._lost[which]:
                self.lose(which)

    @property
    def avatar(self) -> Avatar:
        avatar: Avatar = self.factory.realm.avatars[-1]
        return avatar


def make_client(clock: Any, kind: type[SSHClientTransport] = SSHClientTransport, **changes: Any) -> SSHClientTransport:
    options = changes.pop("options", None) or ClientOptions()
    given: dict[str, Any] = {
        "user": "root",
        "signers": [Signer.from_key(USER_PEM.reveal(), USER_CERT)],
        "verify_host": lambda blob: None,
        "options": options,
    }
    client = kind(clock, **(given | changes))
    client.ready.addErrback(lambda failure: setattr(client, "refused", failure.value))
    return client


def options(**changes: Any) -> ServerOptions:
    return evolve(ServerOptions(), **changes)
