"""Connections to a TLS port, up to the end of their handshake.

A stranger can open connections and begin handshakes faster than this process can complete them, and the process has
others to serve, whose sessions it may relay. So a connection costs no TLS until it has sent something. From then until
its handshake is complete, what it sends waits for a turn to be given to TLS: one connection in each turn of the
reactor. The sources of the connections take turns. A handshake that began with a single byte waits for its next turn
like any other.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from teleconch.admission import Admission, source_of

log = Logger()

HANDSHAKE: Final = 1  # the step of admission after the first


class Visitor(ProtocolWrapper):
    """One connection, below TLS. Admission counts it until it is lost."""

    factory: Visitors
    transport: Any
    wrappedProtocol: Any = None  # until its handshake begins
    _address: IAddress | None
    _deadline: IDelayedCall | None = None
    _said = b""

    def __init__(self, factory: Visitors, address: IAddress | None) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]  # nothing is wrapped before it speaks
        self._address = address

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        self.connected = 1
        self.factory.registerProtocol(self)  # type: ignore[no-untyped-call]
        self.factory.admission.connected(self, transport.getPeer())
        self._deadline = self.factory.clock.callLater(self.factory.patience, self.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        """Take what comes before the handshake is complete. Everything after that goes straight to TLS."""
        if self.wrappedProtocol is None:
            self.factory.admission.advanced(self, HANDSHAKE)
        self._said += data
        self.factory.handshakes.wait(self, source_of(getattr(self._address, "host", "")))

    def pauses(self) -> None:
        """Wait: its turn has not come."""
        self.transport.pauseProducing()

    def proceeds(self) -> None:
        """Go on: its turn has come, at once or after a pause."""
        if self.wrappedProtocol is None:
            self._begin()
        self.transport.resumeProducing()
        said, self._said = self._said, b""
        self.wrappedProtocol.dataReceived(said)

    def _begin(self) -> None:
        protocol = self.wrappedProtocol = self.factory.wrappedFactory.buildProtocol(self._address)
        directlyProvides(self, providedBy(self.transport))
        protocol.makeConnection(self)
        self._cancel_deadline()

    def handshaken(self) -> None:
        """The handshake is complete. Whoever learns that from TLS calls this."""
        self.dataReceived = self.wrappedProtocol.dataReceived  # type: ignore[method-assign]  # a layer less for each record

    def abortConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_deadline()
        self.factory.admission.gone(self)
        self.factory.handshakes.leave(self)
        if self.wrappedProtocol is not None:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
            self.__dict__.pop("dataReceived", None)  # it refers to the wrapped protocol
            return
        self.factory.unregisterProtocol(self)  # type: ignore[no-untyped-call]

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()


class Handshakes:
    """The visitors that wait to begin or continue a handshake, by source. ``reactor`` is the connections' reactor."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._taken = False  # whether this turn of the reactor is taken
        self._source_of: dict[Visitor, str] = {}
        self._waiting: OrderedDict[str, dict[Visitor, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._source_of)

    def wait(self, visitor: Visitor, source: str) -> None:
        """``visitor`` proceeds, or pauses until its turn comes."""
        if not self._taken:
            self._proceed(visitor)
            return
        self._source_of[visitor] = source
        self._waiting.setdefault(source, {})[visitor] = None
        visitor.pauses()

    def leave(self, visitor: Visitor) -> None:
        """``visitor`` has gone, whether it was waiting or not."""
        source = self._source_of.pop(visitor, None)
        if source is not None:
            here = self._waiting[source]
            del here[visitor]
            if not here:
                del self._waiting[source]

    def _proceed(self, visitor: Visitor) -> None:
        self._taken = True
        self._reactor.callLater(0, self._next)
        visitor.proceeds()

    def _next(self) -> None:
        self._taken = False
        for source, here in self._waiting.items():
            visitor = next(iter(here))
            self._waiting.move_to_end(source)
            self.leave(visitor)
            try:
                self._proceed(visitor)
            except Exception:  # noqa: BLE001 - as the reactor does: a fault in one connection ends that one
                log.failure("a connection broke")
                visitor.abortConnection()
            return


class Visitors(WrappingFactory):
    """The listening factory: makes visitors, and adds TLS to each one whose handshake begins.

    ``patience`` is in seconds: for a visitor's first byte and for its turn. ``reactor`` is the connections' reactor, if
    it differs from ``clock``, which times them.
    """

    protocol = Visitor
    noisy = False

    def __init__(
        self,
        tls: TLSMemoryBIOFactory,
        admission: Admission,
        clock: IReactorTime,
        patience: float,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(tls)  # type: ignore[no-untyped-call]
        self.admission = admission
        self.clock = clock
        self.patience = patience
        self.handshakes = Handshakes(reactor or clock)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return Visitor(self, addr) if self.admission.may_connect(addr) else None

    def turn_away(self) -> None:
        """End the connections whose handshake has not begun."""
        for visitor in tuple(self.protocols):
            if visitor.wrappedProtocol is None:
                visitor.abortConnection()

    def abort(self) -> None:
        """Close every connection now."""
        for visitor in tuple(self.protocols):
            visitor.abortConnection()
