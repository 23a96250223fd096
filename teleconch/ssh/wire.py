"""Bytes to and from the connection below.

A TCP socket is read and written directly: one buffer for all connections of the process, large reads, gathered writes,
no joining or slicing. Any other Twisted transport (a channel, TLS, a test's) is used through its public methods.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any, Final, Protocol

from twisted.internet import main
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from teleconch.ssh import limits

READ_SIZE: Final = limits.READ_SIZE
_IOV_MAX: Final = 512  # Linux takes 1024 buffers in one call
_CLOSE_SECONDS: Final = 10.0  # for the peer to take what was sent before a close

# A read is decoded to its end before the next begins, so all connections of a process share one buffer.
_buffer = bytearray(READ_SIZE + limits.PACKET_MAX + 4096)
_view = memoryview(_buffer)


class Owner(Protocol):
    """Whose bytes these are."""

    def received(self, data: memoryview, end: int) -> int:
        """Use what can be used of ``data[:end]``; returns how much that was. The rest comes again, with more after
        it."""

    def choked(self) -> None:
        """The network takes no more (told by :class:`StreamWire`; otherwise look at ``congested`` after ``send``)."""

    def drained(self) -> None:
        """The network takes more."""


class _Nobody:
    """The owner of a wire that is gone: if it still held its own, both would stay until the collector finds the
    cycle."""

    def received(self, data: memoryview, end: int) -> int:
        return end

    def choked(self) -> None:
        """Nobody is told."""

    drained = choked


_NOBODY: Final = _Nobody()


class SocketWire:
    """Takes over reading and writing from a ``twisted.internet.tcp.Connection``."""

    def __init__(self, owner: Owner, transport: Any) -> None:
        self._owner: Owner = owner
        self._transport = transport
        self._socket = transport.socket
        self._left = b""
        self.read_size = READ_SIZE  # the owner may set it
        self._backlog: deque[Any] = deque()
        self.unsent = 0  # bytes that the network has not taken yet
        self._closing: Any = None
        self._patience = _CLOSE_SECONDS
        self._half_closing = False
        self._reading_paused = False
        self.congested = False
        transport.doRead = self._do_read
        transport.doWrite = self._do_write

    # -- from the peer --

    def _do_read(self) -> Exception | None:
        left = self._left
        try:
            if left:
                have = len(left)
                _view[:have] = left
                got = self._socket.recv_into(_view[have : have + self.read_size])
            else:
                have = 0
                got = self._socket.recv_into(_view, self.read_size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not got:
            return main.CONNECTION_DONE
        end = have + got
        used = self._owner.received(_view, end)
        if used < end:
            self._left = bytes(_view[used:end])
        elif left:
            self._left = b""
        return None

    # -- toward the peer --

    def send(self, buffers: list[bytes], size: int) -> None:
        """Send now what the network takes, and the rest when it takes more."""
        if self._closing is not None:
            return
        sent = 0
        if not self._backlog:
            try:
                one = len(buffers) == 1
                sent = self._socket.send(buffers[0]) if one else self._socket.sendmsg(buffers[:_IOV_MAX])
            except OSError:  # not now, or never again: writing later tells which
                sent = 0
            if sent == size:
                return
            self.congested = True
            self._transport.startWriting()
        self._keep(buffers, sent)
        self.unsent += size - sent
        if self.unsent > limits.REPLIES_UNREAD:
            self.stop_reading()  # a peer that asks without reading our answers

    def stop_reading(self) -> None:
        """Hear nothing more from the peer until it has taken all that was sent."""
        if self._backlog and not self._reading_paused:
            self._reading_paused = True
            self._transport.stopReading()

    def _keep(self, buffers: list[bytes], sent: int) -> None:
        for buffer in buffers:
            size = len(buffer)
            if sent >= size:
                sent -= size
            elif sent:
                self._backlog.append(memoryview(buffer)[sent:])
                sent = 0
            else:
                self._backlog.append(buffer)

    def _do_write(self) -> Exception | None:
        backlog = self._backlog
        while backlog:
            buffers = [backlog[i] for i in range(min(len(backlog), _IOV_MAX))]
            try:
                sent = self._socket.sendmsg(buffers)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return main.CONNECTION_LOST
            self.unsent -= sent
            if self._closing is not None and sent:
                self._closing.reset(self._patience)
            while backlog and sent >= len(backlog[0]):
                sent -= len(backlog.popleft())
            if sent:
                backlog[0] = memoryview(backlog[0])[sent:]
                return None
        self._transport.stopWriting()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.startReading()
        self.congested = False
        if self._half_closing:
            self._shut_down()
        if self._closing is not None:
            self._close_now()
        else:
            self._owner.drained()
        return None

    # -- the end --

    def half_close(self) -> None:
        """Send EOF when all is sent."""
        self._half_closing = True
        if not self._backlog:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the peer is gone already; reading tells
            pass

    def close(self, patience: float = _CLOSE_SECONDS) -> None:
        """Close when all is sent, or when none of it is taken for ``patience`` seconds."""
        if self._closing is not None:
            return
        self._transport.stopReading()
        self._patience = patience
        self._closing = self._transport.reactor.callLater(patience, self.abort)
        if not self._backlog:
            self._close_now()

    def _close_now(self) -> None:
        self._stop_timer()
        self.detach()
        self._transport.loseConnection()

    def _stop_timer(self) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()

    def abort(self) -> None:
        self._stop_timer()
        self.detach()
        self._transport.abortConnection()

    def detach(self) -> None:
        """Give the transport its own methods back."""
        self._transport.__dict__.pop("doRead", None)
        self._transport.__dict__.pop("doWrite", None)

    def gone(self) -> None:
        self._stop_timer()
        self.detach()
        self._backlog.clear()
        self._left = b""
        self._owner = _NOBODY


@implementer(IPushProducer)
class StreamWire:
    """Any other Twisted transport."""

    def __init__(self, owner: Owner, transport: Any) -> None:
        self._owner: Owner = owner
        self._transport = transport
        self._left = b""
        self.read_size = READ_SIZE  # without effect: others read
        self.unsent = 0  # others keep it
        self._closed = False
        self.congested = False
        if hasattr(transport, "registerProducer"):
            transport.registerProducer(self, True)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        data = self._left + data if self._left else data
        used = self._owner.received(memoryview(data), len(data))
        self._left = data[used:]

    def send(self, buffers: list[bytes], size: int) -> None:
        if not self._closed:
            self._transport.write(b"".join(buffers))

    def stop_reading(self) -> None:
        """Others read."""

    def pauseProducing(self) -> None:
        self.congested = True
        self._owner.choked()

    def resumeProducing(self) -> None:
        self.congested = False
        self._owner.drained()

    def stopProducing(self) -> None:
        self.congested = True

    def half_close(self) -> None:
        if hasattr(self._transport, "unregisterProducer"):
            self._transport.unregisterProducer()  # a Twisted transport that paused its producer forgets to send EOF
        getattr(self._transport, "loseWriteConnection", self._transport.loseConnection)()

    def close(self, patience: float = _CLOSE_SECONDS) -> None:
        if not self._closed:
            self._closed = True
            if hasattr(self._transport, "unregisterProducer"):
                self._transport.unregisterProducer()
            self._transport.loseConnection()

    def abort(self) -> None:
        self._closed = True
        getattr(self._transport, "abortConnection", self._transport.loseConnection)()

    def gone(self) -> None:
        self._closed = True
        self._left = b""
        self._owner = _NOBODY


Wire = SocketWire | StreamWire


def make_wire(owner: Owner, transport: Any) -> Wire:
    from twisted.internet.tcp import Connection

    if type(transport).__module__ == "twisted.internet.tcp" and isinstance(transport, Connection):
        for option in (transport.setTcpNoDelay, transport.setTcpKeepAlive):
            option(True)
        return SocketWire(owner, transport)
    return StreamWire(owner, transport)
