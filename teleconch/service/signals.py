"""What signals do to a daemon. No signal that service managers, logrotate or administrators send ends it silently.

- ``TERM`` and ``INT`` stop it: sessions get some seconds to end. A second one hangs them up at once. Whatever happens,
  the process ends after :data:`STOP_LIMIT`.
- ``QUIT`` stops it too, but lets sessions end by themselves, however long they take; ``TERM`` hurries that. - ``HUP``
reopens the log file. - ``USR1``, ``USR2`` and the other deadly ones that do not report a fault only make a line in the
log.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

STOP_LIMIT: Final = 25.0  # seconds; less than the units' TimeoutStopSec, more than anything that a stop waits for
LAST_WORD: Final = 2.0  # seconds more, in which the log may be written
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
IDLE: Final = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR),
)

log = Logger()


class Stoppable(Protocol):
    """What runs here (``service.roles.Roles``)."""

    def be_patient(self) -> None: ...
    def hurry(self) -> None: ...


class Signals:
    """Call :meth:`listen`, which handles all signals except those that stop, as soon as there is a log. Call
    :meth:`take_stops` once the reactor runs, which handles those until then."""

    def __init__(
        self,
        reactor: Any,
        roles: Stoppable,
        reopen: Callable[[], None],
        terminal_lost: Callable[[], bool] | None = None,
    ) -> None:
        """``reopen`` reopens the log, and reports failures itself. ``terminal_lost`` says whether a hang-up means that
        the terminal is gone and the program should end with it."""
        self._reactor = reactor
        self._roles = roles
        self._reopen = reopen
        self._terminal_lost = terminal_lost
        self._told: list[int] = []  # the signals that told it to stop

    def listen(self, also: Callable[[], None] | None = None) -> None:
        """``also`` is what USR1 does, if it means something."""
        self._on(signal.SIGHUP, self._hung_up)
        for number in IDLE:
            self._on(number, self._nothing)
        if also is not None:
            self._on(signal.SIGUSR1, lambda number: also())

    def take_stops(self) -> None:
        """Replace the reactor's own handlers, which know only one kind of stop and no hurry."""
        for number in STOPPING:
            self._on(number, self._stop)

    def _on(self, number: int, act: Callable[[int], None]) -> None:
        signal.signal(number, lambda got, frame: self._reactor.callFromThread(act, got))

    def _hung_up(self, number: int) -> None:
        if self._terminal_lost is not None and self._terminal_lost():
            self._stop(number)
            return
        self._reopen()
        log.warn("SIGHUP: the log was reopened. Reload is not supported yet: restart to change the configuration.")

    def _nothing(self, number: int) -> None:
        log.info("{signal} has no meaning for teleport and changes nothing", signal=signal.Signals(number).name)

    def _stop(self, number: int) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGQUIT:
            if self._told:
                return
            log.info("{signal}: stopping, after the sessions have ended by themselves", signal=name)
            self._roles.be_patient()
        elif self._told and self._told != [signal.SIGQUIT]:
            log.warn("{signal} again: stopping at once", signal=name)
            self._roles.hurry()
        else:
            log.info("{signal}: stopping", signal=name)
            self._bound()
            if self._told:
                self._roles.hurry()
        first = not self._told
        self._told.append(number)
        if first:
            stop(self._reactor)

    def _bound(self) -> None:
        for after, act in ((STOP_LIMIT, _say_late), (STOP_LIMIT + LAST_WORD, _give_up)):
            timer = threading.Timer(after, act)  # in a thread: the reactor's may be the one that hangs
            timer.daemon = True
            timer.start()


def stop(reactor: Any) -> None:
    """As ``reactor.stop``, even if the reactor is already stopping."""
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass


def _say_late() -> None:
    log.critical("teleport did not stop within {limit} s: ending it as it is", limit=STOP_LIMIT)


def _give_up() -> None:
    os._exit(1)
