"""A :class:`Session` on a reactor's connection: where forwarding goes on beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.client.forward.inward import AGENT_REQUEST
from teleconch.client.session import Session
from teleconch.client.stdio import Output
from teleconch.errors import ConnectionProblem
from teleconch.ssh.channel import Channel


@implementer(IReadWriteDescriptor)
class _Stream:
    """One of the standard streams in a reactor."""

    def __init__(self, fd: int, ready: Callable[[], None]) -> None:
        self._fd = fd
        self._ready = ready
        self.wanted = False

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "tsh"

    def doRead(self) -> None:
        self._ready()

    def doWrite(self) -> None:
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        self._ready()  # what is wrong is found by reading or writing


class SessionChannel(Channel):
    """The session's ``link``. ``over`` fires once the session has ended and its output is written."""

    name = b"session"

    def __init__(
        self, reactor: Any, session: Session, agent: bool, warn: Callable[[str], None], window: int = 0
    ) -> None:
        super().__init__(localWindow=window)
        self._reactor = reactor
        self._session = session
        self._agent = agent
        self._warn = warn
        self._choked = False
        self.place = "session"
        self.over: Deferred[None] = Deferred()
        self._input = _Stream(0, self._input_ready)
        self._outputs = [
            (output, _Stream(output.fd, lambda output=output: self._output_ready(output)))  # type: ignore[misc]
            for output in (session.output, session.error)
        ]

    # --- what the session does ---

    def write_eof(self) -> None:
        self.loseWriteConnection()

    def close(self) -> None:
        self.loseConnection()

    def credit(self, count: int) -> None:
        """The window opens as the channel is read: see :meth:`update`."""

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        answer = self.conn.sendRequest(self, name, data, wantReply=int(wants_answer))
        if answer is not None:
            answer.addCallbacks(lambda _: self._answered(True), lambda _: self._answered(False))

    def _answered(self, success: bool) -> None:
        if not self._session.over:
            self._session.answered(success)
        self.update()

    # --- what the channel tells ---

    def channelOpen(self, specificData: bytes) -> None:
        if self._agent:
            answer = self.conn.sendRequest(self, AGENT_REQUEST, b"", wantReply=1)
            assert answer is not None
            answer.addErrback(
                lambda _: self._warn("The node does not forward your ssh-agent: your roles may not allow it.")
            )
        self.registerProducer(_Typing(self), True)
        self._session.opened()
        self.update()

    def dataReceived(self, data: bytes) -> None:
        self._session.data(data)
        self.update()

    def extReceived(self, dataType: int, data: bytes) -> None:
        if dataType == 1:
            self._session.error_data(data)
            self.update()

    def requestReceived(self, requestType: bytes, data: bytes) -> bool:
        self._session.request(requestType, data)
        return False

    def closed(self) -> None:
        session = self._session
        if session.status is None and session.problem is None:
            session.problem = ConnectionProblem("The connection to the node was lost.")
        session.closed()
        self.update()

    # --- the standard streams ---

    def choke(self, choked: bool) -> None:
        """Whether the node takes no more."""
        self._choked = choked
        self.update()

    def _input_ready(self) -> None:
        self._session.input_ready()
        self.update()

    def _output_ready(self, output: Output) -> None:
        output.ready()
        self._session.written()
        self.update()

    def update(self) -> None:
        """Watch what is to be watched now."""
        session = self._session
        self._watch(
            self._input, session.wants_input and not self._choked, self._reactor.addReader, self._reactor.removeReader
        )
        full = False
        for output, stream in self._outputs:
            full = full or output.full
            self._watch(stream, output.waiting, self._reactor.addWriter, self._reactor.removeWriter)
        if full:
            self.pauseProducing()
        elif not self.localClosed:
            self.resumeProducing()
        if session.done and not self.over.called:
            self.over.callback(None)

    @staticmethod
    def _watch(
        stream: _Stream, wanted: bool, add: Callable[[_Stream], None], remove: Callable[[_Stream], None]
    ) -> None:
        if wanted != stream.wanted:
            stream.wanted = wanted
            (add if wanted else remove)(stream)


@implementer(IPushProducer)
class _Typing:
    """Standard input as the channel's producer."""

    def __init__(self, channel: SessionChannel) -> None:
        self._channel = channel

    def pauseProducing(self) -> None:
        self._channel.choke(True)

    def resumeProducing(self) -> None:
        self._channel.choke(False)

    def stopProducing(self) -> None:
        self._channel.choke(True)
