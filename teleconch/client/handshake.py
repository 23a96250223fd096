"""The lower half of an SSH client's connection without I/O: versions, keys, log-in (RFC 4253, 4252).

``tsh ssh`` has to be up in the time that OpenSSH's client takes, and importing Twisted alone takes longer than that. So
it has a connection of its own, on the same key exchange, packets and signatures (``teleconch.ssh``) as the servers;
``teleconch.ssh.client`` is for everything that runs on a reactor. It is small because it needs little: a certificate is
shown once, one channel is opened (``link``), and whatever the server wants beyond that is refused. What the server may
send when is in ``teleconch.ssh.states``, as for any client; a problem in any state leads to ENDED, and ``problem`` says
why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from teleconch.codec import boolean, string, uint32
from teleconch.errors import AccessDenied, ConnectionProblem, TeleconchError
from teleconch.ssh import algorithms, kex, limits, messages, packet, signatures, states, version
from teleconch.ssh.problems import HostKeyProblem, NegotiationProblem, ProtocolProblem, SSHProblem
from teleconch.ssh.reader import Reader

VERSION: Final = b"SSH-2.0-Teleconch"
ENDED: Final = "ended"
_SEQUENCE: Final = 0xFFFFFFFF
_KEX: Final = frozenset((messages.DISCONNECT, messages.KEXINIT, messages.NEWKEYS, messages.KEX_INIT))


class Handshake(states.Order):
    """A connection as ``user``, up to the moment when channels can be opened. :class:`teleconch.client.link.Link` goes
    on from there. ``clock`` returns seconds that never go back."""

    legal = states.CLIENT

    def __init__(
        self,
        user: str,
        key: Any,
        certificate: bytes,
        verify_host: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem: TeleconchError | None = None
        self.rekey_bytes = limits.REKEY_BYTES
        self.exchanges = 0
        self._user, self._key, self._certificate = user.encode(), key, certificate
        self._server_sig_algs: bytes | None = None
        self._shown = False  # the certificate, with a signature
        self._verify_host = verify_host
        self._offered = algorithms.choose()
        self._out: list[bytes] = [VERSION + b"\r\n"]
        self._left = b""
        self._version = version.PeerVersion(limits.VERSION_LINES_BEFORE)
        self._sealer: packet.Sealer = packet.PlainSealer()
        self._opener: packet.Opener = packet.PlainOpener()
        self._next_opener: packet.Opener | None = None
        self._in_sequence = self._out_sequence = 0
        self._longest = limits.PACKET_MAX_FIRST
        self._state_after = states.SERVICE  # the state that a key exchange leads back to
        self._next_session_id = b""
        self._host_key = b""
        self._kexinit = b""  # ours, from when it is sent until the server's NEWKEYS
        self._server_kexinit = b""
        self._agreed: kex.Agreed | None = None
        self._exchange: kex.ClientExchange | None = None
        self._exchanging = False  # between our KEXINIT and our NEWKEYS
        self._skip_reply = False
        self._blocked: list[tuple[bytes, bytes]] = []
        self._blocked_bytes = 0
        self._bytes = self._packets = 0  # since the last key exchange
        self._clock = clock
        self._exchanged_at = clock()
        self._send_kexinit()

    # --- what the upper half adds ---

    def _logged_in(self) -> None:
        """Channels can be opened."""

    def _keys_changed(self) -> None:
        """A key exchange has ended: what waited for it can be sent."""

    def _gone(self) -> None:
        """The connection has ended. Called once."""

    def _open_message(self, number: int, payload: bytes) -> None:
        """A message of the connection protocol."""
        raise NotImplementedError

    # --- bytes ---

    def take(self) -> bytes:
        """Take what is to be sent to the server now."""
        out, self._out = b"".join(self._out), []
        return out

    def feed(self, data: bytes) -> None:
        """Bytes from the server. A problem ends the connection: see ``state`` and ``problem``."""
        if self.state == ENDED:
            return
        data = self._left + data if self._left else data
        at = 0
        try:
            if not self._version.line:
                at = self._read_version(data)
            if self._version.line:
                at = self._read_packets(memoryview(data), at)
        except SSHProblem as problem:
            self._disconnect(problem.reason, str(problem))
            self.end(ConnectionProblem(f"The SSH connection ended: {problem}."))
        self._left = data[at:] if at < len(data) else b""

    def lost(self) -> None:
        """The connection below is gone."""
        if self.state != ENDED:
            self.end(ConnectionProblem("the server closed the connection."))

    def end(self, problem: TeleconchError | None) -> None:
        """Nothing more goes in or out; the channel closes too."""
        if self.state == ENDED:
            return
        self.state = ENDED
        self.problem = self.problem or problem
        self._gone()

    def goodbye(self) -> None:
        """Say that this is the end."""
        if self.state != ENDED:
            self._disconnect(messages.DISCONNECT_BY_APPLICATION, "goodbye")
            self.state = ENDED

    def _disconnect(self, reason: int, text: str) -> None:
        self._send(bytes((messages.DISCONNECT,)) + uint32(reason) + string(text.encode()) + string(b""))

    def _read_version(self, data: bytes) -> int:
        try:
            return self._version.read(data)
        except SSHProblem as problem:
            raise SSHProblem("this is not a server of SSH 2.0", problem.reason) from None

    def _read_packets(self, view: memoryview, at: int) -> int:
        end = len(view)
        while self.state != ENDED:
            found = self._opener.open(self._in_sequence, view, at, end, self._longest)
            if found is None:
                break
            plain, stop = found
            self._bytes += stop - at
            self._packets += 1
            at = stop
            sequence, self._in_sequence = self._in_sequence, (self._in_sequence + 1) & _SEQUENCE
            last = len(plain) - plain[0]
            if last < 2 or plain[0] < 4:
                raise ProtocolProblem("a packet has impossible padding")
            self._message(plain[1], plain[2:last], sequence)
            if self._bytes > self.rekey_bytes or self._packets > limits.REKEY_PACKETS:
                self.rekey()
        return at if self.state != ENDED else end

    # --- sending ---

    def _send(self, head: bytes, body: bytes = b"") -> None:
        if self.state == ENDED:
            return
        if self._exchanging and head[0] not in _KEX:
            self._blocked_bytes += len(head) + len(body) + limits.PIECE_COST
            if self._blocked_bytes > limits.BLOCKED_BYTES:
                raise ProtocolProblem("too much waits for the key exchange to end")
            self._blocked.append((head, body))
            return
        self._bytes += self._sealer.seal(self._out_sequence, self._out, head, body)
        self._packets += 1
        self._out_sequence = (self._out_sequence + 1) & _SEQUENCE

    # --- what comes ---

    def _message(self, number: int, payload: bytes, sequence: int) -> None:
        if number == messages.CHANNEL_DATA and self.state == states.OPEN:  # nearly all: legal there, so not looked up
            self._open_message(number, payload)
        elif not self.expects(number):
            self._send(bytes((messages.UNIMPLEMENTED,)) + uint32(sequence))
        elif messages.GLOBAL_REQUEST <= number <= messages.CHANNEL_FAILURE:
            self._open_message(number, payload)
        elif number == messages.PING:
            self._send(bytes((messages.PONG,)) + string(Reader(payload).string()))
        elif number == messages.DISCONNECT:
            reader = Reader(payload)
            reader.uint32()
            text = reader.string()[:1000].decode("utf-8", "replace")
            self.end(ConnectionProblem(f"the server closed the connection: {text}."))
        elif number == messages.KEXINIT:
            self._got_kexinit(bytes((number,)) + payload)
        elif number == messages.KEX_REPLY:
            self._got_reply(payload)
        elif number == messages.NEWKEYS:
            self._got_newkeys(payload)
        elif number == messages.EXT_INFO:
            self._server_sig_algs = kex.parse_ext_info(payload).get(b"server-sig-algs", self._server_sig_algs)
        elif number == messages.SERVICE_ACCEPT:
            self._got_service_accept(payload)
        elif messages.USERAUTH_REQUEST <= number < messages.GLOBAL_REQUEST:
            self._auth_message(number, payload)

    # --- key exchange (RFC 4253 section 7) ---

    def rekey(self) -> None:
        """Begin a key exchange, unless one is running."""
        if not self._kexinit and self.sessionID is not None and self.state != ENDED:
            self._send_kexinit()

    def _send_kexinit(self) -> None:
        self._kexinit = kex.make_kexinit(
            self._offered, client=True, first=self.sessionID is None, host_keys=self._offered.host_keys
        )
        self._send(self._kexinit)
        self._exchanging = True

    def _got_kexinit(self, payload: bytes) -> None:
        self._state_after = states.SERVICE if self.state == states.START else self.state
        self.state = states.KEYS
        if not self._kexinit:
            self._send_kexinit()
        self._server_kexinit = payload
        ours, theirs = kex.parse_kexinit(self._kexinit), kex.parse_kexinit(payload)
        if self.sessionID is None:
            self._strict = algorithms.STRICT_SERVER in theirs.kex
            if self._strict and self._in_sequence != 1:
                raise ProtocolProblem("KEXINIT was not the first packet, as strict key exchange asks")
        self._agreed = kex.agree(ours, theirs, peer_is_client=False, strict=self._strict)
        self._skip_reply = self._agreed.guess_wrong
        self._exchange = kex.ClientExchange(self._agreed.kex)
        self._send(bytes((messages.KEX_INIT,)) + string(self._exchange.init))

    def _got_reply(self, payload: bytes) -> None:
        if self._skip_reply:
            self._skip_reply = False
            return
        exchange, agreed = self._exchange, self._agreed
        assert exchange is not None
        assert agreed is not None
        self._exchange = None
        reader = Reader(payload)
        blob, reply, signature = reader.string(), reader.string(), reader.string()
        reader.end()
        secret = exchange.secret(reply)
        digest = kex.exchange_hash(
            agreed.kex,
            (VERSION, self._version.line),
            (self._kexinit, self._server_kexinit),
            blob,
            exchange.init,
            reply,
            secret,
        )
        if not signatures.verify(blob, signature, digest, agreed.host_key):
            raise NegotiationProblem("the server's signature is wrong")
        self._check_host(blob)
        self.state = states.NEW
        self._next_session_id = self.sessionID or digest
        derive = kex.KeyMaterial(agreed.kex, secret, digest, self._next_session_id)
        self._send(bytes((messages.NEWKEYS,)))
        self._sealer = packet.make_sealer(agreed.ciphers[0], agreed.macs[0], derive, b"ACE")
        self._next_opener = packet.make_opener(agreed.ciphers[1], agreed.macs[1], derive, b"BDF")
        if self._strict:
            self._out_sequence = 0
        self._exchanging = False
        self._bytes = self._packets = 0
        self._exchanged_at = self._clock()
        blocked, self._blocked, self._blocked_bytes = self._blocked, [], 0
        for head, body in blocked:
            self._send(head, body)

    def _check_host(self, blob: bytes) -> None:
        """Each key that the server proves must be accepted; most servers keep theirs, so it is checked only once."""
        if blob == self._host_key:
            return
        try:
            self._verify_host(blob)
        except TeleconchError as error:
            self.problem = error
            raise HostKeyProblem("the host key was not accepted") from error
        self._host_key = blob

    def _got_newkeys(self, payload: bytes) -> None:
        if self._next_opener is None or payload:
            raise ProtocolProblem("NEWKEYS came before there were any")
        self._opener, self._next_opener = self._next_opener, None
        if self._strict:
            self._in_sequence = 0
        self._kexinit = self._server_kexinit = b""
        self._agreed = None
        first, self.sessionID = self.sessionID is None, self._next_session_id
        self.state = self._state_after
        self.exchanges += 1
        if first:
            self._ext_info_legal = True
            self._longest = limits.PACKET_MAX_EARLY
            self._log_in()
        self._keys_changed()

    # --- authentication (RFC 4252 section 7) ---

    def _log_in(self) -> None:
        """Send service and signature in one go: a server reads them in order, and a round trip is saved. The server
        says which signature an RSA key must make, and has said it by the time it gives the service."""
        names = signatures.algorithms_for(self._certificate, None)
        if not names:
            raise NegotiationProblem("your key is of a kind that is not used here")
        self._send(bytes((messages.SERVICE_REQUEST,)) + string(b"ssh-userauth"))
        if len(names) == 1:
            self._show_certificate(names[0])

    def _got_service_accept(self, payload: bytes) -> None:
        if Reader(payload).string() != b"ssh-userauth":
            raise ProtocolProblem("a service was given that nobody asked for")
        self.state = states.AUTH
        if not self._shown:
            self._show_certificate(signatures.algorithms_for(self._certificate, self._server_sig_algs)[0])

    def _show_certificate(self, algorithm: bytes) -> None:
        assert self.sessionID is not None
        self._shown = True
        request = b"".join(
            (
                string(self._user),
                string(b"ssh-connection"),
                string(b"publickey"),
                boolean(True),
                string(algorithm),
                string(self._certificate),
            )
        )
        number = bytes((messages.USERAUTH_REQUEST,))
        signature = signatures.sign(self._key, string(self.sessionID) + number + request, algorithm)
        self._send(number + request, string(signature))

    def _auth_message(self, number: int, payload: bytes) -> None:
        if number == messages.USERAUTH_SUCCESS:
            self.state, self.entered = states.OPEN, True
            self._longest = limits.PACKET_MAX
            self._logged_in()
        elif number == messages.USERAUTH_FAILURE:
            login = self._user.decode(errors="replace")
            self._disconnect(messages.DISCONNECT_BY_APPLICATION, "goodbye")
            self.end(
                AccessDenied(
                    f"the server did not let {login} in. Log in again with `tsh login --force`, and check that"
                    f" {login} is one of your logins."
                )
            )
        elif number == messages.USERAUTH_BANNER:
            Reader(payload).string()
        else:
            raise ProtocolProblem("that is no message for authentication")
