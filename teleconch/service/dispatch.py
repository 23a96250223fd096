"""Twisted's epoll loop without the log context that it makes anew for each event.

The context is what ``twisted.python.log`` writes in front of a line; ours come from ``twisted.logger`` and have none.
Making it costs as much as reading a small packet from a socket.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from twisted.internet.epollreactor import EPollReactor


def without_log_context(reactor: Any) -> None:
    """From now on, this reactor calls what is ready by itself. Reactors of other kinds stay as they are."""
    if type(reactor) is EPollReactor:
        reactor.doIteration = MethodType(_do_poll, reactor)  # type: ignore[method-assign]


def _do_poll(reactor: Any, timeout: float | None) -> None:
    """What ``EPollReactor.doPoll`` does: wait, and let each ready descriptor read or write."""
    selectables, act = reactor._selectables, reactor._doReadOrWrite
    for fd, event in reactor._poller.poll(-1 if timeout is None else timeout, len(selectables)):
        found = selectables.get(fd)  # gone, where one before it has closed it
        if found is not None:
            act(found, fd, event)
