"""SIGHUP and SIGTERM as an exception, so that files that were being moved are reported on the way out."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_SIGNALS = (signal.SIGHUP, signal.SIGTERM)


class HungUp(Exception):
    """The session is over."""


def catch() -> None:
    """From now on, the first of these signals raises :class:`HungUp`, wherever this process is; others do nothing."""
    for number in _SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise HungUp
