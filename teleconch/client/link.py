"""The upper half of an SSH client's connection without I/O: one channel (RFC 4254). See ``handshake`` for the lower
half."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from teleconch.client.handshake import ENDED, Handshake
from teleconch.codec import boolean, string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.ssh import limits, messages
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader

__all__ = ["ENDED", "ChannelUser", "Link", "SessionLink"]

WINDOW: Final = limits.CHANNEL_WINDOW
_CHANNEL: Final = 0  # the number of our one channel


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


class Link(Handshake):
    """A connection as ``user``. ``kind`` and ``target`` say which channel to open once the user is logged in,
    ``window`` how many bytes may be on their way from the server."""

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
        super().__init__(user, key, certificate, verify_host, clock)
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

    def _logged_in(self) -> None:
        self._send(
            bytes((messages.CHANNEL_OPEN,))
            + string(self._kind)
            + uint32(_CHANNEL)
            + uint32(self._window)
            + uint32(limits.CHANNEL_PACKET),
            self._target,
        )

    def _keys_changed(self) -> None:
        self._flush()

    def _gone(self) -> None:
        if not self._closed:
            self._closed = True
            self._channel.closed()

    # --- what comes ---

    def _open_message(self, number: int, payload: bytes) -> None:
        if number == messages.GLOBAL_REQUEST:
            reader = Reader(payload)
            reader.string()
            if reader.boolean():
                self._send(bytes((messages.REQUEST_FAILURE,)))
        elif number in (messages.REQUEST_SUCCESS, messages.REQUEST_FAILURE):
            if not self._pings:
                raise ProtocolProblem("an answer came to no question")
            self._pings -= 1
        elif number == messages.CHANNEL_OPEN:
            reader = Reader(payload)
            reader.string()
            sender, _window, _max_packet = reader.uint32(), reader.uint32(), reader.uint32()
            self._send(
                bytes((messages.CHANNEL_OPEN_FAILURE,))
                + uint32(sender)
                + uint32(messages.OPEN_ADMINISTRATIVELY_PROHIBITED)
                + string(b"not here")
                + string(b"")
            )
        else:
            self._channel_message(number, Reader(payload))

    def _channel_message(self, number: int, reader: Reader) -> None:
        if reader.uint32() != _CHANNEL or self._closed:
            raise ProtocolProblem("a message came for a channel that is not there")
        if number == messages.CHANNEL_OPEN_CONFIRMATION and self._remote is None:
            self._remote, self._window_out, self._packet_out = reader.uint32(), reader.uint32(), reader.uint32()
            self._packet_out = max(1, min(self._packet_out, limits.CHANNEL_PACKET))
            self._channel.opened(self)
        elif number == messages.CHANNEL_OPEN_FAILURE and self._remote is None:
            reader.uint32()
            self._closed = True
            self._channel.refused(reader.string()[:4096].decode("utf-8", "replace"))
        elif self._remote is None:
            raise ProtocolProblem("a message came for a channel that is not open")
        elif number == messages.CHANNEL_DATA:
            self._got_data(reader, self._channel.data)
        elif number == messages.CHANNEL_EXTENDED_DATA:
            kind = reader.uint32()
            self._got_data(reader, self._channel.error_data if kind == 1 else self._drop)
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
                self._send(bytes((messages.CHANNEL_FAILURE,)) + uint32(self._remote))
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

    def _got_data(self, reader: Reader, take: Callable[[bytes], None]) -> None:
        data = reader.string()
        reader.end()
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
            self._send(bytes((messages.CHANNEL_WINDOW_ADJUST,)) + uint32(self._remote) + uint32(count))

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
        if self._remote is None or self._closed or self._exchanging:
            return
        while self._unsent and self._window_out:
            data = self._unsent.popleft()
            room = min(self._window_out, self._packet_out)
            if len(data) > room:
                self._unsent.appendleft(data[room:])
                data = data[:room]
            self._window_out -= len(data)
            self._unsent_size -= len(data)
            self._send(bytes((messages.CHANNEL_DATA,)) + uint32(self._remote) + uint32(len(data)), data)
        if self._unsent:
            return
        if self._eof_wanted and not self._eof_sent and not self._close_sent:
            self._eof_sent = True
            self._send(bytes((messages.CHANNEL_EOF,)) + uint32(self._remote))
        if self._close_wanted:
            self._send_close()

    def _send_close(self) -> None:
        if not self._close_sent and self._remote is not None:
            self._close_sent = True
            self._send(bytes((messages.CHANNEL_CLOSE,)) + uint32(self._remote))

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        """A channel request; the answer comes as :meth:`ChannelUser.answered`."""
        if self._remote is None or self._close_sent or self._closed:
            return
        self._answers += wants_answer
        self._send(
            bytes((messages.CHANNEL_REQUEST,)) + uint32(self._remote) + string(name) + boolean(wants_answer), data
        )

    def ways(self) -> list[str]:
        """What goes through the connection."""
        return [self._kind.decode()]

    # --- time ---

    def tick(self, limit: int) -> None:
        """Call twice a minute: asks the server for a sign of life. Ends the connection when ``limit`` questions have
        had no answer; changes keys each hour."""
        if not self.entered or self.state == ENDED:
            return
        if self._pings >= limit:
            self.end(ConnectionProblem("the other side does not answer any more: the connection was lost."))
            return
        self._pings += 1
        self._send(bytes((messages.GLOBAL_REQUEST,)) + string(b"keepalive@openssh.com") + boolean(True))
        if self._clock() - self._exchanged_at > limits.REKEY_SECONDS:
            self.rekey()
