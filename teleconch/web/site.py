"""HTTP under limits: connections, handshake, age, headers, body."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from teleconch.web.answers import HEADERS
from teleconch.web.attempts import source_of

log = Logger()

BODY_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 64
HANDSHAKE_DEADLINE: Final = 10.0
IDLE_MAX: Final = 30.0
AGE_MAX: Final = 300.0  # of a connection, however busy: nothing here takes long
CONNECTIONS: Final = 2000
CONNECTIONS_PER_SOURCE: Final = 200
COMPLAINT_PERIOD: Final = 60.0

_BAD = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_LONG = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class LimitedRequest(Request):
    """A request with a short body, kept in memory."""

    _refused = False

    def gotLength(self, length: int | None) -> None:
        self.content: BytesIO = BytesIO()
        if length is not None and length > BODY_MAX:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        if self.content.tell() + len(data) > BODY_MAX:
            self._refuse()
            return
        self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._refused:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        """Every answer gets the headers, also those that Twisted and Klein make by themselves."""
        for name, value in HEADERS.items():
            self.responseHeaders.setRawHeaders(name.encode(), [value.encode()])
        try:
            unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:  # Klein would answer too, and log a traceback each time
            self.setResponseCode(400)
            self.finish()  # type: ignore[no-untyped-call]
            return
        super().process()  # type: ignore[no-untyped-call]

    def getRequestHostname(self) -> bytes:
        # Routes do not depend on the Host header, and the routing must not choke on what a peer writes there.
        return b"localhost"

    def _refuse(self) -> None:
        self._refused = True
        self.channel.write(_TOO_LONG)
        self.channel.loseConnection()


class LimitedChannel(HTTPChannel):
    """One connection, HTTP/1.1."""

    maxHeaders = HEADERS_MAX
    site: WebSite

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        # Twisted closes the transport, which waits for this channel as its producer: for ever.
        self.write(_BAD)  # type: ignore[no-untyped-call]
        self.loseConnection()  # type: ignore[no-untyped-call]

    def finish_up(self) -> None:
        """Close, behind the answer that is being made."""
        if self.requests:
            self.persistent = 0
        else:
            self.loseConnection()  # type: ignore[no-untyped-call]


class WebSite(Site):
    """Serves one resource. Its log has no URLs: a sign-up token may stand in them."""

    displayTracebacks = False
    requestFactory = LimitedRequest
    protocol = LimitedChannel  # type: ignore[assignment]

    def __init__(self, resource: IResource, reactor: IReactorTime) -> None:
        super().__init__(resource, reactor=reactor, timeout=IDLE_MAX)  # type: ignore[no-untyped-call]
        self.channels: set[LimitedChannel] = set()

    def startFactory(self) -> None:
        """No access log, so nothing to start."""

    def log(self, request: HTTPRequest) -> None:
        log.debug(
            "{method} {status} {sent} bytes",
            method=request.method.decode("ascii", "replace"),
            status=request.code,
            sent=request.sentLength,
            addr_remote=str(getattr(request.getClientAddress(), "host", "")),
        )


@implementer(IHandshakeListener)
class _Deadlined(ProtocolWrapper):
    """Between TLS and HTTP: ends a connection whose handshake takes too long, and one that grew too old."""

    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._expect(HANDSHAKE_DEADLINE)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        self._expect(AGE_MAX)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _expect(self, seconds: float) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = self.factory.clock.callLater(seconds, self._late)

    def _late(self) -> None:
        self.abortConnection()


class _Deadlines(WrappingFactory):
    protocol = _Deadlined

    def __init__(self, site: WebSite, clock: IReactorTime) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self.clock = clock


class _Counted(ProtocolWrapper):
    """Under TLS: a connection that is counted until it is lost."""

    source = ""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.gone(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class WebConnections(WrappingFactory):
    """What listens on the web port: counts connections, then TLS, deadlines and HTTP."""

    protocol = _Counted
    noisy = False

    def __init__(self, resource: IResource, tls: IOpenSSLServerConnectionCreator, reactor: IReactorTime) -> None:
        self._site = WebSite(resource, reactor)
        deadlines = _Deadlines(self._site, reactor)
        super().__init__(TLSMemoryBIOFactory(tls, False, deadlines, reactor))  # type: ignore[no-untyped-call]
        self._clock = reactor
        self._sources: Counter[str] = Counter()
        self._open = 0
        self._complained = -COMPLAINT_PERIOD

    def buildProtocol(self, addr: IAddress | None) -> Any:
        source = source_of(str(getattr(addr, "host", "")))
        if self._open >= CONNECTIONS or self._sources[source] >= CONNECTIONS_PER_SOURCE:
            self._refused(source)
            return None
        wrapper: Any = super().buildProtocol(addr)
        wrapper.source = source
        self._sources[source] += 1
        self._open += 1
        return wrapper

    def gone(self, connection: _Counted) -> None:
        self._open -= 1
        self._sources[connection.source] -= 1
        if self._sources[connection.source] <= 0:
            del self._sources[connection.source]

    def _refused(self, source: str) -> None:
        # A flood must not fill the log.
        if self._clock.seconds() - self._complained >= COMPLAINT_PERIOD:
            self._complained = self._clock.seconds()
            log.warn("connections to the web port are refused: too many are open", addr_remote=source, open=self._open)

    def finish_up(self) -> None:
        """Close every connection, each behind the answer that is being made."""
        for channel in tuple(self._site.channels):
            channel.finish_up()

    def abort(self) -> None:
        """Close every connection now."""
        for connection in tuple(self.protocols):
            connection.abortConnection()
