"""The transport layer (RFC 4253): version lines, packets, key exchange, services.

Conch's packet path is replaced as a whole: it knows no strict key exchange, AEAD, re-keying or limits, and copies its
buffer for every read. Conch's services (``SSHService``) run on this transport as on Conch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.ssh import algorithms, kex, limits, messages, packet, states
from teleconch.ssh.algorithms import Algorithms
from teleconch.ssh.codec import Reader, name_list, string, uint32
from teleconch.ssh.problems import ProtocolProblem, SSHProblem
from teleconch.ssh.wire import StreamWire, Wire, make_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.conch.ssh.service import SSHService
    from twisted.internet.interfaces import IDelayedCall

VERSION: Final = b"Teleconch"
_SEQUENCE: Final = 0xFFFFFFFF
# What may be sent between our KEXINIT and our NEWKEYS (RFC 4253 section 7.1).
_DURING_KEX: Final = frozenset(
    (messages.DISCONNECT, messages.KEXINIT, messages.NEWKEYS, messages.KEX_INIT, messages.KEX_REPLY)
)
_BLOCKED_MAX: Final = 4096  # small messages held back while keys are exchanged
_EXTENSIONS_MAX: Final = 64


class SSHTransport(Protocol):
    """What client and server share. ``reactor`` gives time; services get the messages from 50 up."""

    isClient: ClassVar[bool]
    legal: ClassVar[Mapping[str, frozenset[int]]]
    log = Logger()

    def __init__(self, reactor: Any, offered: Algorithms, *, version: bytes = VERSION) -> None:
        self.reactor = reactor
        self.offered = offered
        self.ourVersionString = b"SSH-2.0-" + version
        self.otherVersionString = b""
        self.sessionID: bytes | None = None
        self.service: SSHService | None = None
        self.ended = False
        self.peer_extensions: dict[bytes, bytes] = {}
        self.state = states.START
        self.keyExchanges = 0  # how many have ended
        self.rekey_bytes = limits.REKEY_BYTES
        self.rekey_seconds = limits.REKEY_SECONDS
        self._wire: Wire | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._corked = 0
        self._opener: packet.Opener = packet.PlainOpener()
        self._sealer: packet.Sealer = packet.PlainSealer()
        self._in_sequence = self._out_sequence = 0
        self._bytes_left = self._packets_left = 0  # until the next re-key
        self._strict = False
        self._longest = limits.PACKET_MAX_EARLY
        self._blocked: list[tuple[int, bytes]] = []
        self._state_after = states.SERVICE  # the state that a key exchange leads back to
        self._our_kexinit: bytes | None = None
        self._peer_kexinit: bytes | None = None
        self._exchanging = False  # between our KEXINIT and our NEWKEYS
        self._agreed: kex.Agreed | None = None
        self._next_opener: packet.Opener | None = None
        self._drop_next_kex = False
        self._peer_takes_ext_info = False
        self._ext_info_legal = False
        self._version_lines = 0
        self._rekey_call: IDelayedCall | None = None
        self._data_received: Callable[[bytes, int], None] | None = None

    # -- the connection below --

    def connectionMade(self) -> None:
        self._wire = make_wire(self, self.transport)
        line = self.ourVersionString + b"\r\n"
        self._out.append(line)
        self._out_size = len(line)
        self._renew_allowance()
        self._send_kexinit()

    def dataReceived(self, data: bytes) -> None:
        if isinstance(self._wire, StreamWire):  # a socket's bytes go to ``received``, and after its end nowhere
            self._wire.data_received(data)

    def received(self, data: memoryview, end: int) -> int:
        """Use what is whole of ``data[:end]``; gives how much that was."""
        if self.ended:
            return end
        at = 0
        self._corked += 1
        try:
            if not self.otherVersionString:
                at = self._read_version(bytes(data[:end]))
            if self.otherVersionString:
                at = self._read_packets(data, at, end)
        except SSHProblem as problem:
            self.fail(problem)
        except Exception:  # noqa: BLE001 - the boundary to the peer: the log gets the whole, the peer a sentence
            self.log.failure("an ssh connection broke", event="ssh", addr_remote=self.peer_name())
            self.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"something went wrong here")
        finally:
            self.uncork()
        return end if self.ended else at

    def _read_version(self, data: bytes) -> int:
        at = 0
        while True:
            end = data.find(b"\n", at, at + limits.VERSION_LINE)
            if end < 0:
                if len(data) - at >= limits.VERSION_LINE:
                    raise ProtocolProblem("the version line is too long")
                return at
            line = data[at:end].rstrip(b"\r")
            at = end + 1
            if line.startswith(b"SSH-"):
                break
            self._version_lines += 1
            if not self.isClient or self._version_lines > limits.VERSION_LINES_BEFORE:
                raise ProtocolProblem("this is an SSH server, and that was no SSH version line")
        if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")) or b"\0" in line:
            raise SSHProblem("only SSH 2.0 is spoken here", messages.DISCONNECT_VERSION_NOT_SUPPORTED)
        self.otherVersionString = line
        return at

    def _read_packets(self, data: memoryview, at: int, end: int) -> int:
        while not self.ended:
            sequence = self._in_sequence
            found = self._opener.open(sequence, data, at, end, self._longest)
            if found is None:
                break
            plain, stop = found
            self._bytes_left -= stop - at
            at = stop
            self._in_sequence = (sequence + 1) & _SEQUENCE
            last = len(plain) - plain[0]
            if last < 2 or plain[0] < 4:
                raise ProtocolProblem("a packet has impossible padding")
            number = plain[1]
            if number == messages.CHANNEL_DATA and self._data_received is not None and self.state == states.OPEN:
                self._data_received(plain, last)
            else:
                self._message(number, plain[2:last], sequence)
            self._packets_left -= 1
            if self._bytes_left < 0 or self._packets_left < 0:
                self.rekey()
        return at

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        if self._rekey_call is not None and self._rekey_call.active():
            self._rekey_call.cancel()
        if self._wire is not None:
            self._wire.gone()
        service, self.service, self._data_received = self.service, None, None
        if service is not None:
            service.serviceStopped()
        self._out, self._blocked = [], []

    # -- back-pressure --

    @property
    def congested(self) -> bool:
        """Whether producers should rest: bytes wait for the network, or keys are being exchanged."""
        return self._exchanging or self._wire is None or self._wire.congested

    def choked(self) -> None:
        """The network takes no more for now, or keys are being exchanged."""
        told = getattr(self.service, "sendingPaused", None)
        if told is not None:
            told()

    def drained(self) -> None:
        """The network takes more."""
        if not self.congested and not self.ended:
            told = getattr(self.service, "sendingResumed", None)
            if told is not None:
                told()

    # -- sending --

    def cork(self) -> None:
        """Gather what is sent until :meth:`uncork`."""
        self._corked += 1

    def uncork(self) -> None:
        self._corked -= 1
        if not self._corked and self._out:
            self._flush()

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send one message; during a key exchange everything else waits for its end."""
        if self.ended:
            return
        if self._exchanging and messageType not in _DURING_KEX:
            if len(self._blocked) >= _BLOCKED_MAX:
                self.fail(ProtocolProblem("too much waits for the key exchange to end"))
                return
            self._blocked.append((messageType, payload))
            return
        self._seal(bytes((messageType,)), payload)

    def send_data(self, head: bytes, data: bytes | memoryview) -> None:
        """A message in two parts, its number first in ``head``; only while not :attr:`congested`."""
        if not self.ended:
            self._seal(head, data)

    def _seal(self, head: bytes, body: bytes | memoryview = b"") -> None:
        sequence = self._out_sequence
        size = self._sealer.seal(sequence, self._out, head, body)
        self._out_sequence = (sequence + 1) & _SEQUENCE
        self._out_size += size
        self._bytes_left -= size
        self._packets_left -= 1
        if self._bytes_left < 0 or self._packets_left < 0:
            self.rekey()
        if not self._corked or self._out_size > limits.SEND_BATCH:
            self._flush()

    def _flush(self) -> None:
        out, size = self._out, self._out_size
        self._out, self._out_size = [], 0
        if self._wire is not None and out:
            was = self._wire.congested
            self._wire.send(out, size)
            if self._wire.congested and not was:
                self.choked()

    def sendUnimplemented(self, sequence: int | None = None) -> None:
        if sequence is None:
            sequence = (self._in_sequence - 1) & _SEQUENCE
        self.sendPacket(messages.UNIMPLEMENTED, uint32(sequence))

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Say why, and close."""
        if self.ended:
            return
        self._rekey_never()
        self._seal(bytes((messages.DISCONNECT,)), uint32(reason) + string(desc) + string(b""))
        self._end()

    def _rekey_never(self) -> None:
        self._bytes_left = self._packets_left = 1 << 62

    def _end(self) -> None:
        self.ended = True
        self._flush()
        if self._wire is not None:
            self._wire.close()

    def loseConnection(self) -> None:
        self.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"goodbye")

    def abortConnection(self) -> None:
        """Close without a word and without waiting for unsent bytes."""
        self.ended = True
        if self._wire is not None:
            self._wire.abort()
        elif self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def fail(self, problem: SSHProblem) -> None:
        """End the connection for ``problem``: logged, and told to the peer in a sentence."""
        if not self.ended:
            self.problem(problem)
            self.sendDisconnect(problem.reason, str(problem).encode())

    def problem(self, problem: SSHProblem) -> None:
        """The connection ends for this. Log it."""
        self.log.info("ssh connection ended: {error}", event="ssh", addr_remote=self.peer_name(), error=str(problem))

    # -- messages --

    def _message(self, number: int, body: bytes, sequence: int) -> None:
        if number not in self.legal[self.state]:
            if self.state == states.OPEN and number not in states.KNOWN:
                self.sendUnimplemented(sequence)
                return
            raise ProtocolProblem(f"message {number} came at a moment when it must not")
        if self._strict and self.sessionID is None and number not in states.STRICT:
            raise ProtocolProblem("a message came that strict key exchange does not allow")
        if number == messages.EXT_INFO and not self._ext_info_legal and self.state == states.SERVICE:
            raise ProtocolProblem("extensions came at a moment when they must not")
        if number != messages.NEWKEYS:
            self._ext_info_legal = False
        if messages.USERAUTH_REQUEST <= number <= messages.CHANNEL_FAILURE:
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
        """The peer said why it leaves."""
        self.log.debug("ssh peer left: {code} {text!r}", code=code, text=text)

    def _got_nothing(self, body: bytes) -> None:
        pass

    def _got_ping(self, body: bytes) -> None:
        self.sendPacket(messages.PONG, string(Reader(body).string()))

    def _got_ext_info(self, body: bytes) -> None:
        reader = Reader(body)
        count = reader.uint32()
        if count > _EXTENSIONS_MAX:
            raise ProtocolProblem("too many extensions")
        for _ in range(count):
            name, value = reader.string(), reader.string()
            if name in (b"server-sig-algs", b"ping@openssh.com"):
                self.peer_extensions[name] = value

    # -- key exchange --

    def host_key_algorithms(self) -> tuple[bytes, ...]:
        return self.offered.host_keys

    def rekey(self) -> None:
        """Begin a key exchange, unless one runs."""
        if self._our_kexinit is None and self.sessionID is not None and not self.ended:
            self._send_kexinit()
            self.choked()

    def _renew_allowance(self) -> None:
        self._bytes_left, self._packets_left = self.rekey_bytes, limits.REKEY_PACKETS

    def _send_kexinit(self) -> None:
        first = self.sessionID is None
        self._our_kexinit = kex.make_kexinit(
            self.offered, client=self.isClient, first=first, host_keys=self.host_key_algorithms()
        )
        self._renew_allowance()
        if not first:
            self._call_later(limits.KEX_SECONDS, self._kex_too_slow)
        self._exchanging = True
        self._seal(self._our_kexinit)

    def _kex_too_slow(self) -> None:
        self.fail(ProtocolProblem("the other side does not answer the key exchange"))

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        """The one timer: either for the next key exchange, or for the end of the one that runs."""
        if self._rekey_call is not None and self._rekey_call.active():
            self._rekey_call.cancel()
        self._rekey_call = self.reactor.callLater(seconds, what)

    def _got_kexinit(self, body: bytes) -> None:
        self._state_after = states.SERVICE if self.state == states.START else self.state
        self.state = states.KEYS
        if self._our_kexinit is None:
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

    def kex_agreed(self, agreed: kex.Agreed) -> None:
        """Both KEXINITs are there."""

    def _wrong_guess(self) -> bool:
        drop, self._drop_next_kex = self._drop_next_kex, False
        return drop

    def _hash(self, host_key: bytes, init: bytes, reply: bytes, secret: bytes) -> bytes:
        """H of the key exchange that runs."""
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
        self._seal(bytes((messages.NEWKEYS,)))
        self._sealer = packet.make_sealer(agreed.ciphers[out], agreed.macs[out], derive, letters[out])
        self._next_opener = packet.make_opener(agreed.ciphers[into], agreed.macs[into], derive, letters[into])
        if self._strict:
            self._out_sequence = 0
        self._next_session_id = session_id
        if first:
            self._send_ext_info()
        self._exchanging = False
        blocked, self._blocked = self._blocked, []
        for number, waiting in blocked:
            self.sendPacket(number, waiting)
        if not first:
            self.drained()

    _next_session_id = b""

    def _send_ext_info(self) -> None:
        """A server tells here which signatures it takes."""

    def _got_newkeys(self, body: bytes) -> None:
        if self._next_opener is None or body:
            raise ProtocolProblem("NEWKEYS came at a moment when it must not")
        self._opener, self._next_opener = self._next_opener, None
        if self._strict:
            self._in_sequence = 0
        first, self.sessionID = self.sessionID is None, self._next_session_id
        self.state = self._state_after
        self._our_kexinit = self._peer_kexinit = self._agreed = None
        self._renew_allowance()
        self._ext_info_legal = first
        self.keyExchanges += 1
        self._call_later(self.rekey_seconds, self.rekey)
        if first:
            self.connectionSecure()

    def connectionSecure(self) -> None:
        """The first key exchange has ended."""

    # -- services --

    def setService(self, service: SSHService) -> None:
        """Run ``service`` from now on, in place of the one before."""
        if self.service is not None:
            self.service.serviceStopped()
        self.service = service
        service.transport = self  # type: ignore[assignment]
        service.serviceStarted()

    def authenticated(self, connection: SSHService) -> None:
        """Authentication has succeeded: now, and not before, there is a connection service and packets are long."""
        self.state = states.OPEN
        self._longest = limits.PACKET_MAX
        self.setService(connection)
        self._data_received = getattr(connection, "got_data_packet", None)

    def isEncrypted(self, direction: str = "out") -> bool:
        return self.sessionID is not None

    isVerified = isEncrypted

    def getPeer(self) -> Any:
        return self.transport.getPeer() if self.transport is not None else None

    def getHost(self) -> Any:
        return self.transport.getHost() if self.transport is not None else None

    def peer_name(self) -> str:
        """``host:port`` of the peer, for the log."""
        peer = self.getPeer()
        return f"{peer.host}:{peer.port}" if hasattr(peer, "port") else str(peer)

    def logPrefix(self) -> str:
        return type(self).__name__


def server_extensions() -> bytes:
    """EXT_INFO body of a server (RFC 8308 section 3.1, ping@openssh.com)."""
    entries = (
        string(b"server-sig-algs") + name_list(algorithms.USER_SIGNATURES),
        string(b"ping@openssh.com") + string(b"0"),
    )
    return uint32(len(entries)) + b"".join(entries)
