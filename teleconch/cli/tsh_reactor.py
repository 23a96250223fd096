"""Runs the parts of tsh that need a reactor: forwarding, several nodes at once, copies."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(main: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Returns or raises what ``main(reactor)`` does. A signal cancels it and raises :class:`Interrupted`. Call it once
    per process."""
    from twisted.internet import pollreactor  # poll, unlike epoll, takes files and /dev/null as standard input

    pollreactor.install()
    from teleconch.cli import boundary

    noted: list[int] = []

    async def watched(reactor: Any) -> T:
        from twisted.internet.defer import Deferred

        running = Deferred.fromCoroutine(main(reactor))

        def interrupted(number: int, _frame: object) -> None:
            noted.append(number)
            reactor.callFromThread(running.cancel)

        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, interrupted)
        return await running

    try:
        return boundary.run_reactor(watched)
    finally:
        if noted:
            raise Interrupted(noted[0])
