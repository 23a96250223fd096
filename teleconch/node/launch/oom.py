"""Who is killed first when the machine has no memory left: users' processes, and not the way in (proc(5)).

As in sshd, the daemon lowers its own score, and what it starts for others gets back the original one.
Runs in the launcher, too, and so imports the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Not the lowest: a daemon that itself takes a whole machine's memory can be killed. The second needs no right unless
# somebody with one has set a higher score.
PROTECTED: Final = (-900, 0)
_FILE: Final = "/proc/self/oom_score_adj"

_before: int | None = None


def protect() -> None:
    """Lower this process's score, as far as it may. Idempotent."""
    global _before
    try:
        score = _score()
    except (OSError, ValueError):
        return  # there is no such thing here
    for lower in PROTECTED:
        if _before is None and lower < score:
            try:
                _take(lower)
            except OSError:  # a container without CAP_SYS_RESOURCE, or no root
                continue
            _before = score


def before() -> int | None:
    """The score that this process came with; ``None`` if it still has that."""
    return _before


def give_back(score: int | None) -> None:
    """Take on ``score``, if there is one: for a child that is to become another's program."""
    if score is not None:
        _take(score)


@contextmanager
def given_back() -> Iterator[None]:
    """What is started meanwhile has the score that this process came with."""
    if _before is None:
        yield
        return
    lowered = _score()
    _take(_before)
    try:
        yield
    finally:
        _take(lowered)


def _score() -> int:
    with open(_FILE) as file:
        return int(file.read())


def _take(score: int) -> None:
    fd = os.open(_FILE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)
