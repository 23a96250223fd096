"""A node's labels: ``key=value`` pairs by which proxies and people choose nodes.

Static ones are in the configuration. Others are what a command prints: each runs at its own period, never twice at
once, and a change of its value is told with a ping at once. A label whose command fails keeps its last value.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from teleconch.errors import BadParameter, quoted
from teleconch.node.label_run import END_LIMIT, Run
from teleconch.node.start import IReactorNode
from teleconch.text import shown

VALUE_MAX: Final = 255
PERIOD_MIN: Final = 1.0  # seconds
RUN_MAX: Final = 30.0  # seconds that a command may take, or its period if that is shorter
_KEY = re.compile(r"[A-Za-z0-9_./:*-]{1,255}", re.ASCII)

log = Logger()


@frozen
class LabelCommand:
    """The label ``name`` is what ``command`` (program and arguments, no shell) prints, every ``period`` seconds."""

    name: str
    command: tuple[str, ...]
    period: float


class Labels:
    """The labels as they are now. ``changed`` is called when a command has printed another value."""

    def __init__(
        self,
        reactor: IReactorNode,
        static: Mapping[str, str],
        commands: Iterable[LabelCommand] = (),
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """BadParameter for a key or value that could not be written in ``tsh ls key=value``."""
        commands = tuple(commands)
        for key in (*static, *(each.name for each in commands)):
            if _KEY.fullmatch(key) is None:
                raise BadParameter(
                    f"The label {quoted(key)} is not usable: a name has letters, digits and _ . / : * -."
                )
        for key, value in static.items():
            if len(value) > VALUE_MAX or not value.isprintable():
                raise BadParameter(f"The value of the label {key} must be one line of at most {VALUE_MAX} characters.")
        for each in commands:
            if not each.command or each.period < PERIOD_MIN:
                raise BadParameter(f"The label {each.name} needs a command, and a period of a second or more.")
        self._static = dict(static)
        self._commands = [_Repeated(reactor, each, changed) for each in commands]

    def current(self) -> Mapping[str, str]:
        """A copy for the next ping. A command that has printed nothing yet has an empty value."""
        return {each.name: each.value for each in self._commands} | self._static

    def start(self) -> None:
        """Run each command now, and then at its period."""
        for each in self._commands:
            each.start()

    def stop(self) -> None:
        """End what runs, all at the same time: together they may take no longer than one. Idempotent."""
        for each in self._commands:
            each.kill()
        until = time.monotonic() + END_LIMIT
        for each in self._commands:
            each.stop(until)


class _Repeated:
    """One command. States: *stopped*, *waiting* for its time, *running*."""

    def __init__(self, reactor: IReactorNode, command: LabelCommand, changed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._command = command
        self._changed = changed
        self._running: Run | None = None
        self._next: IDelayedCall | None = None
        self._due = 0.0
        self._warned = False
        self.name = command.name
        self.value = ""

    def start(self) -> None:
        self._next = None
        self._due = self._reactor.seconds() + self._command.period
        limit = min(RUN_MAX, self._command.period)
        self._running = Run(self._reactor, self._command.command, limit, self._has_run)

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def stop(self, until: float) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        running, self._running = self._running, None
        if running is not None:
            running.stop(until)

    def _has_run(self, output: bytes, problem: str | None) -> None:
        self._running = None
        self._next = self._reactor.callLater(max(0.0, self._due - self._reactor.seconds()), self.start)
        if problem is not None:
            if not self._warned:
                log.warn(
                    "the command of the label {label} failed, and the label keeps its last value: {error}",
                    label=self.name,
                    command=self._command.command,
                    error=problem,
                )
            self._warned = True
            return
        if self._warned:
            log.info("the command of the label {label} works again", label=self.name)
        self._warned = False
        value = one_line(output)
        if value != self.value:
            self.value = value
            self._changed()


def one_line(output: bytes) -> str:
    """The first line that is not empty, without control characters, cut to :data:`VALUE_MAX` characters."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    line = shown((lines or [""])[0], mark=" ")
    return line.strip()[:VALUE_MAX].rstrip()
