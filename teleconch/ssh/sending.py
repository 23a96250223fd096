"""What a channel sends (RFC 4254 section 5.2), no more than the peer and the network take.

Toward the peer a channel is a consumer: its producer is paused while the peer's window is shut, the network is full or
keys are being exchanged.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from teleconch.ssh import limits
from teleconch.ssh.carrier import Carrier, Log
from teleconch.ssh.problems import ProtocolProblem


class Sending:
    """The half of a channel that sends; :class:`teleconch.ssh.receiving.Receiving` is the other."""

    log: Log
    conn: Carrier[Any]
    id: Any  # its number here
    _answering: bool  # a request of the peer's

    def __init__(self) -> None:
        self.remote_id = 0  # its number there
        self.remoteWindowLeft = self.remoteMaxPacket = 0
        self.closing = 0  # closed here, perhaps before all is sent
        self.localClosed = 0  # CLOSE is sent
        self.remoteClosed = 0  # CLOSE has come
        self.eof_sent = False
        self._unsent: deque[tuple[int, bytes | memoryview]] = deque()  # (0, data) or (type, extended data)
        self._unsent_bytes = 0
        self._eof_wanted = False
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._pulling = False

    @property
    def unsent_bytes(self) -> int:
        """What was written and waits, for the peer's window or the network."""
        return self._unsent_bytes

    def write(self, data: bytes) -> None:
        """Send ``data``, or keep it until the peer takes it."""
        size = len(data)
        if (
            self._unsent
            or not size
            or size > self.remoteWindowLeft
            or size > self.remoteMaxPacket
            or self._eof_wanted
            or self.closing
            or self.localClosed
            or self.conn.transport.congested
        ):
            self._write(0, data)
            return
        self.remoteWindowLeft -= size
        self.conn.sendData(self, data)  # a producer that should pause now has been told
        if not self.remoteWindowLeft:
            self._pause_producer()
        elif not self._streaming:
            self._resume_producer()

    def writeExtended(self, dataType: int, data: bytes) -> None:
        self._write(dataType, data)

    def writeSequence(self, data: Any) -> None:
        self._write(0, b"".join(data))

    def _write(self, kind: int, data: bytes) -> None:
        if not data or self.localClosed or self.closing or self._eof_wanted:
            return
        self._unsent.append((kind, data))
        self._unsent_bytes += len(data)
        self._send()
        if self._unsent_bytes > limits.CHANNEL_BUFFER:
            self.log.warn("a channel's writer takes no pause; channel closed")
            self.abortConnection()

    def _drop_unsent(self) -> None:
        self._unsent.clear()
        self._unsent_bytes = 0

    def _send(self) -> None:
        """Send what the window and the network take."""
        unsent, conn = self._unsent, self.conn
        transport = conn.transport
        transport.cork()
        try:
            while unsent and self.remoteWindowLeft and not transport.congested:
                kind, data = unsent[0]
                size, room = len(data), min(self.remoteWindowLeft, self.remoteMaxPacket)
                if size > room:
                    data = memoryview(data)
                    unsent[0] = (kind, data[room:])
                    data, size = data[:room], room
                else:
                    unsent.popleft()
                self.remoteWindowLeft -= size
                self._unsent_bytes -= size
                if kind:
                    conn.sendExtendedData(self, kind, data)
                else:
                    conn.sendData(self, data)
        finally:
            transport.uncork()
        if unsent:
            self._pause_producer()
            return
        if self._eof_wanted and not self.eof_sent and not self.localClosed:
            self.eof_sent = True
            conn.send_eof(self)
        if self.closing:
            if not self._answering:  # a request that closes the channel is answered first
                self._close()
        elif conn.congested or not self.remoteWindowLeft:
            self._pause_producer()
        else:
            self._resume_producer()

    def _pause_producer(self) -> None:
        if self._producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def _resume_producer(self) -> None:
        if self._producer is None:
            return
        if not self._streaming:
            self._pull()
        elif self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    def _pull(self) -> None:
        if self._pulling:
            return
        self._pulling = True
        try:
            while self._producer is not None and self.remoteWindowLeft and not self.conn.congested:
                left = self.remoteWindowLeft
                self._producer.resumeProducing()
                if self.remoteWindowLeft == left:  # it will write later, or has nothing
                    break
        finally:
            self._pulling = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("a channel has one producer at a time")
        if self.localClosed or self.closing:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            self._pull()
        elif self._unsent or self.conn.congested or not self.remoteWindowLeft:
            self._pause_producer()

    def unregisterProducer(self) -> None:
        self._producer = None

    def addWindowBytes(self, data: int) -> None:
        if self.remoteWindowLeft + data > 0xFFFFFFFF:
            raise ProtocolProblem("a window grew beyond 2**32-1")
        self.remoteWindowLeft += data
        self._send()

    def sending_resumed(self) -> None:
        """The network takes more."""
        if not self.localClosed:
            self._send()

    def sending_paused(self) -> None:
        """The network takes no more for now."""
        self._pause_producer()

    def loseWriteConnection(self) -> None:
        """Send EOF after the last byte; the peer can still send."""
        self._eof_wanted = True
        if not self.localClosed:
            self._send()

    def loseConnection(self) -> None:
        """Close after the last byte."""
        if not self.closing:
            self.closing = 1
            if self.conn is not None:
                self._send()

    def abortConnection(self) -> None:
        """Close at once; unsent bytes are dropped."""
        self._drop_unsent()
        self.loseConnection()

    def _close(self) -> None:
        """Send CLOSE, once."""
        if not self.localClosed:
            self.localClosed = 1
            self.conn.sendClose(self)
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self.localClosed and self.remoteClosed:
            self.conn.channelClosed(self)
