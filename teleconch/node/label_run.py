"""One run of a label's command: without a shell, as the daemon's user, with a time-out and bounded output."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.node.launch import oom
from teleconch.node.launch.launcher import PATH, ROOT_PATH
from teleconch.node.start import IReactorNode
from teleconch.node.streams import Source

END_LIMIT: Final = 1.0  # seconds after which a killed command is left to itself
OUTPUT_MAX: Final = 8 * 1024  # bytes; a command that prints more is ended


@implementer(IReadDescriptor)
class Run:
    """Starts at once; calls ``done(output, problem)`` once (never for a run that was stopped), ``problem`` in words.

    A descriptor of the process (pidfd) shows its end, so that nobody else's child is reaped and no signal is late.
    """

    def __init__(
        self,
        reactor: IReactorNode,
        command: Sequence[str],
        limit: float,
        done: Callable[[bytes, str | None], None],
    ) -> None:
        self._reactor = reactor
        self._done: Callable[[bytes, str | None], None] | None = done
        self._output = b""
        self._complaint = b""
        self._sources: list[Source] = []
        self._problem: str | None = None
        self._pidfd = -1
        self._limit = limit
        self._deadline = reactor.callLater(limit, self._too_long)
        try:
            with oom.given_back():
                self._popen = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={"PATH": ROOT_PATH if os.geteuid() == 0 else PATH, "LC_ALL": "C.UTF-8"},
                    cwd="/",
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            problem = f"{command[0]} cannot be run: {getattr(error, 'strerror', None) or error}."
            self._deadline.cancel()
            self._deadline = reactor.callLater(0, self._finish, problem)
            return
        self._pidfd = os.pidfd_open(self._popen.pid)
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        for file, deliver in ((self._popen.stdout, self._heard), (self._popen.stderr, self._complained)):
            source = Source(reactor, os.dup(file.fileno()), deliver, lambda: None)
            file.close()
            source.resumeProducing()
            self._sources.append(source)
        reactor.addReader(self)

    def _heard(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > OUTPUT_MAX:
            self._problem = self._problem or f"it printed more than {OUTPUT_MAX} bytes."
            self._sources[0].stopProducing()
            self._kill()

    def _complained(self, data: bytes) -> None:
        if len(self._complaint) < 200:
            self._complaint = (self._complaint + data)[:200]

    def _too_long(self) -> None:
        self._problem = self._problem or f"it did not end within {self._limit:g} s."
        self._kill()

    def _kill(self) -> None:
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def fileno(self) -> int:
        return self._pidfd

    def logPrefix(self) -> str:
        return "label"

    def doRead(self) -> None:
        """The command has ended. End what it left in its group too, as long as the group's number is its own."""
        self._read_end(END_LIMIT)

    def _read_end(self, seconds: float) -> None:
        self._reactor.removeReader(self)
        os.close(self._pidfd)
        self._pidfd = -1
        self._kill()
        status = self._wait(seconds)
        for source in self._sources:
            for _ in range(OUTPUT_MAX // 1024):  # what still waits; a child that left the group may print forever
                if source.closed or source.empty():
                    break
                source.doRead()
        problem = self._problem
        if problem is None and status:
            words = self._complaint.decode("utf-8", "replace").strip().partition("\n")[0]
            problem = f"it ended with {status}{f': {words}' if words else ''}."
        self._finish(problem)

    def _wait(self, seconds: float) -> int | None:
        """The status. At a stop, the command was only just killed, and whoever it has become may hold it."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def connectionLost(self, reason: Failure) -> None:
        pass

    def kill(self) -> None:
        """Make it end without waiting for it; :meth:`stop` follows."""
        self._done = None
        if self._pidfd >= 0:
            self._kill()

    def stop(self, until: float) -> None:
        """Let go of it without a word, at ``until`` (monotonic) at the latest. Idempotent."""
        self.kill()
        if self._pidfd >= 0:
            self._read_end(max(0.0, until - time.monotonic()))
        else:
            self._finish(None)

    def _finish(self, problem: str | None) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        for source in self._sources:
            source.stopProducing()
        done, self._done = self._done, None
        if done is not None:
            done(self._output, problem)
