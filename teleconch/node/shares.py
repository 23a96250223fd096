"""The daemon's descriptors, which all users share: one user must not take everyone else's.

With sshd, each connection has a process, and so a limit, of its own. Here nothing is limited as long as there is
plenty; once half of the descriptors are in use, a user who holds a quarter of them gets no more.
"""

from __future__ import annotations

import fcntl
import resource
from typing import Final

CROWDED: Final = 2  # in use: about the limit divided by this
LOOKED_AT: Final = 16
SHARE: Final = 4  # of one user: at most the limit divided by this
SESSION: Final = 4  # descriptors of a session: three pipes, and reports of moved files or the terminal itself
LISTENER: Final = 2  # of a listener: two addresses


def limit() -> int:
    """How many descriptors the daemon may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def crowded() -> bool:
    """Whether about half of them are in use: the kernel gives the lowest free number, so numbers around the middle are
    given out only then. Several are looked at, as a single one may be free for a moment."""
    middle = limit() // CROWDED
    return any(_in_use(fd) for fd in range(middle, middle + LOOKED_AT))


def _in_use(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def too_many(held: int) -> bool:
    """Whether ``held`` descriptors are more than one user's share, now that descriptors are short."""
    return held > limit() // SHARE
