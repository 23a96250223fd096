"""Joins two byte streams: channel to channel, or channel to socket, in both directions.

Each end is the other's producer: when one cannot write, the other is not read. End of data in one direction leaves the
other open; when both are at their end, both close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from teleconch.ssh import limits
from teleconch.ssh.account import Account
from teleconch.ssh.channel import Channel
from teleconch.ssh.wire import READ_SIZE, Wire, make_wire

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["End", "RelayChannel", "RelayProtocol", "relay"]


class End:
    """One end of a relay. :meth:`transport_end` is what takes bytes, is paused and is closed."""

    other: End | None = None
    eof_heard = False
    is_gone = False
    _early: list[bytes]

    def transport_end(self) -> Any:
        return self

    def takes_more(self) -> bool:
        """Whether what is written to this end goes out now."""
        return True

    def heard(self, data: bytes) -> None:
        """Bytes from this end's peer."""
        if self.other is None:
            self._early.append(data)  # at most a window, or one read: the end is paused until it is joined
        elif not self.other.is_gone:
            self.other.transport_end().write(data)

    def heard_eof(self) -> None:
        """This end's peer sends no more."""
        if self.eof_heard:
            return
        self.eof_heard = True
        other = self.other
        if other is None or other.is_gone:
            return
        end = other.transport_end()
        end.unregisterProducer()
        end.loseWriteConnection()
        if other.eof_heard:
            end.loseConnection()
            self.transport_end().loseConnection()

    def heard_gone(self) -> None:
        """This end is closed."""
        self.is_gone = True
        if self.other is not None and not self.other.is_gone:
            end = self.other.transport_end()
            end.unregisterProducer()
            end.loseConnection()

    def join(self, other: End) -> None:
        self.other = other

    def give_early(self) -> None:
        """Give what came before there was an other end: before anything that reading on may bring."""
        early, self._early = self._early, []
        for data in early:
            self.heard(data)

    def begin(self) -> None:
        """Tell of an end that came before there was an other end."""
        if self.is_gone:
            self.heard_gone()
        elif self.eof_heard:
            self.eof_heard = False
            self.heard_eof()


class RelayChannel(End, Channel):
    """A channel whose bytes go to another end. Paused until :func:`relay` joins it. Extended data is dropped."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._early = []
        self.pauseProducing()

    def takes_more(self) -> bool:
        return not self._producer_paused

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)

    def eofReceived(self) -> None:
        self.heard_eof()

    def closeReceived(self) -> None:
        self.heard_eof()
        self.loseConnection()

    def closed(self) -> None:
        self.heard_gone()
        if isinstance(self.other, RelayProtocol):
            self.other.linger(self.conn.account)


@implementer(IHalfCloseableProtocol, IPushProducer)
class RelayProtocol(End, Protocol):
    """The same for a socket: the protocol of its transport. Not read until :func:`relay` joins it."""

    def __init__(self) -> None:
        self._early = []
        self._wire: Wire | None = None
        self._producer: Any = None
        self.ended = False
        self._lingering: tuple[Account, int] | None = None

    # -- the socket --

    def connectionMade(self) -> None:
        if self.other is None:
            self.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)

    def takes_more(self) -> bool:
        return self._wire is None or not self._wire.congested

    def _socket(self) -> Wire:
        """The socket, taken over when the relay begins: until then a subclass may look at what comes."""
        if self._wire is None:
            self._wire = make_wire(self, self.transport)
        return self._wire

    def received(self, data: memoryview, end: int) -> int:
        self.heard(bytes(data[:end]))
        self._suit_reads()
        return end

    def _suit_reads(self) -> None:
        """Read no more at a time than the channel's peer takes, so that nothing of it has to be kept."""
        if self._wire is not None:
            self._wire.read_size = min(READ_SIZE, getattr(self.other, "remoteWindowLeft", READ_SIZE) or READ_SIZE)

    def choked(self) -> None:
        if self._producer is not None:
            self._producer.pauseProducing()

    def drained(self) -> None:
        if self._producer is not None:
            self._producer.resumeProducing()

    def readConnectionLost(self) -> None:
        self.heard_eof()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        self._producer = None
        if self._wire is not None:
            self._wire.gone()
        if self._lingering is not None:
            account, size = self._lingering
            account.give(size)
        self.heard_gone()

    def linger(self, account: Account) -> None:
        """The channel is gone: what it left unsent here, and this socket itself, which counts as no channel any more,
        are in its connection's account until all is sent, or dropped."""
        unsent = 0 if self.ended or self._wire is None else self._wire.unsent
        size = unsent + limits.CONNECTION_COST
        if unsent and not account.take(size):
            self.transport.abortConnection()  # type: ignore[union-attr]
        elif unsent:
            self._lingering = (account, size)

    # -- what the other end does --

    def write(self, data: bytes) -> None:
        if not self.ended:
            wire = self._socket()
            was = wire.congested
            wire.send([data], len(data))
            if wire.congested and not was:
                self.choked()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.ended:
            producer.stopProducing()
            return
        self._producer = producer
        if self._socket().congested:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        if not self.ended:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        if not self.ended and not self.eof_heard:
            self._suit_reads()
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        self.pauseProducing()

    def loseWriteConnection(self) -> None:
        """Send EOF behind the last byte; the peer can still send."""
        if not self.ended:
            self._socket().half_close()

    def loseConnection(self) -> None:
        """Close behind the last byte."""
        if not self.ended:
            self._socket().close(limits.RELAY_LINGER)


def relay(a: End, b: End) -> None:
    """Join two open ends. What either heard before goes first."""
    for mine, other in ((a, b), (b, a)):
        mine.join(other)
    for mine, other in ((a, b), (b, a)):
        mine.give_early()
        if not mine.is_gone and not other.is_gone:
            other.transport_end().registerProducer(mine.transport_end(), True)
            if other.takes_more():  # or else registering has paused it, and the other end resumes it
                mine.transport_end().resumeProducing()
        mine.begin()
