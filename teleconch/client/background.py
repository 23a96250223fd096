"""``tsh ssh -f`` and the escape ``~&``: this process goes on as another one, and whoever waited for it goes on too."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

_PATIENCE: Final = 1000  # milliseconds


def go_on_in_background(detach: bool) -> None:
    """Return in a child that has all the sockets; the parent ends with status 0. The child has no standard input.

    ``detach``: leave the terminal's session, so that its end does not end the child.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if "twisted.internet.reactor" in sys.modules:
        _end_threads()
    if os.fork():
        os._exit(0)
    if detach:
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if "twisted.internet.reactor" in sys.modules:
        _new_threads()


def _end_threads() -> None:
    """A fork keeps one thread only, and what the others hold is held forever. So end the reactor's threads first, each
    when it has finished its work."""
    from typing import Any

    from twisted.internet import reactor as installed

    reactor: Any = installed
    if reactor.threadpool is not None:
        reactor.threadpool.stop()
        for _ in range(_PATIENCE):  # a thread that was joined takes a moment to leave the kernel
            if len(os.listdir("/proc/self/task")) == 1:
                break
            time.sleep(0.001)


def _new_threads() -> None:
    """In the child, give the reactor a pool whose threads exist."""
    from typing import Any

    from twisted.internet import reactor as installed
    from twisted.python.threadpool import ThreadPool

    reactor: Any = installed
    if reactor.threadpool is not None:
        reactor.threadpool = ThreadPool(0, 10, "twisted.internet.reactor")
        reactor.threadpool.start()
