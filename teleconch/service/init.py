"""A daemon that is PID 1, as in a container without an init: whoever loses their parent there becomes its child.

To reap them in the daemon would take the ends of its own children from those who wait for them. So PID 1 forks: the
child is the daemon, and what stays passes signals on, reaps whatever ends, and ends as the daemon does.
"""

from __future__ import annotations

import os
import signal
from typing import Final, NoReturn

_OWN: Final = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}  # those that cannot, or need not, be passed on
_KEPT: Final = 3  # descriptors below: the streams


def leave_first_place() -> None:
    """Returns at once where this process is not PID 1; else in its child. To be called before there are threads."""
    if os.getpid() != 1:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OWN | {signal.SIGCHLD})
    daemon = os.fork()
    if daemon:
        _serve(daemon)
    os.setpgid(0, 0)  # Ctrl-C reaches it once, and not a second time from PID 1
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_terminal() -> None:
    try:
        os.tcsetpgrp(0, os.getpgid(0))  # SIGTTOU is blocked
    except OSError:  # no terminal, or not this session's
        pass


def _serve(daemon: int) -> NoReturn:
    os.closerange(_KEPT, 1024)
    while True:
        number = signal.sigwait(signal.valid_signals() - _OWN | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(daemon, number)
            continue
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == daemon:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
            if pid == 0:
                break
