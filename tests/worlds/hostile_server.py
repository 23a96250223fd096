"""A server that does as a test tells it, and both kinds of clients: that on Twisted, and that of ``tsh ssh``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.task import Clock

from teleconch.ca.keys import public_blob
from teleconch.client.link import ENDED, ChannelUser, Link
from teleconch.codec import boolean, string, uint32
from teleconch.ssh import messages as m
from teleconch.ssh import signatures, states
from teleconch.ssh.auth_client import Signer
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.server import SSHServerTransport
from tests.worlds.ssh import USER_CERT, USER_PEM, Memory, Pair, make_client

# Bodies that can be read: what is wrong with these messages is their moment alone. The others have none.
BODIES = {
    m.DISCONNECT: uint32(11) + string(b"bye") + string(b""),
    m.IGNORE: string(b""),
    m.UNIMPLEMENTED: uint32(0),
    m.DEBUG: boolean(False) + string(b"") * 2,
    m.SERVICE_ACCEPT: string(b"ssh-userauth"),
    m.EXT_INFO: uint32(0),
    m.USERAUTH_FAILURE: string(b"publickey") + boolean(False),
    m.USERAUTH_BANNER: string(b"hello") + string(b""),
    m.GLOBAL_REQUEST: string(b"x") + boolean(True),
    m.CHANNEL_OPEN: string(b"session") + uint32(0) * 3,
    m.PING: string(b""),
    m.PONG: string(b""),
}
QUIET = (m.IGNORE, m.UNIMPLEMENTED, m.DEBUG, m.PING, m.PONG)


class Heard(Channel):
    """A session at the Twisted client."""

    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""
        self.over = False

    def eofReceived(self) -> None:
        self.over = True

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def extReceived(self, dataType: int, data: bytes) -> None:
        self.heard += data

    def requestReceived(self, requestType: bytes, data: bytes) -> bool:
        self.heard += requestType
        return False

    def hold(self) -> None:
        self.pauseProducing()

    def hang_up(self) -> None:
        self.loseConnection()

    def ask(self) -> None:
        self.conn.sendRequest(self, b"x", b"", wantReply=1).addErrback(lambda _: None)

    def keep_alive(self) -> None:
        cast("Connection", self.conn)._requests.keep_alive(3)


class LinkClient(ChannelUser):
    """The connection of ``tsh ssh`` where a :class:`Pair` has a protocol, and the one session on it."""

    def __init__(self, clock: Clock, pem: str = USER_PEM.reveal(), certificate: str = USER_CERT) -> None:
        key = signatures.load_private_key(pem)
        self.link = Link("root", key, public_blob(certificate), lambda blob: None, self, b"session")
        self.heard = b""
        self.over = self.holds = False

    state = property(lambda self: self.link.state)
    ended = property(lambda self: self.link.state == ENDED)

    def makeConnection(self, transport: Memory) -> None:
        self._wire = transport
        self._send()

    def dataReceived(self, data: bytes) -> None:
        self.link.feed(data)
        self._send()

    def connectionLost(self, reason: object) -> None:
        self.link.lost()

    def _send(self) -> None:
        out = self.link.take()
        if out:
            self._wire.write(out)
        if self.ended:
            self._wire.loseConnection()

    def rekey(self) -> None:
        self.link.rekey()
        self._send()

    def hold(self) -> None:
        """Give no credit any more."""
        self.holds = True

    def hang_up(self) -> None:
        self.link.close()
        self._send()

    def ask(self) -> None:
        self.link.send_request(b"x", b"", True)
        self._send()

    def keep_alive(self) -> None:
        self.link.tick(3)
        self._send()

    def data(self, data: bytes) -> None:
        self.heard += data
        if not self.holds:
            self.link.credit(len(data))

    error_data = data

    def eof(self) -> None:
        self.over = True

    def request(self, name: bytes, data: bytes) -> None:
        self.heard += name


def twisted_client(clock: Clock, pem: str = USER_PEM.reveal(), certificate: str = USER_CERT) -> Any:
    return make_client(clock, signers=[Signer.from_key(pem, certificate)])


MakeClient = Callable[..., Any]


class Hostile(SSHServerTransport):
    """Goes no further by itself when the client is in ``where``; then messages are injected. ``extensions`` are the
    messages that it sends after its first NEWKEYS."""

    where = ""
    extensions: Iterable[int] | None = None

    def _send_kexinit(self) -> None:
        if self.where == states.START and self.sessionID is None:
            self._our_kexinit = b"never sent"
            return
        super()._send_kexinit()

    def message(self, number: int, body: bytes, sequence: int) -> None:
        stops = {
            states.START: (m.KEXINIT,),
            states.NEW: (m.NEWKEYS,),
            states.SERVICE: (m.SERVICE_REQUEST, m.USERAUTH_REQUEST),
            states.AUTH: (m.USERAUTH_REQUEST,),
        }
        if number not in (*stops.get(self.where, ()), m.PONG):
            super().message(number, body, sequence)

    def _got_kex_init(self, body: bytes) -> None:
        if self.where != states.KEYS:
            super()._got_kex_init(body)

    def _keys_made(self, secret: bytes, digest: bytes) -> None:
        if self.where != states.NEW:
            super()._keys_made(secret, digest)

    def _send_ext_info(self) -> None:
        if self.extensions is None:
            super()._send_ext_info()
        else:
            for number in self.extensions:
                self.seal(bytes((number,)), BODIES[number])


def at(client: MakeClient, state: str, extensions: Iterable[int] | None = None) -> Pair:
    """A client in ``state``, and the server that it talks to."""
    pair = Pair(client, server=type("Server", (Hostile,), {"where": state, "extensions": extensions}))
    pair.pump()
    assert pair.client.state == state
    return pair


def in_session(client: MakeClient) -> tuple[Pair, Any]:
    """A client with an open session, number 0 on both sides, and that. The server hears no more, and so says nothing
    by itself."""
    pair = Pair(client)
    pair.pump()
    session = pair.client
    if not isinstance(session, LinkClient):
        session = Heard()
        pair.client.service.open(session)
    pair.pump()
    assert list(pair.server.service.channels) == [0]
    pair.alter = lambda data, to_server: b"" if to_server else data
    return pair, session


def inject(pair: Pair, number: int, body: bytes | None = None) -> None:
    pair.server.seal(bytes((number,)), BODIES.get(number, b"") if body is None else body)
    pair.pump()


def end(pair: Pair) -> None:
    pair.end()
    assert not pair.clock.getDelayedCalls()
