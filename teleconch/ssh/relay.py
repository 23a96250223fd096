"""Joins two byte streams: channel to channel, or channel to socket or process, in both directions.

Each end is the other's producer: when one cannot write, the other is not read. End of data in one direction leaves the
other open; when both are at their end, both close.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.ssh.channel import Channel

__all__ = ["RelayChannel", "RelayProtocol", "relay"]


class _End:
    """What an end does with what its twin hears."""

    other: Any = None
    eof_heard = False
    is_gone = False
    _early: list[bytes]

    def transport_end(self) -> Any:
        """What takes bytes, is paused and is closed."""
        raise NotImplementedError

    def heard(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)  # at most a window, or one read: the end is paused until it is joined
        elif not self.other.is_gone:
            self.other.transport_end().write(data)

    def heard_eof(self) -> None:
        self.eof_heard = True
        other = self.other
        if other is None or other.is_gone:
            return
        end = other.transport_end()
        half = getattr(end, "loseWriteConnection", None)
        if half is None:
            end.loseConnection()
            return
        half()
        if other.eof_heard:
            end.loseConnection()
            self.transport_end().loseConnection()

    def heard_gone(self) -> None:
        self.is_gone = True
        if self.other is not None and not self.other.is_gone:
            end = self.other.transport_end()
            end.unregisterProducer()
            end.loseConnection()

    def join(self, other: _End) -> None:
        self.other = other

    def begin(self) -> None:
        """Give what came before there was an other end, and read on."""
        early, self._early = self._early, []
        for data in early:
            self.heard(data)
        if self.is_gone:
            self.heard_gone()
        elif self.eof_heard:
            self.heard_eof()


class RelayChannel(_End, Channel):
    """A channel whose bytes go to another end. Paused until :func:`relay` joins it. Extended data is dropped."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._early = []
        self.pauseProducing()

    def transport_end(self) -> Any:
        return self

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)

    def eofReceived(self) -> None:
        self.heard_eof()

    def closeReceived(self) -> None:
        self.heard_eof()
        self.loseConnection()

    def closed(self) -> None:
        self.heard_gone()


@implementer(IHalfCloseableProtocol)
class RelayProtocol(_End, Protocol):
    """The same for a socket: the protocol of its transport."""

    def __init__(self) -> None:
        self._early = []

    def transport_end(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        if self.other is None:
            transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)

    def readConnectionLost(self) -> None:
        self.heard_eof()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard_gone()


def relay(a: RelayChannel | RelayProtocol, b: RelayChannel | RelayProtocol) -> None:
    """Join two open ends. What either heard before goes first."""
    for mine, other in ((a, b), (b, a)):
        mine.join(other)
    for mine, other in ((a, b), (b, a)):
        mine.begin()
        if not mine.is_gone and not other.is_gone:
            other.transport_end().registerProducer(mine.transport_end(), True)
            mine.transport_end().resumeProducing()
