"""What connects one process with one channel: pipes or a terminal, and the bytes in between.

All bytes of a session pass ``Wires.to_process`` and what the two sources deliver to; a recorder can stand there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from teleconch.node.pty import Terminal
from teleconch.node.start import IReactorNode
from teleconch.node.streams import Sink, Source
from teleconch.ssh.channel import Channel

STDOUT: Final = 0
STDERR: Final = 1  # SSH_EXTENDED_DATA_STDERR


def _nowhere(data: bytes) -> None:
    """There is no process yet."""


@implementer(IPushProducer)
class Wires:
    """The daemon's ends. Toward the channel, both output streams are one producer.

    ``changed`` is called when an end may have been reached: a stream is over, or the channel takes more again.
    ``input_lost`` is called when the process has closed its input.
    """

    def __init__(
        self, reactor: IReactorNode, channel: Channel, changed: Callable[[], None], input_lost: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._channel = channel
        self._changed = changed
        self._input_lost = input_lost
        self._sources: list[Source] = []
        self._sink: Sink | None = None
        self._terminal = False
        self.to_process: Callable[[bytes], None] = _nowhere  # takes what the peer sent
        self.watched = False  # whether every piece of output is followed by ``changed``

    # --- making ------------------------------------------------------------------------------------------------------

    def on_terminal(self, terminal: Terminal) -> tuple[int, int, int]:
        """Connect a terminal; gives its slave as the process's three descriptors. OSError."""
        self._terminal = True
        self._source(os.dup(terminal.master), STDOUT)
        self._sink_into(os.dup(terminal.master))
        slave = terminal.take_slave()
        return slave, slave, slave

    def on_pipes(self) -> tuple[int, int, int]:
        """Connect three pipes; gives the process's ends. OSError, and then nothing is left open."""
        made: list[int] = []
        try:
            for _ in range(3):
                made.extend(os.pipe2(os.O_CLOEXEC))
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = made
        self._sink_into(to_stdin)
        self._source(from_stdout, STDOUT)
        self._source(from_stderr, STDERR)
        return stdin, stdout, stderr

    def _source(self, fd: int, kind: int) -> None:
        self._sources.append(
            Source(
                self._reactor,
                fd,
                self._from_stderr if kind else self._from_stdout,
                self._changed,
                terminal=self._terminal,
                room=self._channel,
            )
        )

    def _sink_into(self, fd: int) -> None:
        self._sink = Sink(self._reactor, fd, self._input_lost, terminal=self._terminal)
        self._sink.feed_from(self._channel)
        self.to_process = self._sink.write

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _from_stdout(self, data: bytes) -> None:
        self._channel.write(data)
        if self.watched:
            self._changed()

    def _from_stderr(self, data: bytes) -> None:
        self._channel.writeExtended(STDERR, data)
        if self.watched:
            self._changed()

    def end_input(self) -> None:
        """The peer sends nothing more. A terminal has no half: as with sshd, only Ctrl-D ends what reads from it."""
        if self._sink is not None and not self._terminal:
            self._sink.finish()

    def end_output(self) -> None:
        """Nobody reads the output any more. What else the process says is still wanted."""
        for source in self._sources[:1]:
            source.stopProducing()
        self._changed()

    @property
    def waiting_input(self) -> int:
        """Bytes that the process has not taken yet."""
        return 0 if self._sink is None else self._sink.size

    def quiet(self) -> bool:
        """Whether no output waits to be read at this moment."""
        return all(source.empty() for source in self._sources)

    def over(self) -> bool:
        """Whether no output can come any more."""
        return all(source.closed for source in self._sources)

    def close(self) -> None:
        """Let go of both directions. Idempotent."""
        self.stopProducing()
        if self._sink is not None:
            self._sink.close()

    # --- as the channel's producer -----------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        for source in self._sources:
            source.pauseProducing()

    def resumeProducing(self) -> None:
        for source in self._sources:
            source.resumeProducing()
        self._changed()

    def stopProducing(self) -> None:
        for source in self._sources:
            source.stopProducing()
