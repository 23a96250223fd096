"""What a channel takes from its peer (RFC 4254 sections 5.2 to 5.4), in the order in which it comes.

From the peer a channel is a push producer: while paused it gives no window credit, so that the peer stops by itself. It
keeps what was granted before in a few objects, however small the packets are.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from teleconch.errors import TeleconchError
from teleconch.ssh import limits
from teleconch.ssh.problems import ProtocolProblem, SSHProblem
from teleconch.ssh.sending import Sending

_SMALL = 4096  # bytes of a packet that waits with others in one object

Held = deque[tuple[int, bytes | bytearray]]
Answer = bool | int | None | Awaitable[bool | int | None]


def _no_room() -> ProtocolProblem:
    return ProtocolProblem("more waits on the channels of this connection than there is room for")


class Receiving(Sending):
    """Both halves of a channel, without Twisted and Conch; :class:`teleconch.ssh.channel.Channel` adds those."""

    def __init__(self, window: int, max_packet: int) -> None:
        super().__init__()
        self.localWindowSize = self.localWindowLeft = window
        self.localMaxPacket = max_packet
        self.eof_received = self.close_received = False
        self._taking = True  # the consumer of the peer's data takes more
        self._uncredited = 0
        self._held: Held = deque()  # data for a consumer that takes no more, kinds as in _unsent
        self._eof_held = False
        self._giving = False
        self._waiting: deque[Callable[[], None] | Held] = deque()  # what came after a request that is being answered
        self._answering = self._going_on = False
        self.charged = 0  # bytes taken from the connection's account for this channel
        self.window_max = self.localWindowSize  # what the window may grow to

    # -- overridden by applications --

    def dataReceived(self, data: bytes) -> None:
        pass

    def extReceived(self, dataType: int, data: bytes) -> None:
        pass

    def eofReceived(self) -> None:
        """The peer will send no more data; what is written still reaches it."""

    def closeReceived(self) -> None:
        """The peer closes."""
        self.loseConnection()

    def closed(self) -> None:
        """Nothing more comes or goes. Called once for each channel that was open."""

    def requestReceived(self, requestType: bytes, data: bytes) -> Answer:
        try:
            found = getattr(self, "request_" + requestType.replace(b"-", b"_").decode("ascii"), None)
        except UnicodeDecodeError:
            return False
        return found(data) if found is not None else False

    # -- toward the peer --

    @property
    def unsent_bytes(self) -> int:
        """What was written and waits, for the peer's window or the network."""
        return self._unsent_bytes

    # -- what it costs --

    def charge(self, size: int, *, spare: bool = False) -> bool:
        """Whether ``size`` more bytes may be held for this channel; see :meth:`Account.take`. They are given back when
        the channel closes, or earlier by :meth:`uncharge`."""
        if not self.conn.account.take(size, spare=spare):
            return False
        self.charged += size
        return True

    def uncharge(self, size: int) -> None:
        """Give ``size`` bytes back, unless that was done already."""
        size = min(size, self.charged)
        self.charged -= size
        self.conn.account.give(size)

    def release(self) -> None:
        """Nothing is held for this channel any more."""
        self.uncharge(self.charged)

    def _charge_event(self, size: int) -> None:
        if not self.charge(size):
            raise _no_room()

    # -- from the peer --

    def pauseProducing(self) -> None:
        self._taking = False

    def resumeProducing(self) -> None:
        self._taking = True
        self._give_held()
        self._credit()

    def stopProducing(self) -> None:
        self._taking = False

    def _credit(self) -> None:
        # A quarter of the window at a time: few adjusts, and the peer never runs dry.
        if (
            self._uncredited >= self.localWindowSize >> 2
            and self._taking
            and not self.localClosed
            and not self.eof_received
        ):
            credit, self._uncredited = self._uncredited, 0
            if self.localWindowSize < self.window_max:
                credit += self._grow()
            self.localWindowLeft += credit
            self.conn.adjustWindow(self, credit)

    def _grow(self) -> int:
        """Open the window as data is consumed: to its full size if there is room, or else to twice its size."""
        for more in (self.window_max - self.localWindowSize, min(self.localWindowSize, self.window_max >> 1)):
            if self.localWindowSize + more <= self.window_max and self.charge(more, spare=True):
                self.localWindowSize += more
                return more
        return 0

    def got_data(self, kind: int, data: bytes) -> None:
        """Data from the peer, its size already checked."""
        if self._answering or self._held or not self._taking or self.localClosed or self.closing:
            self._not_now(kind, data)
            return
        if kind:
            self.extReceived(kind, data)
        else:
            self.dataReceived(data)
        self._uncredited += len(data)
        if self._uncredited >= self.localWindowSize >> 2:
            self._credit()

    def _not_now(self, kind: int, data: bytes) -> None:
        if self._answering:
            last = self._waiting[-1] if self._waiting else None
            if not isinstance(last, deque):
                self._charge_event(limits.EVENT_COST)
                last = deque()
                self._waiting.append(last)
            self._hold(last, kind, data)
        elif self.localClosed or self.closing:
            self._uncredited += len(data)  # read and dropped, until the peer's CLOSE comes
            self._credit()
        else:
            self._hold(self._held, kind, data)

    def _hold(self, held: Held, kind: int, data: bytes) -> None:
        """Keep ``data`` at the end. A peer that sends it byte by byte costs no more than its window."""
        if held and len(data) < _SMALL:
            last_kind, last = held[-1]
            if last_kind == kind and isinstance(last, bytearray) and len(last) < 16 * _SMALL:
                last += data
                return
        self._charge_event(limits.PIECE_COST)
        held.append((kind, data if len(data) >= _SMALL else bytearray(data)))

    def _give_held(self, whole: bool = False) -> None:
        """Give out data, and then its end, as long as the consumer takes it; with ``whole``, all of it."""
        if self._giving:
            return
        self._giving = True
        try:
            while self._held and (self._taking or whole):
                kind, data = self._held.popleft()
                self.uncharge(limits.PIECE_COST)
                if self.localClosed or self.closing:
                    self._uncredited += len(data)
                else:
                    self._give(kind, bytes(data))
        finally:
            self._giving = False
        if self._eof_held and (self._taking or whole) and not self._held:
            self._eof_held = False
            if not self.localClosed:
                self.eofReceived()

    def _give(self, kind: int, data: bytes) -> None:
        if kind:
            self.extReceived(kind, data)
        else:
            self.dataReceived(data)
        self._uncredited += len(data)
        self._credit()

    def got_eof(self) -> None:
        self.eof_received = True
        if self._answering:
            self._waiting.append(self.got_eof)
            return
        self._eof_held = True
        self._give_held()

    def got_close(self) -> None:
        self.close_received = True
        if self._answering:
            self._waiting.append(self.got_close)
            return
        self._give_held(whole=True)
        self.remoteClosed = 1
        if not self.localClosed:
            self._drop_unsent()  # the peer takes nothing more
            self.closeReceived()
            self._close()
        self._close_if_done()

    def got_request(self, name: bytes, want_reply: bool, data: bytes) -> None:
        if self._answering:
            if len(self._waiting) >= limits.PENDING_EVENTS * 64:
                raise ProtocolProblem("too many requests wait for an answer")
            size = len(name) + len(data) + limits.EVENT_COST
            self._charge_event(size)
            self._waiting.append(lambda: self._request_waited(name, want_reply, data, size))
            return
        if self.localClosed:
            return
        self._answering = True
        try:
            answer = self.requestReceived(name, data)
        except Exception as error:  # noqa: BLE001 - one request's fault ends neither the channel nor the connection
            answer = self._broken_request(error)
        if inspect.isawaitable(answer):
            size = len(data) + limits.EVENT_COST
            if not self.conn.account.take(size):
                if inspect.iscoroutine(answer):
                    answer.close()
                raise _no_room()
            self.conn.later(self._answer(answer, want_reply, size))
        else:
            self._reply(answer, want_reply)
            self._go_on()

    def _request_waited(self, name: bytes, want_reply: bool, data: bytes, size: int) -> None:
        self.uncharge(size)
        self.got_request(name, want_reply, data)

    async def _answer(self, answer: Awaitable[Any], want_reply: bool, size: int) -> None:
        try:
            given = await answer
        except Exception as error:  # noqa: BLE001 - as above
            given = self._broken_request(error)
        finally:
            self.conn.account.give(size)
        self._reply(given, want_reply)
        self._go_on()

    def _broken_request(self, error: Exception) -> bool:
        if isinstance(error, TeleconchError | SSHProblem):
            self.log.info("channel request refused: {error}", error=str(error))
        else:
            self.log.failure("a channel request broke")
        return False

    def _reply(self, answer: object, want_reply: bool) -> None:
        if want_reply and not self.localClosed:
            self.conn.send_reply(self, bool(answer))

    def _go_on(self) -> None:
        self._answering = False
        if self.closing and not self.localClosed:
            self._send()
        if self._going_on:  # a request that waited was answered at once: the loop below takes the next
            return
        self._going_on = True
        try:
            while self._waiting and not self._answering:
                event = self._waiting.popleft()
                if isinstance(event, deque):
                    self.uncharge(limits.EVENT_COST + limits.PIECE_COST * len(event))
                    for kind, data in event:
                        self.got_data(kind, bytes(data))
                else:
                    event()
        finally:
            self._going_on = False

    def gone(self) -> None:
        """Both sides have closed, or the connection is gone."""
        self._waiting.clear()
        self._give_held(whole=True)
        self._drop_unsent()
        self.closing = self.localClosed = self.remoteClosed = 1
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.closed()
