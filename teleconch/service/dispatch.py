"""Twisted's epoll loop, without the work that it repeats for each event although little of it ever changes.

One part is the context that ``twisted.python.log`` puts in front of a line; our lines come from ``twisted.logger`` and
have none. The other is the search for timed calls and for calls from threads: here the loop checks whether there are
any, and goes on waiting if not. Together they cost more than reading a small packet and passing it on.
docs/performance.rst has what this gains.
"""

from __future__ import annotations

from select import EPOLLIN
from types import MethodType
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

import twisted

KNOWN: Final = ("26.4.0", "26.10.0")  # the versions whose loop was read for this; tests compare it
_LONGEST: Final = 2147483.0  # seconds that epoll_wait(2) can wait
_EVENTS: Final = 64  # from one wait; room for more would be allocated on the heap each time
_log = Logger()


def straighten(reactor: Any) -> None:
    """Make this reactor call ready descriptors directly from now on. Reactors of other kinds stay as they are, and so
    do those of a Twisted that is not :data:`KNOWN`, since this relies on its private names. While the reactor runs,
    nothing may call its ``iterate``."""
    if type(reactor) is not EPollReactor:
        return
    if twisted.__version__ in KNOWN:
        reactor.doIteration = MethodType(_poll, reactor)  # type: ignore[method-assign]
    else:
        _log.info("using Twisted's own event loop: nobody has checked that of {version}", version=twisted.__version__)


def _poll(reactor: Any, timeout: float | None) -> None:
    """As ``EPollReactor.doPoll`` does: wait, then let each ready descriptor read or write. While the reactor runs, this
    goes on until the main loop has something else to do."""
    selectables, poll, act = reactor._selectables, reactor._poller.poll, reactor._doReadOrWrite
    wait = -1 if timeout is None else timeout
    while True:
        for fd, event in poll(wait, _EVENTS):
            found = selectables.get(fd)  # None if an earlier one has closed it
            if found is None:
                continue
            if event != EPOLLIN:
                act(found, fd, event)
                continue
            try:
                why = found.doRead()
            except BaseException as error:  # noqa: BLE001 - as Twisted's: a fault in one connection ends that one
                _log.failure("a connection broke")
                reactor._disconnectSelectable(found, error, False)
                continue
            if why:
                reactor._disconnectSelectable(found, why, True)
        found = None  # do not keep a closed descriptor alive while nothing happens
        if not reactor.running or reactor.threadCallQueue or reactor._newTimedCalls or reactor._justStopped:
            return
        if timed := reactor._pendingTimedCalls:
            wait = timed[0].time - reactor.seconds()
            if wait <= 0:
                return
            if wait > _LONGEST:
                wait = _LONGEST
        else:
            wait = -1
