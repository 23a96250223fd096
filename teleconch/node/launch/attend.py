"""The process that stays beside a user's process, as root, so that its PAM session can be closed after it.

Runs in the launcher's children only, and so imports the standard library only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterable
from typing import NoReturn

_NOTE = struct.Struct("=q")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
END = signal.SIGRTMIN + 5  # to the process that attends: end the child now. Nobody else sends this one
CLOSE_LIMIT = 60  # seconds that PAM's modules may take to close a session
HARMLESS = (  # to the launcher, and to what attends
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR),
)
_AWAITED = (signal.SIGHUP, signal.SIGCHLD, END)


class Note:
    """The status of a user's process, in memory that the launcher shares with the process that attends it.

    The attending process could end by the same signal, but never with the flag that says a core was dumped.
    """

    def __init__(self) -> None:
        """OSError or ValueError if there is no memory left."""
        self._memory = mmap.mmap(-1, _NOTE.size)

    def write(self, status: int) -> None:
        """``status`` as from ``wait()``."""
        self._memory[:] = _NOTE.pack(status + 1)

    def read(self, otherwise: int) -> int:
        """What was written, or ``otherwise`` if nothing was. Call once: the memory is given back."""
        (written,) = _NOTE.unpack(self._memory[:])
        self._memory.close()
        return written - 1 if written else otherwise


def follow_parent() -> bool:
    """From now on, this process is hung up when its parent ends, for whatever reason: nobody else could do it after
    `kill -9`. Returns whether the parent is there.

    Call after any change of ids, which would undo it. It holds through exec.
    """
    parent = os.getppid()
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0):
        raise OSError("this process cannot be bound to its parent")
    return os.getppid() == parent != 1


def attend(child: int, lent: Iterable[int], close: Callable[[], None], note: Note | None) -> NoReturn:
    """Wait for ``child``, call ``close``, write down how the child ended, and end.

    The child is reaped last: until then its process group keeps its number, and no signal can hit another's. A hang-up
    (the launcher ends) is passed on; :data:`END` kills the child, which its user may have stopped. This process lets go
    of the descriptors ``lent`` to the child, so that their readers see the end. Modules that do not finish are given up
    on after :data:`CLOSE_LIMIT`.
    """
    code = 255
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in lent:
            os.dup2(null, fd)
        for number in (signal.SIGALRM, *HARMLESS):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)  # they wait for sigwait, so that none is missed
        if not follow_parent():
            _hang_up(child)
        while (end := os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is None:
            got = signal.sigwait(_AWAITED)
            if got == signal.SIGHUP:
                _hang_up(child)
            elif got == END:
                _kill(child)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what closes the session is not to be hung up
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED[:-1])
        if note is not None:
            note.write(_status(end))
        signal.alarm(CLOSE_LIMIT)
        close()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status) & 0xFF
    finally:
        os._exit(code)


def _hang_up(child: int) -> None:
    for number in (signal.SIGHUP, signal.SIGCONT):
        try:
            os.killpg(child, number)
        except (ProcessLookupError, PermissionError):
            pass


def _kill(child: int) -> None:
    for kill in (os.killpg, os.kill):  # it may have no group of its own yet
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _status(end: os.waitid_result) -> int:
    """As from ``wait()``."""
    if end.si_code == os.CLD_EXITED:
        return end.si_status << 8
    return end.si_status | (0x80 if end.si_code == os.CLD_DUMPED else 0)
