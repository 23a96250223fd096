"""The daemon's ends of one process's pipes or terminal."""

from __future__ import annotations

import os
from collections.abc import Callable

from teleconch.node.pty import Terminal
from teleconch.node.start import IReactorNode
from teleconch.node.streams import Feeder, Sink, Source
from teleconch.session.program import Room, Take


def _nowhere(data: bytes) -> None:
    """There is no process, or nobody to read."""


class Wires:
    """Both output streams are paused until :meth:`resume`. ``output_over`` is called when one has ended, ``input_lost``
    when the process has closed its input, except on a terminal."""

    def __init__(
        self,
        reactor: IReactorNode,
        feeder: Feeder,
        output_over: Callable[[], None],
        input_lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._feeder = feeder
        self._output_over = output_over
        self._input_lost = input_lost
        self._sources: list[Source] = []  # of stdout or the terminal, and of stderr
        self._sink: Sink | None = None

    # --- making ------------------------------------------------------------------------------------------------------

    def on_terminal(self, terminal: Terminal) -> tuple[int, int, int]:
        """Connect a terminal; returns its slave as the process's three descriptors. OSError."""
        self._source(os.dup(terminal.master), terminal=True)
        self._sink_into(os.dup(terminal.master), terminal=True)
        slave = terminal.take_slave()
        return slave, slave, slave

    def on_pipes(self) -> tuple[int, int, int]:
        """Connect three pipes; returns the process's ends. OSError, and then nothing is left open."""
        made: list[int] = []
        try:
            for _ in range(3):
                made.extend(os.pipe2(os.O_CLOEXEC))
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = made
        self._sink_into(to_stdin, terminal=False)
        self._source(from_stdout, terminal=False)
        self._source(from_stderr, terminal=False)
        return stdin, stdout, stderr

    def _source(self, fd: int, *, terminal: bool) -> None:
        self._sources.append(Source(self._reactor, fd, _nowhere, self._output_over, terminal=terminal))

    def _sink_into(self, fd: int, *, terminal: bool) -> None:
        lost = _nothing if terminal else self._input_lost
        self._sink = Sink(self._reactor, fd, self._feeder, lost, terminal=terminal)

    # --- bytes -------------------------------------------------------------------------------------------------------

    @property
    def write(self) -> Take:
        """Takes input, once something is connected."""
        return _nowhere if self._sink is None else self._sink.write

    def end_input(self) -> None:
        """No more will come: the process reads EOF after what was written."""
        if self._sink is not None:
            self._sink.finish()

    def output_to(self, stdout: Take, stderr: Take, room: Room | None) -> None:
        """Where output goes from now on; a terminal has ``stdout`` only."""
        for source, deliver in zip(self._sources, (stdout, stderr), strict=False):
            source.deliver_to(deliver, room)

    def end_output(self) -> None:
        """Nobody reads stdout any longer. What else the process says is still wanted."""
        for source in self._sources[:1]:
            source.stopProducing()
        self._output_over()

    def pause(self) -> None:
        for source in self._sources:
            source.pauseProducing()

    def resume(self) -> None:
        for source in self._sources:
            source.resumeProducing()

    def quiet(self) -> bool:
        """Whether no output waits to be read at this moment."""
        return all(source.empty() for source in self._sources)

    def over(self) -> bool:
        """Whether no more output can come."""
        return all(source.closed for source in self._sources)

    def close(self) -> None:
        """Let go of both directions. Idempotent."""
        for source in self._sources:
            source.stopProducing()
        if self._sink is not None:
            self._sink.close()


def _nothing() -> None:
    """A terminal's input has no end that anyone is told of."""
