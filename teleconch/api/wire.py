"""Perspective Broker, reduced to what the auth API needs, and the shape of its messages.

A call is ``message(method, (arguments: bytes[, receiver]))``; its answer is a tuple of strings: ``("ok", chunk, ...)``
or ``("error", code, sentence)``. Values are JSON inside these strings (``codec.py``), so that jelly only handles
strings, tuples and references. Nothing that a peer sends becomes any other type, and Perspective Broker itself never
tells a peer about an exception on this side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import SecurityOptions

from teleconch.errors import BadParameter, ConnectionProblem, LimitExceeded, TeleconchError, from_code

log = Logger()

OK: Final = b"ok"
ERROR: Final = b"error"
ROOT: Final = b"root"
_SENTENCE_MAX: Final = 2000  # characters of an error's sentence
# Banana copies the rest of its input for every item in it: small pieces keep that from being quadratic.
_PIECE: Final = 4096
_COMMANDS: Final = (b"version", b"message", b"answer", b"error", b"decref", b"didNotUnderstand")

Answer = tuple[Any, ...]


class _Taster(SecurityOptions):
    """What jelly may accept and send: exactly these names (Twisted's own allows every name with a dot)."""

    _names = frozenset((b"tuple", b"dictionary", b"remote", b"builtins.bytes", b"builtins.tuple", b"builtins.dict"))

    def isTypeAllowed(self, name: str | bytes) -> bool:
        return (name.encode() if isinstance(name, str) else name) in self._names


SECURITY: Final = _Taster()  # type: ignore[no-untyped-call]


class Exposed(pb.Referenceable):
    """An object that the peer may call."""

    async def answer(self, name: str, arguments: tuple[Any, ...]) -> Answer:
        """The answer to one call. Anything it raises is logged, and the peer gets an error without details."""
        raise NotImplementedError


def error_answer(error: TeleconchError) -> Answer:
    """The answer that reports a refusal."""
    return (ERROR, error.code.encode(), str(error)[:_SENTENCE_MAX].encode("utf-8", "replace"))


FAILED: Final = error_answer(TeleconchError("The other side failed to do this; its log says why."))


def read_answer(answer: object) -> Answer:
    """The parts after ``ok``. Raises the error that the peer reported, or ConnectionProblem if this is not an
    answer."""
    if isinstance(answer, tuple) and answer and answer[0] == OK:
        return answer[1:]
    if isinstance(answer, tuple) and len(answer) == 3 and answer[0] == ERROR:
        _, code, sentence = answer
        if isinstance(code, bytes) and isinstance(sentence, bytes):
            raise from_code(code.decode("ascii", "replace"), sentence.decode("utf-8", "replace"))
    raise ConnectionProblem("The auth server answered something that is not understood: are both sides up to date?")


class Brokers(Factory):
    """Makes the broker of each connection, and calls ``usable`` with it once it may be called."""

    unsafeTracebacks = False
    noisy = False

    def __init__(self, make: Callable[[], Any], usable: Callable[[Any], None] = lambda broker: None) -> None:
        self._make = make
        self._usable = usable

    def buildProtocol(self, addr: IAddress | None) -> Any:
        broker = self._make()
        broker.factory = self
        return broker

    def clientConnectionMade(self, broker: pb.Broker) -> None:
        """Perspective Broker says that it is ready."""
        self._usable(broker)


class WireBroker(pb.Broker):
    """One connection. ``message_max`` bounds each of the peer's messages (bytes), ``calls_max`` its calls in
    progress."""

    transport: Any

    def __init__(self, is_client: bool, message_max: int, calls_max: int, piece: int = _PIECE) -> None:
        super().__init__(is_client, SECURITY)  # type: ignore[no-untyped-call]
        self.message_max = message_max
        self.calls_max = calls_max
        self.calls = 0
        self._unfinished = 0
        self._piece = piece
        self._paused = False
        self._kept = b""  # arrived while the peer took no answers

    # -- what comes in

    def dataReceived(self, data: bytes) -> None:
        if self._kept:
            data, self._kept = self._kept + data, b""
        for at in range(0, len(data), self._piece):
            if self._paused:
                self._kept = data[at:]
                return
            piece = data[at : at + self._piece]
            self._unfinished += len(piece)
            if self._unfinished > self.message_max:
                self.peer_at_fault(f"a message of more than {self.message_max} bytes")
                return
            try:
                super().dataReceived(piece)  # type: ignore[no-untyped-call]
            except Exception as error:  # noqa: BLE001  a peer's bytes must not show as a traceback of ours
                self.peer_at_fault(f"{type(error).__name__} in its message")
                return
            if self.disconnected or self.transport.disconnecting:
                return

    def callExpressionReceived(self, expression: object) -> None:
        self._unfinished = 0
        super().callExpressionReceived(expression)  # type: ignore[no-untyped-call]

    def expressionReceived(self, expression: object) -> None:
        if not isinstance(expression, list) or not expression or expression[0] not in _COMMANDS:
            raise pb.ProtocolError("not a message")
        self.message_received()
        super().expressionReceived(expression)  # type: ignore[no-untyped-call]

    def message_received(self) -> None:
        """A complete message has arrived."""

    def peer_at_fault(self, what: str) -> None:
        """The peer does not speak this protocol: drop it."""
        log.warn(
            "connection to {addr_remote} dropped: {error}",
            addr_remote=self.address,
            error=what,
        )
        self.abort()

    def abort(self) -> None:
        """End the connection at once, if there is one."""
        if self.transport is not None and not self.disconnected:
            self.transport.abortConnection()

    def abortConnection(self) -> None:
        """End the connection to make room for another."""
        log.debug("connection of {addr_remote} ended: it makes room for others", addr_remote=self.address)
        self.abort()

    @property
    def address(self) -> str:
        """The peer's address, for logs."""
        peer: Any = self.transport.getPeer() if self.transport is not None else None
        return f"{peer.host}:{peer.port}" if hasattr(peer, "host") else str(peer)

    # -- calls from the peer

    def proto_message(self, request: object, target: object, name: object, _: object, args: object, kw: object) -> None:
        if not (isinstance(request, int) and isinstance(target, (int, bytes)) and isinstance(name, bytes)):
            raise pb.ProtocolError("not a call")
        arguments = self.unserialize(args)  # type: ignore[no-untyped-call]
        if not isinstance(arguments, tuple) or kw != [b"dictionary"]:
            raise pb.ProtocolError("not a call")
        local = self.localObjects.get(target)
        if local is None:
            self._answer(error_answer(BadParameter("There is no such object.")), request)
            return
        if self.calls >= self.calls_max:
            sentence = f"At most {self.calls_max} calls are served at once on a connection."
            self._answer(error_answer(LimitExceeded(sentence)), request)
            return
        self.calls += 1
        done = Deferred.fromCoroutine(local.object.answer(name.decode("ascii", "replace")[:80], arguments))
        done.addErrback(self._failed).addCallback(self._answer, request, True).addErrback(self._unanswerable)

    def proto_cachemessage(self, *_: object) -> None:
        raise pb.ProtocolError("caches are not used")

    def _failed(self, failure: Failure) -> Answer:
        log.failure("a call from {addr_remote} failed", failure=failure, addr_remote=self.address)
        return FAILED

    def _answer(self, answer: Answer, request: int, counted: bool = False) -> None:
        self.calls -= counted
        if not self.disconnected:
            self.sendCall(b"answer", request, self.serialize(answer))  # type: ignore[no-untyped-call]
            self.answered()

    def answered(self) -> None:
        """An answer has been sent."""

    def _unanswerable(self, failure: Failure) -> None:
        log.failure("an answer could not be sent", failure=failure)
        self.abort()

    def _sendError(self, failure: object, request: int) -> None:
        self._answer(FAILED, request)

    # -- calls to the peer

    def call(self, target: Any, name: str, *arguments: object) -> Deferred[Any]:
        """Call the peer's object. The Deferred fails with ConnectionProblem if the connection is lost, now or before
        the answer."""
        if self.disconnected:
            return _gone()
        called: Deferred[Any] = target.callRemote(name, *arguments)
        return called.addErrback(_lost)

    def close(self) -> None:
        """Send what has been written, then end the connection."""
        if not self.disconnected:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    # -- back-pressure: while the peer does not read its answers, its calls are not read

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._kept and not self.disconnected:
            self.dataReceived(b"")
        if not self._paused and not self.disconnected:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is gone."""


def _lost(failure: Failure) -> Failure:
    if failure.check(pb.PBConnectionLost, pb.DeadReferenceError):
        return Failure(ConnectionProblem("The connection was lost before the answer came."))
    return failure


def _gone() -> Deferred[Any]:
    gone: Deferred[Any] = Deferred()
    gone.errback(ConnectionProblem("The connection is gone."))
    return gone
