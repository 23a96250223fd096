"""HTTP under limits: connections, handshake, age, headers, body."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import (
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

from teleconch.admission import Admission, Bounds, Room
from teleconch.visitors import Visitors
from teleconch.web.answers import HEADERS

log = Logger()

BODY_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 64
HANDSHAKE_DEADLINE: Final = 10.0  # seconds until one begins, and as long again until it is complete
IDLE_MAX: Final = 30.0
REQUEST_MAX: Final = 60.0  # seconds from one answer, or the handshake, until the next request is complete
AGE_MAX: Final = 300.0  # seconds of a connection, however busy: nothing here takes long
CONNECTIONS: Final = 2000
# For connections that have said nothing, are in the handshake, owe us a request, and are getting an answer.
STEPS: Final = (Room(1000, 500), Room(400, 200), Room(400, 200), Room(200, 100))
READING, ANSWERING = 2, 3

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
        """Process the request. Every answer gets the headers, even those that Twisted and Klein make by themselves."""
        channel: Any = self.channel
        channel.transport.came_to(ANSWERING)
        for name, value in HEADERS.items():
            self.responseHeaders.setRawHeaders(name.encode(), [value.encode()])
        try:
            unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:  # Klein would answer as well, but log a traceback each time
            self.setResponseCode(400)
            self.finish()  # type: ignore[no-untyped-call]
            return
        super().process()  # type: ignore[no-untyped-call]

    def getRequestHostname(self) -> bytes:
        # Routes do not depend on the Host header, and routing must not choke on what a peer writes there.
        return b"localhost"

    def _refuse(self) -> None:
        self._refused = True
        self.channel.write(_TOO_LONG)
        self.channel.loseConnection()


class LimitedChannel(HTTPChannel):
    """One connection, HTTP/1.1."""

    maxHeaders = HEADERS_MAX
    site: WebSite
    transport: Any

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def requestDone(self, request: HTTPRequest) -> None:
        self.transport.came_to(READING)
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        # Twisted closes the transport, which would wait for ever for this channel as its producer.
        self.write(_BAD)  # type: ignore[no-untyped-call]
        self.loseConnection()  # type: ignore[no-untyped-call]

    def finish_up(self) -> None:
        """Close, after the answer that is in progress."""
        if self.requests:
            self.persistent = 0
        else:
            self.loseConnection()  # type: ignore[no-untyped-call]


class WebSite(Site):
    """Serves one resource. Its log has no URLs: they may hold a sign-up token."""

    displayTracebacks = False
    requestFactory = LimitedRequest
    protocol = LimitedChannel  # type: ignore[assignment]

    def __init__(self, resource: IResource, reactor: IReactorTime) -> None:
        super().__init__(resource, reactor=reactor, timeout=IDLE_MAX)  # type: ignore[no-untyped-call]
        self.channels: set[LimitedChannel] = set()

    def startFactory(self) -> None:
        """There is no access log, so there is nothing to start."""

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
    """Between TLS and HTTP: ends a connection whose handshake or request takes too long, or that has grown too old."""

    transport: Any
    _deadline: IDelayedCall | None = None
    _oldest = 0.0  # when it will have grown too old

    def connectionMade(self) -> None:
        self._oldest = self.factory.clock.seconds() + AGE_MAX
        self._expect(HANDSHAKE_DEADLINE)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        self.transport.transport.handshaken()
        self.came_to(READING)

    def came_to(self, step: int) -> None:
        """The connection now waits for a request, or has one that is being answered."""
        self.factory.admission.advanced(self.transport.transport, step)
        if self._deadline is not None and self._deadline.active():
            left = self._oldest - self.factory.clock.seconds()
            self._expect(max(0.0, min(REQUEST_MAX, left) if step == READING else left))

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

    def __init__(self, site: WebSite, clock: IReactorTime, admission: Admission) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self.clock = clock
        self.admission = admission


class WebConnections(Visitors):
    """Listens on the web port: counts connections, then adds TLS, deadlines and HTTP."""

    def __init__(self, resource: IResource, tls: IOpenSSLServerConnectionCreator, reactor: IReactorTime) -> None:
        self._site = WebSite(resource, reactor)
        admission = Admission(Bounds(CONNECTIONS, STEPS), reactor.seconds, "web")
        deadlines = _Deadlines(self._site, reactor, admission)
        super().__init__(TLSMemoryBIOFactory(tls, False, deadlines, reactor), admission, reactor, HANDSHAKE_DEADLINE)

    def finish_up(self) -> None:
        """Close every connection, each after the answer that is in progress."""
        self.turn_away()
        for channel in tuple(self._site.channels):
            channel.finish_up()
