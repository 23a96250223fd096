"""The transport layer (RFC 4253): version lines, packets, key exchange, services.

Conch's packet path is replaced as a whole: it knows no strict key exchange, AEAD, re-keying or limits, and copies its
buffer for every read. Conch's services (``SSHService``) run on this transport as on Conch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.ssh import algorithms, kex, limits, messages, packet
from teleconch.ssh.algorithms import Algorithms
from teleconch.ssh.codec import Reader, name_list, string, uint32
from teleconch.ssh.problems import ProtocolProblem, SSHProblem

if TYPE_CHECKING:
    from twisted.conch.ssh.service import SSHService
    from twisted.internet.interfaces import IDelayedCall

VERSION: Final = b"Teleconch"
_SEQUENCE: Final = 0xFFFFFFFF
# What may be sent between our KEXINIT and our NEWKEYS (RFC 4253 section 7.1).
_DURING_KEX: Final = frozenset(
    (messages.DISCONNECT, messages.KEXINIT, messages.NEWKEYS, messages.KEX_INIT, messages.KEX_REPLY)
)
_BLOCKED_MAX: Final = 4096  # small messages held back while keys are exchanged


class SSHTransport(Protocol):
    """What client and server share. ``reactor`` gives time; services get payloads of messages 50 and up."""

    isClient: ClassVar[bool]
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
        self._gone = False
        self._in = bytearray()
        self._out: list[bytes] = []
        self._corked = False
        self._opener: packet.Opener = packet.PlainOpener()
        self._sealer: packet.Sealer = packet.PlainSealer()
        self._in_sequence = self._out_sequence = 0
        self._strict = False
        self._longest = limits.PACKET_MAX_EARLY
        self._blocked: list[tuple[int, bytes]] = []
        self._our_kexinit: bytes | None = None  # set while a key exchange runs that we have announced
        self._peer_kexinit: bytes | None = None
        self._agreed: kex.Agreed | None = None
        self._next_opener: packet.Opener | None = None
        self._next_sealer: packet.Sealer | None = None
        self._drop_next_kex = False
        self._first_kex_done = False
        self._version_lines = 0
        self._in_bytes = self._out_bytes = 0
        self._in_packets = self._out_packets = 0
        self._rekey_call: IDelayedCall | None = None
        self.rekey_bytes = limits.REKEY_BYTES
        self.rekey_seconds = limits.REKEY_SECONDS
        self.keyExchanges = 0  # how many have ended

    # -- the connection below --

    def connectionMade(self) -> None:
        transport = self._transport()
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            if hasattr(transport, option):
                getattr(transport, option)(True)
        if hasattr(transport, "registerProducer"):
            transport.registerProducer(self, True)
        transport.write(self.ourVersionString + b"\r\n")
        self._send_kexinit()

    def _transport(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        if self.ended:
            return
        buffer = self._in
        buffer += data
        self._corked = True
        try:
            if not self.otherVersionString and not self._read_version():
                return
            self._read_packets()
        except SSHProblem as problem:
            self._fail(problem)
        finally:
            self._corked = False
            self._flush()

    def _read_version(self) -> bool:
        while True:
            end = self._in.find(b"\n", 0, limits.VERSION_LINE + 1)
            if end < 0:
                if len(self._in) > limits.VERSION_LINE:
                    raise ProtocolProblem("the version line is too long")
                return False
            line = bytes(self._in[:end]).rstrip(b"\r")
            del self._in[: end + 1]
            if line.startswith(b"SSH-"):
                break
            self._version_lines += 1
            if not self.isClient or self._version_lines > limits.VERSION_LINES_BEFORE:
                raise ProtocolProblem("this is an SSH server, and that was no SSH version line")
        if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")) or b"\0" in line:
            raise SSHProblem("only SSH 2.0 is spoken here", messages.DISCONNECT_VERSION_NOT_SUPPORTED)
        self.otherVersionString = line
        return True

    def _read_packets(self) -> None:
        buffer, at = self._in, 0
        try:
            while not self.ended:
                found = self._opener.open(self._in_sequence, buffer, at, self._longest)
                if found is None:
                    break
                payload, end = found
                self._in_bytes += end - at
                self._in_packets += 1
                at = end
                sequence = self._in_sequence
                self._in_sequence = (sequence + 1) & _SEQUENCE
                if self._in_sequence == 0 and not self._first_kex_done:
                    raise ProtocolProblem("too many packets before the first key exchange")
                self._message(payload[0], payload, sequence)
        finally:
            del buffer[:at]
        if self._in_bytes >= self.rekey_bytes or self._in_packets >= limits.REKEY_PACKETS:
            self.rekey()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = self._gone = True
        if self._rekey_call is not None and self._rekey_call.active():
            self._rekey_call.cancel()
        self._rekey_call = None
        service, self.service = self.service, None
        if service is not None:
            service.serviceStopped()
        self._in = bytearray()
        self._out = []
        self._blocked = []

    # -- back-pressure from the connection below --

    @property
    def congested(self) -> bool:
        """Whether producers should rest: bytes wait to be taken by the network, or keys are being exchanged."""
        return self._paused or (self._our_kexinit is not None and self._first_kex_done)

    _paused = False

    def pauseProducing(self) -> None:
        self._paused = True
        self._tell_service("sendingPaused")

    def resumeProducing(self) -> None:
        self._paused = False
        if not self.congested:
            self._tell_service("sendingResumed")

    def stopProducing(self) -> None:
        self._paused = True

    def _tell_service(self, what: str) -> None:
        told = getattr(self.service, what, None)
        if told is not None:
            told()

    # -- sending --

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send one message; during a key exchange everything else waits for its end."""
        if self.ended:
            return
        if self._our_kexinit is not None and messageType not in _DURING_KEX:
            if len(self._blocked) >= _BLOCKED_MAX:
                self._fail(ProtocolProblem("too much waits for the key exchange to end"))
                return
            self._blocked.append((messageType, payload))
            return
        self._seal(b"%c%b" % (messageType, payload))
        if not self._corked:
            self._flush()

    def _seal(self, payload: bytes) -> None:
        data = self._sealer.seal(self._out_sequence, payload)
        self._out_sequence = (self._out_sequence + 1) & _SEQUENCE
        self._out.append(data)
        self._out_bytes += len(data)
        self._out_packets += 1
        if self._out_bytes >= self.rekey_bytes or self._out_packets >= limits.REKEY_PACKETS:
            self.rekey()

    def _flush(self) -> None:
        if self._out and not self._gone:
            out, self._out = self._out, []
            self._transport().write(b"".join(out) if len(out) > 1 else out[0])

    def sendUnimplemented(self, sequence: int | None = None) -> None:
        if sequence is None:
            sequence = (self._in_sequence - 1) & _SEQUENCE
        self.sendPacket(messages.UNIMPLEMENTED, uint32(sequence))

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Say why, and close."""
        if self.ended:
            return
        self.sendPacket(messages.DISCONNECT, uint32(reason) + string(desc) + string(b""))
        self._flush()
        self.ended = True
        self._transport().loseConnection()

    def loseConnection(self) -> None:
        self.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"goodbye")

    def abortConnection(self) -> None:
        """Close without a word and without waiting for unsent bytes."""
        self.ended = True
        transport = self._transport()
        if hasattr(transport, "abortConnection"):
            transport.abortConnection()
        else:
            transport.loseConnection()

    def _fail(self, problem: SSHProblem) -> None:
        self.problem(problem)
        self.sendDisconnect(problem.reason, str(problem).encode())

    def problem(self, problem: SSHProblem) -> None:
        """The connection ends for this. Log it."""
        self.log.info("ssh connection ended: {error}", event="ssh", addr_remote=str(self.getPeer()), error=str(problem))

    # -- messages --

    def _message(self, number: int, payload: bytes, sequence: int) -> None:
        if (
            not self._first_kex_done
            and self._strict
            and number
            not in (
                messages.KEXINIT,
                messages.KEX_INIT,
                messages.KEX_REPLY,
                messages.NEWKEYS,
                messages.DISCONNECT,
            )
        ):
            raise ProtocolProblem("a message came that strict key exchange does not allow")
        if number >= messages.USERAUTH_REQUEST and number not in (messages.PING, messages.PONG):
            if not self._first_kex_done or self._peer_kexinit is not None or self.service is None:
                raise ProtocolProblem("a message came at a moment when it must not")
            self.service.packetReceived(number, payload[1:])
            return
        known = self._MESSAGES.get(number)
        if known is None:
            self.sendUnimplemented(sequence)
            return
        getattr(self, known)(payload)

    _MESSAGES: ClassVar[dict[int, str]] = {
        messages.DISCONNECT: "_got_disconnect",
        messages.IGNORE: "_got_nothing",
        messages.UNIMPLEMENTED: "_got_nothing",
        messages.DEBUG: "_got_nothing",
        messages.EXT_INFO: "_got_ext_info",
        messages.KEXINIT: "_got_kexinit",
        messages.NEWKEYS: "_got_newkeys",
        messages.PING: "_got_ping",
    }

    def _got_disconnect(self, payload: bytes) -> None:
        reader = Reader(payload, 1)
        code, text = reader.uint32(), reader.string()
        self.peerDisconnected(code, text[:255].decode("utf-8", "replace"))
        self.ended = True
        self._transport().loseConnection()

    def peerDisconnected(self, code: int, text: str) -> None:
        """The peer said why it leaves."""
        self.log.debug("ssh peer left: {code} {text!r}", code=code, text=text)

    def _got_nothing(self, payload: bytes) -> None:
        pass

    def _got_ping(self, payload: bytes) -> None:
        self.sendPacket(messages.PONG, string(Reader(payload, 1).string()))

    def _got_ext_info(self, payload: bytes) -> None:
        reader = Reader(payload, 1)
        count = reader.uint32()
        if count > 64:
            raise ProtocolProblem("too many extensions")
        for _ in range(count):
            name = reader.string()
            self.peer_extensions[name] = reader.string()

    # -- key exchange --

    def host_key_algorithms(self) -> tuple[bytes, ...]:
        return self.offered.host_keys

    def rekey(self) -> None:
        """Begin a key exchange, unless one runs."""
        if self._our_kexinit is None and self._first_kex_done and not self.ended:
            self._send_kexinit()
            self._tell_service("sendingPaused")

    def _send_kexinit(self) -> None:
        self._our_kexinit = kex.make_kexinit(
            self.offered, client=self.isClient, first=not self._first_kex_done, host_keys=self.host_key_algorithms()
        )
        self._in_bytes = self._out_bytes = self._in_packets = self._out_packets = 0
        self._seal(self._our_kexinit)
        if not self._corked:
            self._flush()

    def _got_kexinit(self, payload: bytes) -> None:
        if self._peer_kexinit is not None:
            raise ProtocolProblem("a key exchange began within another")
        if self._our_kexinit is None:
            self._send_kexinit()
            self._tell_service("sendingPaused")
        assert self._our_kexinit is not None
        self._peer_kexinit = payload
        ours, theirs = kex.parse_kexinit(self._our_kexinit), kex.parse_kexinit(payload)
        if not self._first_kex_done:
            mark = algorithms.STRICT_SERVER if self.isClient else algorithms.STRICT_CLIENT
            self._strict = mark in theirs.kex
            self._peer_takes_ext_info = (
                algorithms.EXT_INFO_SERVER if self.isClient else algorithms.EXT_INFO_CLIENT
            ) in theirs.kex
            if self._strict and self._in_sequence != 1:
                raise ProtocolProblem("KEXINIT was not the first packet, as strict key exchange asks")
        client, server = (ours, theirs) if self.isClient else (theirs, ours)
        self._agreed = kex.agree(client, server, peer_is_client=not self.isClient)
        self._drop_next_kex = self._agreed.guess_wrong
        self.kex_agreed(self._agreed)

    _peer_takes_ext_info = False

    def kex_agreed(self, agreed: kex.Agreed) -> None:
        """Both KEXINITs are there."""

    def _wrong_guess(self) -> bool:
        drop, self._drop_next_kex = self._drop_next_kex, False
        return drop

    def _versions(self) -> tuple[bytes, bytes]:
        ours, theirs = self.ourVersionString, self.otherVersionString
        return (ours, theirs) if self.isClient else (theirs, ours)

    def _kexinits(self) -> tuple[bytes, bytes]:
        assert self._our_kexinit is not None
        assert self._peer_kexinit is not None
        ours, theirs = self._our_kexinit, self._peer_kexinit
        return (ours, theirs) if self.isClient else (theirs, ours)

    def _keys_made(self, secret: bytes, digest: bytes) -> None:
        """K and H are known and H's signature is good: send NEWKEYS and seal with the new keys from now on."""
        agreed = self._agreed
        assert agreed is not None
        if self.sessionID is None:
            self.sessionID = digest
        derive = kex.KeyMaterial(secret, digest, self.sessionID)
        to_server, to_client = b"ACE", b"BDF"
        out, into = (0, 1) if self.isClient else (1, 0)
        letters = (to_server, to_client)
        self._seal(bytes((messages.NEWKEYS,)))
        self._sealer = packet.make_sealer(agreed.ciphers[out], agreed.macs[out], derive, letters[out])
        self._next_opener = packet.make_opener(agreed.ciphers[into], agreed.macs[into], derive, letters[into])
        if self._strict:
            self._out_sequence = 0
        if not self._first_kex_done:
            self._send_ext_info()

    def _send_ext_info(self) -> None:
        pass

    def _got_newkeys(self, payload: bytes) -> None:
        if self._next_opener is None or len(payload) != 1:
            raise ProtocolProblem("NEWKEYS came before there were any")
        self._opener, self._next_opener = self._next_opener, None
        if self._strict:
            self._in_sequence = 0
        self._our_kexinit = self._peer_kexinit = self._agreed = None
        first, self._first_kex_done = not self._first_kex_done, True
        self.keyExchanges += 1
        if self._rekey_call is not None and self._rekey_call.active():
            self._rekey_call.cancel()
        self._rekey_call = self.reactor.callLater(self.rekey_seconds, self.rekey)
        blocked, self._blocked = self._blocked, []
        for number, waiting in blocked:
            self.sendPacket(number, waiting)
        if first:
            self.connectionSecure()
        elif not self.congested:
            self._tell_service("sendingResumed")

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

    def authenticated(self) -> None:
        """Authentication has succeeded: full-size packets from now on."""
        self._longest = limits.PACKET_MAX

    def isEncrypted(self, direction: str = "out") -> bool:
        return self._first_kex_done

    def isVerified(self, direction: str = "out") -> bool:
        return self._first_kex_done

    def getPeer(self) -> Any:
        return self._transport().getPeer()

    def getHost(self) -> Any:
        return self._transport().getHost()

    def logPrefix(self) -> str:
        return type(self).__name__


def server_sig_algs() -> bytes:
    """EXT_INFO payload of a server (RFC 8308, ping@openssh.com)."""
    entries = (
        string(b"server-sig-algs") + name_list(algorithms.USER_SIGNATURES),
        string(b"ping@openssh.com") + string(b"0"),
    )
    return uint32(len(entries)) + b"".join(entries)
