"""What a relay joins: channels, sockets, and a proof that what an end leads to speaks SSH."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from zope.interface import implementer

from teleconch.errors import ConnectionProblem
from teleconch.ssh import limits
from teleconch.ssh.account import Account
from teleconch.ssh.channel import Channel
from teleconch.ssh.relay import End, relay
from teleconch.ssh.wire import READ_SIZE, Wire, make_wire

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["OneEnd", "Proved", "RelayChannel", "SocketEnd", "ToEnd"]

_VERSIONS: Final = (b"SSH-2.0-", b"SSH-1.99-")  # RFC 4253 sections 4.2 and 5.1
_LONGEST: Final = max(map(len, _VERSIONS))


class RelayChannel(End, Channel):
    """A channel whose bytes go to another end. Paused until :func:`relay` joins it. Extended data is dropped."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
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
        if isinstance(self.other, SocketEnd):
            self.other.linger(self.conn.account)


class ToEnd(RelayChannel):
    """A channel to an end that is already connected; they are joined when it opens."""

    def __init__(self, end: End) -> None:
        super().__init__()
        self._end = end

    def channelOpen(self, specificData: bytes) -> None:
        relay(self, self._end)

    def openFailed(self, reason: Any) -> None:
        self._end.abort()


@implementer(IHalfCloseableProtocol, IPushProducer)
class SocketEnd(End, Protocol):
    """The protocol of a socket. Not read until :func:`relay` joins it.

    ``linger``: seconds after which a closed socket is dropped with what it has not taken; without it, a socket is
    dropped only if it takes nothing for :data:`limits.RELAY_LINGER`. ``gone`` is called once when the socket is closed.
    """

    def __init__(self, linger: float | None = None, gone: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.when_gone = gone
        self._linger = linger
        self._last_call: IDelayedCall | None = None
        self._wire: Wire | None = None
        self._producer: Any = None
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
        """Read no more at a time than the channel's peer takes, so that none of it has to be kept."""
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
        self.is_gone = True
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        self._producer = None
        if self._wire is not None:
            self._wire.gone()
        if self._lingering is not None:
            account, size = self._lingering
            account.give(size)
        self.heard_gone()

    def linger(self, account: Account) -> None:
        """The channel is gone. Its connection's account bears what it left unsent here, and this socket itself (it no
        longer counts as a channel), until all is sent or dropped."""
        unsent = 0 if self.is_gone or self._wire is None else self._wire.unsent
        size = unsent + limits.CONNECTION_COST
        if unsent and not account.take(size):
            self.abort()
        elif unsent:
            self._lingering = (account, size)

    # -- what the other end does --

    def write(self, data: bytes) -> None:
        if not self.is_gone:
            wire = self._socket()
            was = wire.congested
            wire.send([data], len(data))
            if wire.congested and not was:
                self.choked()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.is_gone:
            producer.stopProducing()
            return
        self._producer = producer
        if self._socket().congested:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        if not self.is_gone:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        if not self.is_gone and not self.eof_heard:
            self._suit_reads()
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        self.pauseProducing()

    def loseWriteConnection(self) -> None:
        """Send EOF after the last byte; the peer can still send."""
        if not self.is_gone:
            self._socket().half_close()

    def loseConnection(self) -> None:
        """Close after the last byte."""
        if self.is_gone:
            return
        if self._linger is not None and self._last_call is None:
            transport: Any = self.transport
            self._last_call = transport.reactor.callLater(self._linger, self.abort)
        self._socket().close(limits.RELAY_LINGER)

    def abort(self) -> None:
        """Close at once, unless it is closed."""
        transport: Any = self.transport
        if transport is not None and not self.is_gone:
            transport.abortConnection()


class OneEnd(ServerFactory[SocketEnd]):
    """Hands out one end that already exists, for one connection."""

    noisy = False

    def __init__(self, end: SocketEnd) -> None:
        self._end = end

    def buildProtocol(self, addr: object) -> SocketEnd:
        return self._end


class Proved:
    """Proves that an end leads to an SSH server: its first bytes say so.

    A registered address or a tunnel may lead to anything (a rogue node can register the address of a database): no byte
    from a user goes there before it has begun to speak SSH (GHSA-hw4x-mcx5-9q36, CVE-2024-35175).
    """

    def __init__(self, end: End) -> None:
        self._end = end
        self._begin = b""
        self._judged: Deferred[None] = Deferred()

    async def wait(self, clock: IReactorTime, seconds: float) -> None:
        """Wait for the proof. The end is open, paused and not joined, before and after. On failure, and when this is
        cancelled, it is aborted. ConnectionProblem, with part of a sentence."""
        end = self._end
        late = clock.callLater(seconds, self._refuse, "it accepted the connection but said nothing")
        end.tap(self._heard)
        try:
            if end.is_gone or end.eof_heard:
                self._heard(b"")
            else:
                end.transport_end().resumeProducing()
            await self._judged
        except BaseException:
            end.abort()
            raise
        finally:
            if late.active():
                late.cancel()

    def _heard(self, data: bytes) -> bool:
        if self._judged.called:
            return False
        if not data:
            self._refuse("it closed the connection before it said anything")
            return False
        self._begin = (self._begin + data[:_LONGEST])[:_LONGEST]
        if self._begin.startswith(_VERSIONS):
            self._end.transport_end().pauseProducing()
            self._judged.callback(None)
        elif not any(version.startswith(self._begin) for version in _VERSIONS):
            self._refuse("what answers there does not speak SSH")
        return not self._judged.called

    def _refuse(self, why: str) -> None:
        if not self._judged.called:
            self._judged.errback(ConnectionProblem(why))
