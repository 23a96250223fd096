"""Twisted's epoll loop without what it does anew for each event, though it changes seldom.

One is the context that ``twisted.python.log`` writes in front of a line; ours come from ``twisted.logger`` and have
none. The other is the search for timed calls and for calls from threads: here the loop looks whether there is any, and
goes on waiting where there is none. Both together cost more than reading a small packet and passing it on.
docs/performance.rst has what this gains.
"""

from __future__ import annotations

from select import EPOLLIN
from types import MethodType
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

import twisted

KNOWN: Final = ("26.4.0", "26.10.0")  # the Twisted whose loop is the one that was read for this (and tests compare it)
_LONGEST: Final = 2147483.0  # seconds that epoll_wait(2) can wait
_EVENTS: Final = 64  # of one wait; room for more is taken from the heap each time
_log = Logger()


def straighten(reactor: Any) -> None:
    """From now on, this reactor calls what is ready by itself. Reactors of other kinds stay as they are, and so do
    those of a Twisted that is not :data:`KNOWN`, since this relies on names that are private there. While it runs,
    nothing may call its ``iterate``."""
    if type(reactor) is not EPollReactor:
        return
    if twisted.__version__ in KNOWN:
        reactor.doIteration = MethodType(_poll, reactor)  # type: ignore[method-assign]
    else:
        _log.info("the event loop is Twisted's own: nobody has read that of {version}", version=twisted.__version__)


def _poll(reactor: Any, timeout: float | None) -> None:
    """As ``EPollReactor.doPoll``: wait, and let each ready descriptor read or write. While the reactor runs, that
    goes on until the main loop has something to do besides."""
    selectables, poll, act = reactor._selectables, reactor._poller.poll, reactor._doReadOrWrite
    wait = -1 if timeout is None else timeout
    while True:
        for fd, event in poll(wait, _EVENTS):
            found = selectables.get(fd)  # gone, where one before it has closed it
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
        found = None  # what is gone is not to live on while nothing happens
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
