"""Joins two byte streams: channel to channel, or channel to socket, in both directions.

Each end is the other's producer: when one cannot write, the other is not read. End of data in one direction leaves the
other open; when both are at their end, both close. The ends themselves are in ``ssh.ends``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["End", "relay"]


class End:
    """One end of a relay. :meth:`transport_end` is what takes bytes, is paused and is closed."""

    other: End | None = None
    eof_heard = False
    is_gone = False
    when_gone: Callable[[], None] | None = None  # called once, when this end is closed
    _tap: Callable[[bytes], bool] | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._early: list[bytes] = []

    def transport_end(self) -> Any:
        return self

    def takes_more(self) -> bool:
        """Whether what is written to this end goes out now."""
        return True

    def abort(self) -> None:
        """Close this end, which is no longer needed, unless it is closed already."""
        if not self.is_gone:
            self.transport_end().loseConnection()

    def tap(self, tap: Callable[[bytes], bool]) -> None:
        """Show ``tap`` what this end hears, and ``b""`` at its end, until it returns False. One at a time."""
        self._tap = tap
        self.heard = self._heard_and_shown  # type: ignore[method-assign]  # no extra call for those without a tap

    def _heard_and_shown(self, data: bytes) -> None:
        End.heard(self, data)
        tap = self._tap
        if tap is not None and not tap(data) and self._tap is tap:
            self._untap()

    def _untap(self, last: bytes | None = None) -> None:
        tap, self._tap = self._tap, None
        if tap is None:
            return
        del self.heard
        if last is not None:
            tap(last)

    def heard(self, data: bytes) -> None:
        """Bytes from this end's peer."""
        if self.other is None:
            self._early.append(data)  # at most a window, or one read: the end is paused until it is joined
        elif not self.other.is_gone:
            self.other.transport_end().write(data)

    def heard_eof(self) -> None:
        """This end's peer sends no more."""
        if self.eof_heard:
            return
        self.eof_heard = True
        self._untap(b"")
        other = self.other
        if other is None or other.is_gone:
            return
        end = other.transport_end()
        end.unregisterProducer()
        end.loseWriteConnection()
        if other.eof_heard:
            end.loseConnection()
            self.transport_end().loseConnection()

    def heard_gone(self) -> None:
        """This end is closed."""
        self.is_gone = True
        self._untap(b"")
        if self.other is not None and not self.other.is_gone:
            end = self.other.transport_end()
            end.unregisterProducer()
            end.loseConnection()
        told, self.when_gone = self.when_gone, None
        if told is not None:
            told()

    def join(self, other: End) -> None:
        self.other = other

    def give_early(self) -> None:
        """Pass on what came before the other end was there, ahead of anything that further reading brings."""
        early, self._early = self._early, []
        for data in early:
            End.heard(self, data)  # a tap has seen it

    def begin(self) -> None:
        """Tell of an end of data that came before the other end was there."""
        if self.is_gone:
            self.heard_gone()
        elif self.eof_heard:
            self.eof_heard = False
            self.heard_eof()


def relay(a: End, b: End) -> None:
    """Join two open ends. What either heard before goes first."""
    for mine, other in ((a, b), (b, a)):
        mine.join(other)
    for mine, other in ((a, b), (b, a)):
        mine.give_early()
        if not mine.is_gone and not other.is_gone:
            other.transport_end().registerProducer(mine.transport_end(), True)
            if other.takes_more():  # or else registering has paused it, and the other end resumes it
                mine.transport_end().resumeProducing()
        mine.begin()
