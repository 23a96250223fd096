"""The transport layer (RFC 4253): messages, key exchange, services.

Conch's knows no strict key exchange and never re-keys by itself. Conch's services (``SSHService``) run on this
transport as on its own. ``conch`` makes a Twisted protocol of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from teleconch.codec import name_list, string, uint32
from teleconch.ssh import algorithms, kex, limits, messages, packet, states
from teleconch.ssh.algorithms import Algorithms
from teleconch.ssh.framing import PacketStream
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

VERSION: Final = b"Teleconch"
_SEQUENCE: Final = 0xFFFFFFFF
# What may be sent between our KEXINIT and our NEWKEYS (RFC 4253 section 7.1).
_DURING_KEX: Final = frozenset(
    (messages.DISCONNECT, messages.KEXINIT, messages.NEWKEYS, messages.KEX_INIT, messages.KEX_REPLY)
)


class Service(Protocol):
    """What runs upon a transport, as Conch's ``SSHService``. It may have ``sendingPaused()`` and ``sendingResumed()``,
    and ``got_data_packet(plain, last)`` for CHANNEL_DATA."""

    transport: Any

    def serviceStarted(self) -> None: ...
    def serviceStopped(self) -> None: ...
    def packetReceived(self, messageNum: int, packet: bytes) -> None: ...


class SSHTransport(states.Order, PacketStream):
    """What client and server share. ``reactor`` gives time, by ``callLater``; services get the messages from 50 up."""

    isClient: ClassVar[bool]

    def __init__(self, reactor: Any, offered: Algorithms, *, version: bytes = VERSION) -> None:
        super().__init__(reactor, version)
        self.offered = offered
        self.service: Any = None  # a :class:`Service`
        self.peer_extensions: dict[bytes, bytes] = {}
        self.keyExchanges = 0  # how many have ended
        self.rekey_seconds = limits.REKEY_SECONDS
        self._blocked: list[tuple[int, bytes]] = []
        self._blocked_bytes = 0  # taken from the account for them
        self._state_after = states.SERVICE  # the state that a key exchange leads back to
        self._our_kexinit: bytes | None = None
        self._peer_kexinit: bytes | None = None
        self._exchanging = False  # between our KEXINIT and our NEWKEYS
        self._agreed: kex.Agreed | None = None
        self._next_opener: packet.Opener | None = None
        self._drop_next_kex = False
        self._peer_takes_ext_info = False
        self._rekey_call: Any = None
        self._data_when_open: Callable[[bytes, int], None] | None = None

    def begin(self) -> None:
        self._send_kexinit()

    def lost(self) -> None:
        super().lost()
        if self._rekey_call is not None and self._rekey_call.active():
            self._rekey_call.cancel()
        service, self.service, self._data_received = self.service, None, None
        self._unblock()
        if service is not None:
            service.serviceStopped()

    # -- back-pressure --

    @property
    def congested(self) -> bool:
        """Whether producers should pause: bytes wait for the network, or keys are being exchanged."""
        return self._exchanging or self._wire is None or self._wire.congested

    def choked(self) -> None:
        """The network takes no more for now, or keys are being exchanged."""
        told = getattr(self.service, "sendingPaused", None)
        if told is not None:
            told()

    def drained(self) -> None:
        """The network takes more."""
        self._unsent_gone()
        if not self.congested and not self.ended:
            told = getattr(self.service, "sendingResumed", None)
            if told is not None:
                told()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, and go on with other things while it waits. An error ends the connection. Here, without a
        reactor, there is nothing that it could wait for."""
        try:
            work.send(None)
        except StopIteration:
            return
        work.close()
        raise RuntimeError("nothing can be waited for without a reactor")

    # -- sending --

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send one message; during a key exchange everything else waits for its end."""
        if self.ended:
            return
        if self._exchanging and messageType not in _DURING_KEX:
            size = len(payload) + limits.PIECE_COST
            if self._blocked_bytes + size > limits.BLOCKED_BYTES or not self.account.take(size):
                self.fail(ProtocolProblem("too much waits for the key exchange to end"))
                return
            self._blocked_bytes += size
            self._blocked.append((messageType, payload))
            return
        self.seal(bytes((messageType,)), payload)

    def _unblock(self) -> list[tuple[int, bytes]]:
        """Take out what waited for the end of a key exchange."""
        blocked, self._blocked = self._blocked, []
        self.account.give(self._blocked_bytes)
        self._blocked_bytes = 0
        return blocked

    def sendUnimplemented(self, sequence: int | None = None) -> None:
        if sequence is None:
            sequence = (self._in_sequence - 1) & _SEQUENCE
        self.sendPacket(messages.UNIMPLEMENTED, uint32(sequence))

    # -- messages --

    def message(self, number: int, body: bytes, sequence: int) -> None:
        if not self.expects(number):
            self.sendUnimplemented(sequence)
        elif messages.USERAUTH_REQUEST <= number <= messages.CHANNEL_FAILURE:
            assert self.service is not None
            self.service.packetReceived(number, body)
        else:
            getattr(self, self._METHODS[number])(body)

    _METHODS: ClassVar[dict[int, str]] = {
        messages.DISCONNECT: "_got_disconnect",
        messages.IGNORE: "_got_nothing",
        messages.UNIMPLEMENTED: "_got_nothing",
        messages.DEBUG: "_got_nothing",
        messages.SERVICE_REQUEST: "_got_service_request",
        messages.SERVICE_ACCEPT: "_got_service_accept",
        messages.EXT_INFO: "_got_ext_info",
        messages.KEXINIT: "_got_kexinit",
        messages.NEWKEYS: "_got_newkeys",
        messages.KEX_INIT: "_got_kex_init",
        messages.KEX_REPLY: "_got_kex_reply",
        messages.PING: "_got_ping",
        messages.PONG: "_got_nothing",
    }

    def _got_disconnect(self, body: bytes) -> None:
        reader = Reader(body)
        code, text = reader.uint32(), reader.string()
        self.peerDisconnected(code, text[:255].decode("utf-8", "replace"))
        self._end()

    def peerDisconnected(self, code: int, text: str) -> None:
        """The peer said why it is leaving."""
        self.log.debug("ssh peer left: {code} {text!r}", code=code, text=text)

    def _got_nothing(self, body: bytes) -> None:
        pass

    def _got_ping(self, body: bytes) -> None:
        self.sendPacket(messages.PONG, string(Reader(body).string()))

    def _got_ext_info(self, body: bytes) -> None:
        self.peer_extensions.update(kex.parse_ext_info(body))

    # -- key exchange --

    def host_key_algorithms(self) -> tuple[bytes, ...]:
        return self.offered.host_keys

    def rekey(self) -> None:
        """Begin a key exchange, unless one is running."""
        if self._our_kexinit is None and self.sessionID is not None and not self.ended:
            self._send_kexinit()
            self.choked()

    def _send_kexinit(self) -> None:
        first = self.sessionID is None
        self._our_kexinit = kex.make_kexinit(
            self.offered, client=self.isClient, first=first, host_keys=self.host_key_algorithms()
        )
        self.renew_allowance()
        if not first:
            self._call_later(limits.KEX_SECONDS, self._kex_too_slow)
        self._exchanging = True
        self.seal(self._our_kexinit)

    def _kex_too_slow(self) -> None:
        self.fail(ProtocolProblem("the other side does not answer the key exchange"))

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        """The one timer: either for the next key exchange, or for the end of the running one."""
        if self._rekey_call is not None and self._rekey_call.active():
            self._rekey_call.cancel()
        self._rekey_call = self.reactor.callLater(seconds, what)

    def _got_kexinit(self, body: bytes) -> None:
        self._state_after = states.SERVICE if self.state == states.START else self.state
        self.state = states.KEYS
        self._data_received = None
        if self._our_kexinit is None:
            self._peer_goes_first(body)
            self._send_kexinit()
            self.choked()
        assert self._our_kexinit is not None
        self._peer_kexinit = bytes((messages.KEXINIT,)) + body
        ours, theirs = kex.parse_kexinit(self._our_kexinit), kex.parse_kexinit(self._peer_kexinit)
        if self.sessionID is None:
            strict, ext_info = (
                (algorithms.STRICT_SERVER, algorithms.EXT_INFO_SERVER)
                if self.isClient
                else (algorithms.STRICT_CLIENT, algorithms.EXT_INFO_CLIENT)
            )
            self._strict = strict in theirs.kex
            self._peer_takes_ext_info = ext_info in theirs.kex
            if self._strict and self._in_sequence != 1:
                raise ProtocolProblem("KEXINIT was not the first packet, as strict key exchange asks")
        client, server = (ours, theirs) if self.isClient else (theirs, ours)
        self._agreed = kex.agree(client, server, strict=self._strict, peer_is_client=not self.isClient)
        self._drop_next_kex = self._agreed.guess_wrong
        self.kex_agreed(self._agreed)

    def _peer_goes_first(self, kexinit: bytes) -> None:
        """The peer's KEXINIT came before ours was sent."""

    def kex_agreed(self, agreed: kex.Agreed) -> None:
        """Both KEXINITs have come."""

    def _wrong_guess(self) -> bool:
        drop, self._drop_next_kex = self._drop_next_kex, False
        return drop

    def _hash(self, host_key: bytes, init: bytes, reply: bytes, secret: bytes) -> bytes:
        """H of the running key exchange."""
        assert self._our_kexinit is not None
        assert self._peer_kexinit is not None
        pairs = ((self.ourVersionString, self.otherVersionString), (self._our_kexinit, self._peer_kexinit))
        versions, kexinits = pairs if self.isClient else (pairs[0][::-1], pairs[1][::-1])
        assert self._agreed is not None
        return kex.exchange_hash(self._agreed.kex, versions, kexinits, host_key, init, reply, secret)

    def _keys_made(self, secret: bytes, digest: bytes) -> None:
        """K and H are known and H's signature is good: send NEWKEYS and seal with the new keys from now on."""
        agreed, first = self._agreed, self.sessionID is None
        assert agreed is not None
        self.state = states.NEW
        session_id = self.sessionID or digest
        derive = kex.KeyMaterial(agreed.kex, secret, digest, session_id)
        letters, out = (b"ACE", b"BDF"), 0 if self.isClient else 1
        into = 1 - out
        self.seal(bytes((messages.NEWKEYS,)))
        self._sealer = packet.make_sealer(agreed.ciphers[out], agreed.macs[out], derive, letters[out])
        self._next_opener = packet.make_opener(agreed.ciphers[into], agreed.macs[into], derive, letters[into])
        if self._strict:
            self._out_sequence = 0
        self._next_session_id = session_id
        if first:
            self._send_ext_info()
        self._exchanging = False
        for number, waiting in self._unblock():
            self.sendPacket(number, waiting)
        if not first:
            self.drained()

    _next_session_id = b""

    def _send_ext_info(self) -> None:
        """Here a server tells which signatures it takes."""

    def _got_newkeys(self, body: bytes) -> None:
        if self._next_opener is None or body:
            raise ProtocolProblem("NEWKEYS came at a moment when it must not")
        self._opener, self._next_opener = self._next_opener, None
        if self._strict:
            self._in_sequence = 0
        first, self.sessionID = self.sessionID is None, self._next_session_id
        self.state = self._state_after
        self._data_received = self._data_when_open
        self._our_kexinit = self._peer_kexinit = self._agreed = None
        self.renew_allowance()
        self._ext_info_legal = first
        self.keyExchanges += 1
        self._call_later(self.rekey_seconds, self.rekey)
        if first:
            self._longest = limits.PACKET_MAX_EARLY
            self.connectionSecure()

    def connectionSecure(self) -> None:
        """The first key exchange has ended."""

    # -- services --

    def setService(self, service: Service) -> None:
        """Run ``service`` from now on, in place of the one before."""
        if self.service is not None:
            self.service.serviceStopped()
        self.service = service
        service.transport = self
        service.serviceStarted()

    def authenticated(self, connection: Service) -> None:
        """Authentication has succeeded: now, and not before, there is a connection service and packets are long."""
        self.state, self.entered = states.OPEN, True
        self._longest = limits.PACKET_MAX
        self.setService(connection)
        self._data_received = self._data_when_open = getattr(connection, "got_data_packet", None)


def server_extensions() -> bytes:
    """EXT_INFO body of a server (RFC 8308 section 3.1, OpenSSH's PROTOCOL, sections 1.8 and 3.1)."""
    entries = (
        string(b"server-sig-algs") + name_list(algorithms.USER_SIGNATURES),
        string(b"publickey-hostbound@openssh.com") + string(b"0"),
        string(b"ping@openssh.com") + string(b"0"),
    )
    return uint32(len(entries)) + b"".join(entries)
