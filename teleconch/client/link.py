"""An SSH client's connection without I/O, with one channel (RFC 4254): that of ``tsh ssh``.

``tsh ssh`` has to be up in the time that OpenSSH's client takes, and importing Twisted alone takes longer than that. So
it runs the client of ``teleconch.ssh`` without Twisted: the same transport and log-in as everywhere, upon bytes that
``road`` carries. Its own is only what is here: one channel, and a refusal of whatever else the server wants.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol

from teleconch.codec import boolean, string, uint32
from teleconch.errors import ConnectionProblem, TeleconchError
from teleconch.ssh import algorithms, limits, messages, signatures
from teleconch.ssh.auth_client import Signer, UserAuthClient
from teleconch.ssh.client_transport import ClientTransport
from teleconch.ssh.problems import NegotiationProblem, ProtocolProblem, SSHProblem
from teleconch.ssh.reader import Reader

__all__ = ["ENDED", "ChannelUser", "Link", "SessionLink"]

ENDED: Final = "ended"
WINDOW: Final = limits.CHANNEL_WINDOW
_CHANNEL: Final = 0  # the number of our one channel
_DATA_AT: Final = 10  # where data begins in a packet: after padding length, number, channel and size
_TWO: Final = Struct(">II")
_DATA: Final = Struct(">BII")


def _not_there() -> ProtocolProblem:
    return ProtocolProblem("a message came for a channel that is not there")


def _not_open() -> ProtocolProblem:
    return ProtocolProblem("a message came for a channel that is not open")


class SessionLink(Protocol):
    """What a session sends by: the one channel of a :class:`Link`, or one of several on a reactor's connection."""

    def write(self, data: bytes) -> None:
        """Send data, as far as the node's window reaches; the rest waits."""

    def write_eof(self) -> None:
        """No more data comes after what was written."""

    def close(self) -> None:
        """Close the channel after what was written."""

    def credit(self, count: int) -> None:
        """``count`` bytes of the channel's data were consumed: as much may come again."""

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        """A channel request; the answer comes as :meth:`ChannelUser.answered`."""

    def rekey(self) -> None:
        """Change the keys of the connection."""

    def ways(self) -> list[str]:
        """What goes through the connection, a line each."""


class ChannelUser:
    """What the one channel tells. Every call comes out of :meth:`Link.feed`."""

    def opened(self, link: Any) -> None:
        """It may be written to, by ``link``. The first call, unless it is refused."""

    def refused(self, sentence: str) -> None:
        """The server does not open it."""

    def data(self, data: bytes) -> None:
        """From the server; call :meth:`Link.credit` for what was consumed."""

    def error_data(self, data: bytes) -> None:
        """The same for standard error."""

    def request(self, name: bytes, data: bytes) -> None:
        """``exit-status`` and the like."""

    def answered(self, success: bool) -> None:
        """The answer to the oldest request that wanted one."""

    def eof(self) -> None:
        """No more data comes."""

    def closed(self) -> None:
        """No more data or requests will come."""


class _NoLog:
    """There is no log: what went wrong is told to the user."""

    def debug(self, format: str, **fields: Any) -> None:
        """Nobody reads it."""

    info = warn = debug

    def failure(self, format: str, **fields: Any) -> None:
        """Let the exception that is being handled go on to whoever called."""
        raise


class _Wire:
    """What is to be sent waits here until it is taken. ``over`` is called when nothing more comes or goes."""

    unsent = 0
    congested = False  # the reader of standard input asks how much waits

    def __init__(self, over: Callable[[], None]) -> None:
        self.read_size = 0  # without effect: others read
        self.out: list[bytes] = []
        self.gone = self.close = self.abort = over

    def send(self, buffers: list[bytes], size: int) -> None:
        self.out += buffers

    def stop_reading(self) -> None:
        """Never asked for: nothing is congested."""


