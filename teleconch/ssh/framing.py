"""Version lines and packets over a wire (RFC 4253 sections 4.2 and 6), and back-pressure from it.

Every byte takes this path. Conch's own is replaced as a whole: it copies its buffer for every read, and knows no AEAD,
no EtM and no limits. There is no Twisted here, nor I/O: see ``conch`` and ``teleconch.client.road``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from teleconch.codec import string, uint32
from teleconch.ssh import limits, messages, packet
from teleconch.ssh.account import Account
from teleconch.ssh.problems import ProtocolProblem, SSHProblem
from teleconch.ssh.version import PeerVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from teleconch.ssh.carrier import Log

_SEQUENCE: Final = 0xFFFFFFFF
_PACKETS_A_READ: Final = 256
_READ_SMALL: Final = 16 * 1024
_READ_SIZE: Final = limits.READ_SIZE


class Wire(Protocol):
    """What packets go over. It gives what comes to :meth:`PacketStream.received`."""

    read_size: int
    unsent: int  # bytes that the network has not taken yet
    congested: bool

    def send(self, buffers: list[bytes], size: int) -> None: ...
    def stop_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...

    def gone(self) -> None:
        """Nothing comes or goes any more."""


class PacketStream:
    """Sends and receives packets; their meaning is left to :class:`teleconch.ssh.transport.SSHTransport`."""

    isClient: ClassVar[bool]
    log: Log

    def __init__(self, reactor: Any, version: bytes) -> None:
        self.reactor = reactor
        self.ourVersionString = b"SSH-2.0-" + version
        self.otherVersionString = b""
        self.ended = False
        self.rekey_bytes = limits.REKEY_BYTES
        self._wire: Wire | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._corked = 0
        self._opener: packet.Opener = packet.PlainOpener()
        self._sealer: packet.Sealer = packet.PlainSealer()
        self._in_sequence = self._out_sequence = 0
        self._bytes_left = self._packets_left = 0  # until the next re-key
        self._longest = limits.PACKET_MAX_FIRST
        self.account = Account(limits.EARLY_BUDGET)
        self._unsent_charged = 0  # taken from the account for what the network has not taken
        self._version = PeerVersion(limits.VERSION_LINES_BEFORE if self.isClient else 0)
        self._data_received: Callable[[bytes, int], None] | None = None  # where CHANNEL_DATA goes, once it may come

    # -- for the transport layer --

    def begin(self) -> None:
        """The wire is ready."""

    def rekey(self) -> None:
        """Begin a key exchange, unless one is running."""

    def version_read(self) -> None:
        """The peer's version line has come."""

    def message(self, number: int, body: bytes, sequence: int) -> None:
        """A message came."""

    def choked(self) -> None:
        """The network takes no more for now."""

    def drained(self) -> None:
        """The network takes more."""

    # -- the connection below --

    def start(self, wire: Wire) -> None:
        """The connection below is there: begin to speak."""
        self._wire = wire
        wire.read_size = _READ_SMALL
        line = self.ourVersionString + b"\r\n"
        self._out.append(line)
        self._out_size = len(line)
        self.renew_allowance()
        self.begin()

    def received(self, data: memoryview, end: int) -> int:
        """Use what is complete in ``data[:end]``; returns how much that was."""
        if self.ended:
            return end
        at = 0
        self._corked += 1
        try:
            if not self.otherVersionString:
                at = self._version.read(bytes(data[:end]))
                if self._version.line:
                    self.otherVersionString = self._version.line
                    self.version_read()
            if self.otherVersionString:
                at = self._read_packets(data, at, end)
        except SSHProblem as problem:
            self.fail(problem)
        except Exception:  # noqa: BLE001 - the boundary to the peer: the log gets all of it, the peer a sentence
            self.log.failure("an ssh connection broke", addr_remote=self.peer_name())
            self.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"something went wrong here")
        finally:
            self._corked -= 1
            if self._out and not self._corked:
                self._flush()
        return end if self.ended else at

    def _read_packets(self, data: memoryview, at: int, end: int) -> int:
        begin, count = at, 0
        while at < end and not self.ended:
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
            if number == messages.CHANNEL_DATA and self._data_received is not None:
                self._data_received(plain, last)
            else:
                self.message(number, plain[2:last], sequence)
            self._packets_left -= 1
            if self._bytes_left < 0 or self._packets_left < 0:
                self.rekey()
            count += 1
        wire = self._wire
        if wire is not None and (end >= _READ_SMALL or wire.read_size != _READ_SMALL):
            self._suit_reads(wire, at - begin, count)
        return at

    def _suit_reads(self, wire: Wire, size: int, count: int) -> None:
        """Read about as much at a time as a few hundred packets of this size: a flood of tiny ones stalls no one
        else."""
        wanted = size // count * _PACKETS_A_READ if count else wire.read_size * 2
        wire.read_size = min(max(wanted, _READ_SMALL), _READ_SIZE)

    def lost(self) -> None:
        """The connection below is gone."""
        self.ended = True
        if self._wire is not None:
            self._wire.gone()
        self._unsent_gone()
        self._out = []

    # -- sending --

    def cork(self) -> None:
        """Gather what is sent until :meth:`uncork`."""
        self._corked += 1

    def uncork(self) -> None:
        self._corked -= 1
        if not self._corked and self._out:
            self._flush()

    def seal(self, head: bytes, body: bytes | memoryview = b"") -> None:
        """Send one message, its number first in ``head``, even during a key exchange. Data only while not
        ``congested``."""
        if self.ended:
            return
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
            if self._wire.congested:
                self._charge_unsent(self._wire)
                if not was:
                    self.choked()

    def _charge_unsent(self, wire: Wire) -> None:
        more = wire.unsent - self._unsent_charged
        if self.account.take(more, spare=True):
            self._unsent_charged += more
        else:
            wire.stop_reading()  # a peer that asks without reading our answers

    def _unsent_gone(self) -> None:
        """The network has taken all that was sent, or never will."""
        self.account.give(self._unsent_charged)
        self._unsent_charged = 0

    def renew_allowance(self) -> None:
        """Restart the count of what may go under one set of keys."""
        self._bytes_left, self._packets_left = self.rekey_bytes, limits.REKEY_PACKETS

    # -- the end --

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Say why, and close. A peer that has not said that it speaks SSH gets a line of text, as from sshd."""
        if self.ended:
            return
        self._rekey_never()
        if self.otherVersionString:
            self.seal(bytes((messages.DISCONNECT,)), uint32(reason) + string(desc) + string(b""))
        elif not self.isClient:
            self._out.append(desc + b"\r\n")
            self._out_size += len(desc) + 2
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

    def fail(self, problem: SSHProblem) -> None:
        """End the connection for ``problem``: logged, and told to the peer in a sentence."""
        if not self.ended:
            self.problem(problem)
            self.sendDisconnect(problem.reason, str(problem).encode())

    def problem(self, problem: SSHProblem) -> None:
        """The connection ends for this. Log it."""
        self.log.info("ssh connection ended: {error}", addr_remote=self.peer_name(), error=str(problem))

    def peer_name(self) -> str:
        """``host:port`` of the peer, for the log."""
        return ""
