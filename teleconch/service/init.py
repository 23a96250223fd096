"""A daemon that is PID 1, as in a container without an init: every process there that loses its parent becomes its
child.

If the daemon reaped them, it would take the exit statuses of its own children from those who wait for them. So PID 1
forks. The child is the daemon; the parent passes signals on, reaps whatever ends, and exits as the daemon does.
"""

from __future__ import annotations

import os
import signal
from typing import Final, NoReturn

_OWN: Final = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}  # these cannot, or need not, be passed on
_KEPT: Final = 3  # descriptors below this: the streams


def leave_first_place() -> None:
    """Returns at once if this process is not PID 1, otherwise in its child. Call it before there are threads."""
    if os.getpid() != 1:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OWN | {signal.SIGCHLD})
    daemon = os.fork()
    if daemon:
        _serve(daemon)
    os.setpgid(0, 0)  # so that Ctrl-C reaches it once, and not again through PID 1
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_terminal() -> None:
    try:
        os.tcsetpgrp(0, os.getpgid(0))  # SIGTTOU is blocked
    except OSError:  # there is no terminal, or it is not this session's
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
