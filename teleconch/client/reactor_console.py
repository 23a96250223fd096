"""The console on a reactor, which watches the standard streams when there is something to read or write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.client.console import Console
from teleconch.client.session import SessionRequest
from teleconch.client.stdio import Output
from teleconch.client.terminal import RawTerminal
from teleconch.errors import TeleconchError


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
        self._ready()  # reading or writing finds out what is wrong


@implementer(IPushProducer)
class ReactorConsole(Console):
    """Standard input is the channel's producer. ``over`` fires with the exit status once all output is written; a
    TeleconchError or OSError."""

    def __init__(
        self,
        reactor: Any,
        request: SessionRequest,
        raw: RawTerminal,
        warn: Callable[[str], None],
        escape: bytes = b"~",
        background: bool = False,
    ) -> None:
        super().__init__(request, raw, warn, escape, background)
        self.over: Deferred[int] = Deferred()
        self._reactor = reactor
        self._choked = False
        self._input = _Stream(0, self._input_ready)
        self._streams = [(output, self._stream(output)) for output in self.outputs]

    def _stream(self, output: Output) -> _Stream:
        return _Stream(output.fd, lambda: self._output_ready(output))

    # -- what the session tells

    def begun(self) -> None:
        super().begun()
        self._update()

    def output(self, data: bytes) -> None:
        super().output(data)
        self._update()

    def error(self, data: bytes) -> None:
        super().error(data)
        self._update()

    def ended(self) -> None:
        self._update()

    # -- the standard streams

    def pauseProducing(self) -> None:
        self._choked = True
        self._update()

    def resumeProducing(self) -> None:
        self._choked = False
        self._update()

    def stopProducing(self) -> None:
        self.pauseProducing()

    def _input_ready(self) -> None:
        self.input_ready()
        self._update()

    def _output_ready(self, output: Output) -> None:
        output.ready()
        self.written()
        self._update()

    def _update(self) -> None:
        """Watch what has to be watched now."""
        reactor = self._reactor
        self._watch(self._input, self.wants_input and not self._choked, reactor.addReader, reactor.removeReader)
        for output, stream in self._streams:
            self._watch(stream, output.waiting, reactor.addWriter, reactor.removeWriter)
        if self.done and not self.over.called:
            try:
                status = self.session.result()
            except (TeleconchError, OSError):
                self.over.errback()
            else:
                self.over.callback(status)

    @staticmethod
    def _watch(
        stream: _Stream, wanted: bool, add: Callable[[_Stream], None], remove: Callable[[_Stream], None]
    ) -> None:
        if wanted != stream.wanted:
            stream.wanted = wanted
            (add if wanted else remove)(stream)