class _Transport(ClientTransport):
    """Logs in to a server with one certificate, and then runs ``link``."""

    log = _NoLog()

    def __init__(
        self,
        link: Link,
        user: str,
        signer: Signer,
        verify_host: Callable[[bytes], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(None, algorithms.choose(), verify_host)
        denied = (
            f"the server did not let {user} in. Log in again with `tsh login --force`, and check that {user} is one of"
            " your logins."
        )
        self.auth = UserAuthClient(user, [signer], lambda: self.let_in(link), self._refused, denied)
        self._signer = signer
        self._clock = clock
        self._due: tuple[float, Callable[[], None]] | None = None

    def connectionSecure(self) -> None:
        if not signatures.algorithms_for(self._signer.blob, None):
            raise NegotiationProblem("your key is of a kind that is not used here")
        super().connectionSecure()
        self.auth.show_early(self)

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        self._due = (self._clock() + seconds, what)

    def pass_time(self) -> None:
        """Do what is due."""
        if self._due is not None and self._clock() > self._due[0]:
            due, self._due = self._due[1], None
            due()

    def problem(self, problem: SSHProblem) -> None:
        if not self.otherVersionString:
            problem = SSHProblem("this is not a server of SSH 2.0", problem.reason)
        super().problem(problem)

    def peerDisconnected(self, code: int, text: str) -> None:
        self.why = self.why or ConnectionProblem(f"the server closed the connection: {text}.")


class Link:
    """A connection as ``user``. ``kind`` and ``target`` say which channel to open once the user is logged in,
    ``window`` how many bytes may be on their way from the server. ``clock`` returns seconds that never go back.

    A problem in any state leads to ENDED, and ``problem`` says why.
    """

    transport: _Transport

    def __init__(
        self,
        user: str,
        key: Any,
        certificate: bytes,
        verify_host: Callable[[bytes], None],
        channel: ChannelUser,
        kind: bytes,
        target: bytes = b"",
        window: int = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel, self._kind, self._target = channel, kind, target
        self._remote: int | None = None
        self._window_out = self._packet_out = 0
        self._window = self._window_in = window
        self._uncredited = 0
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._answers = 0
        self._pings = 0
        self._eof_received = self._closed = False
        self._eof_wanted = self._eof_sent = self._close_wanted = self._close_sent = False
        self._left = b""
        self._wire = _Wire(self._over)
        self.transport = _Transport(self, user, Signer.of(key, certificate), verify_host, clock)
        self.transport.start(self._wire)

    # --- the connection as a whole ---

    @property
    def state(self) -> str:
        """One of ``teleconch.ssh.states``, or ENDED."""
        return ENDED if self.transport.ended else self.transport.state

    @property
    def problem(self) -> TeleconchError | None:
        """What ended it."""
        return self.transport.why

    @property
    def entered(self) -> bool:
        """Whether the user is logged in."""
        return self.transport.entered

    @property
    def exchanges(self) -> int:
        """How many key exchanges there were."""
        return self.transport.keyExchanges

    def take(self) -> bytes:
        """Take what is to be sent to the server now."""
        out, self._wire.out = b"".join(self._wire.out), []
        return out

    def feed(self, data: bytes) -> None:
        """Bytes from the server. A problem ends the connection: see ``state`` and ``problem``."""
        if self._left:
            data = self._left + data
        used = self.transport.received(memoryview(data), len(data))
        self._left = data[used:] if used < len(data) else b""

    def lost(self) -> None:
        """The connection below is gone."""
        self.end(ConnectionProblem("the server closed the connection."))

    def end(self, problem: TeleconchError) -> None:
        """Nothing more goes in or out; the channel closes too."""
        if not self.transport.ended:
            self.transport.why = self.transport.why or problem
            self.transport.abortConnection()

    def goodbye(self) -> None:
        """Say that this is the end."""
        self._closed = True
        self.transport.loseConnection()

    def rekey(self) -> None:
        """Change the keys of the connection."""
        self.transport.rekey()

    def _over(self) -> None:
        if not self._closed:
            self._closed = True
            self._channel.closed()

    # --- a service of the transport ---

    def serviceStarted(self) -> None:
        numbers = uint32(_CHANNEL) + uint32(self._window) + uint32(limits.CHANNEL_PACKET)
        self.transport.sendPacket(messages.CHANNEL_OPEN, string(self._kind) + numbers + self._target)

    def serviceStopped(self) -> None:
        """The wire has told already."""

    def sendingResumed(self) -> None:
        self._flush()

    # --- what comes ---

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        number, payload = messageNum, packet
        if number == messages.GLOBAL_REQUEST:
            reader = Reader(payload)
            reader.string()
            if reader.boolean():
                self.transport.sendPacket(messages.REQUEST_FAILURE, b"")
        elif number in (messages.REQUEST_SUCCESS, messages.REQUEST_FAILURE):
            if not self._pings:
                raise ProtocolProblem("an answer came to no question")
            self._pings -= 1
        elif number == messages.CHANNEL_OPEN:
            reader = Reader(payload)
            reader.string()
            sender, _window, _max_packet = reader.uint32(), reader.uint32(), reader.uint32()
            why = _TWO.pack(sender, messages.OPEN_ADMINISTRATIVELY_PROHIBITED) + string(b"not here") + string(b"")
            self.transport.sendPacket(messages.CHANNEL_OPEN_FAILURE, why)
        else:
            self._channel_message(number, Reader(payload))

    def got_data_packet(self, plain: bytes, last: int) -> None:
        """CHANNEL_DATA as it came out of the cipher: nearly all that comes."""
        if last < _DATA_AT:
            raise ProtocolProblem("a message ends too early")
        number, size = _TWO.unpack_from(plain, 2)
        if number != _CHANNEL or self._closed:
            raise _not_there()
        if self._remote is None:
            raise _not_open()
        if size != last - _DATA_AT:
            raise ProtocolProblem("a message is not as long as its fields")
        self._got_data(plain[_DATA_AT:last], self._channel.data)

    def _channel_message(self, number: int, reader: Reader) -> None:
        if reader.uint32() != _CHANNEL or self._closed:
            raise _not_there()
        if number == messages.CHANNEL_OPEN_CONFIRMATION and self._remote is None:
            self._remote, self._window_out, self._packet_out = reader.uint32(), reader.uint32(), reader.uint32()
            self._packet_out = max(1, min(self._packet_out, limits.CHANNEL_PACKET))
            self._channel.opened(self)
        elif number == messages.CHANNEL_OPEN_FAILURE and self._remote is None:
            reader.uint32()
            self._closed = True
            self._channel.refused(reader.string()[:4096].decode("utf-8", "replace"))
        elif self._remote is None:
            raise _not_open()
        elif number == messages.CHANNEL_EXTENDED_DATA:
            kind, data = reader.uint32(), reader.string()
            reader.end()
            self._got_data(data, self._channel.error_data if kind == 1 else self._drop)
        elif number == messages.CHANNEL_WINDOW_ADJUST:
            more = reader.uint32()
            if not self._close_sent:
                self._window_out += more
                if self._window_out > 0xFFFFFFFF:
                    raise ProtocolProblem("a window grew beyond 2**32-1")
                self._flush()
        elif number == messages.CHANNEL_REQUEST:
            name, wants_answer = reader.string(), reader.boolean()
            if not self._close_sent:
                self._channel.request(name, reader.rest())
            if wants_answer and not self._close_sent:
                self.transport.sendPacket(messages.CHANNEL_FAILURE, uint32(self._remote))
        elif number in (messages.CHANNEL_SUCCESS, messages.CHANNEL_FAILURE):
            if not self._answers:
                raise ProtocolProblem("an answer came to no question")
            self._answers -= 1
            self._channel.answered(number == messages.CHANNEL_SUCCESS)
        elif number == messages.CHANNEL_EOF:
            if self._eof_received:
                raise ProtocolProblem("the end of data came twice")
            self._eof_received = True
            if not self._close_sent:
                self._channel.eof()
        elif number == messages.CHANNEL_CLOSE:
            self._unsent.clear()
            self._unsent_size = 0
            self._send_close()
            self._closed = True
            self._channel.closed()
        else:
            raise ProtocolProblem("a message came for a channel that is open already")

    def _drop(self, data: bytes) -> None:
        self.credit(len(data))

    def _got_data(self, data: bytes, take: Callable[[bytes], None]) -> None:
        if len(data) > self._window_in or len(data) > limits.CHANNEL_PACKET:
            raise ProtocolProblem("more data came than the window allows")
        if self._eof_received:
            raise ProtocolProblem("data came after the end of data")
        self._window_in -= len(data)
        if self._close_wanted:
            take = self._drop
        take(data)

    def credit(self, count: int) -> None:
        """``count`` bytes of the channel's data were consumed: as much may come again."""
        self._uncredited += count
        if self._uncredited >= self._window >> 2 and self._remote is not None and not self._close_sent:
            count, self._uncredited = self._uncredited, 0
            self._window_in += count
            self.transport.sendPacket(messages.CHANNEL_WINDOW_ADJUST, _TWO.pack(self._remote, count))

    # --- what the channel's user sends ---

    @property
    def unsent(self) -> int:
        """Bytes that wait for the server's window, or for the end of a key exchange."""
        return self._unsent_size

    def write(self, data: bytes) -> None:
        """Send data on the channel, as far as the window reaches; the rest waits, see :attr:`unsent`."""
        if data and not self._eof_wanted and not self._close_wanted and not self._closed:
            self._unsent.append(data)
            self._unsent_size += len(data)
            self._flush()

    def write_eof(self) -> None:
        """No more data comes after what was written."""
        self._eof_wanted = True
        self._flush()

    def close(self) -> None:
        """Close the channel after what was written."""
        self._close_wanted = True
        self._flush()

    def _flush(self) -> None:
        if self._remote is None or self._closed:
            return
        while self._unsent and self._window_out and not self.transport.congested:
            data = self._unsent.popleft()
            room = min(self._window_out, self._packet_out)
            if len(data) > room:
                self._unsent.appendleft(data[room:])
                data = data[:room]
            self._window_out -= len(data)
            self._unsent_size -= len(data)
            self.transport.seal(_DATA.pack(messages.CHANNEL_DATA, self._remote, len(data)), data)
        if self._unsent:
            return
        if self._eof_wanted and not self._eof_sent and not self._close_sent:
            self._eof_sent = True
            self.transport.sendPacket(messages.CHANNEL_EOF, uint32(self._remote))
        if self._close_wanted:
            self._send_close()

    def _send_close(self) -> None:
        if not self._close_sent and self._remote is not None:
            self._close_sent = True
            self.transport.sendPacket(messages.CHANNEL_CLOSE, uint32(self._remote))

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        """A channel request; the answer comes as :meth:`ChannelUser.answered`."""
        if self._remote is None or self._close_sent or self._closed:
            return
        self._answers += wants_answer
        head = uint32(self._remote) + string(name) + boolean(wants_answer)
        self.transport.sendPacket(messages.CHANNEL_REQUEST, head + data)

    def ways(self) -> list[str]:
        """What goes through the connection."""
        return [self._kind.decode()]

    # --- time ---

    def tick(self, limit: int) -> None:
        """Call twice a minute: asks the server for a sign of life. Ends the connection when ``limit`` questions have
        had no answer; changes keys each hour."""
        self.pass_time()
        if not self.entered or self.state == ENDED:
            return
        if self._pings >= limit:
            self.end(ConnectionProblem("the other side does not answer any more: the connection was lost."))
            return
        self._pings += 1
        self.transport.sendPacket(messages.GLOBAL_REQUEST, string(b"keepalive@openssh.com") + boolean(True))

    def pass_time(self) -> None:
        """Call now and then: changes keys each hour, and waits no longer than two minutes for the server to do so."""
        if not self.transport.ended:
            self.transport.pass_time()
