"""The process that stays beside a user's process, as root, so that its PAM session can be closed behind it.

Runs in the launcher's children only, and so imports the standard library only.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterable
from typing import NoReturn


def attend(child: int, lent: Iterable[int], close: Callable[[], None]) -> NoReturn:
    """Wait for ``child``, call ``close``, and end as the child has ended.

    The child is reaped last: until then its process group keeps its number, and no signal can meet another's.
    A hang-up (the launcher ends) is passed on. The descriptors ``lent`` to the child are let go of here, so that their
    readers see the end.
    """
    status = 255 << 8
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in lent:
            os.dup2(null, fd)
        signal.signal(signal.SIGHUP, lambda number, frame: _hang_up(child))
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        close()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            number = os.WTERMSIG(status)
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    finally:
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 255)


def _hang_up(child: int) -> None:
    for number in (signal.SIGHUP, signal.SIGCONT):
        try:
            os.killpg(child, number)
        except (ProcessLookupError, PermissionError):
            pass
