"""Wrong answers are counted, for names that exist and for names that do not; after five comes a lock-out.

An attempt is counted before the answer is looked at, and forgotten when the answer was right: so many attempts at once
get no more guesses than the same ones in a row. Names that do not exist share a fixed number of counters.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock

from teleconch import defaults
from teleconch.auth.records import LOCKOUTS, Attempts
from teleconch.auth.state import State, decided, put
from teleconch.backend.interface import ABSENT, Delete
from teleconch.errors import LimitExceeded

_UNKNOWN_COUNTERS: Final = 1024
_WAITING_MAX: Final = 32  # logins of one name that wait for each other


@frozen
class Counter:
    """Where the attempts of one name are counted."""

    key: str

    def forget(self) -> Delete:
        """The change that ends the count and a lock-out."""
        return Delete(self.key)


def counter(name: str, known: bool) -> Counter:
    """The counter of a user, or the one that an unknown name shares with others."""
    return Counter(f"{LOCKOUTS}user/{name}" if known else f"{LOCKOUTS}unknown/{_shared(name)}")


def _shared(name: str) -> int:
    """Which of the counters a name shares with others as long as it is unknown."""
    number = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:4], "big")
    return number % _UNKNOWN_COUNTERS


@define
class _Turn:
    lock: DeferredLock = field(factory=DeferredLock)
    waiting: int = 0


class Lockouts:
    """Counts attempts."""

    def __init__(self, state: State, now: Callable[[], float]) -> None:
        self._state = state
        self._now = now
        self._turns: dict[int, _Turn] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """One login of a name after the other, so that right answers that come together do not count as wrong ones.

        Known and unknown names wait behind each other alike: otherwise, who keeps one unknown name busy could tell by
        the waiting time of another whether there is such a user.
        """
        number = _shared(name)
        turn = self._turns.setdefault(number, _Turn())
        if turn.waiting >= _WAITING_MAX:
            raise LimitExceeded("Too many logins at once; try again in a moment.")
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(number, None)

    async def begin(self, counter: Counter) -> bool:
        """Count an attempt. Gives whether its answer may be accepted; in a lock-out it may not."""

        async def attempt() -> bool:
            found = await self._state.find(counter.key, Attempts)
            now = self._now()
            attempts, allowed = _count(found.record if found is not None else Attempts(()), now)
            # Written in a lock-out too: it costs the same time.
            await self._state.commit(
                put(
                    counter.key,
                    attempts,
                    expires=max(attempts.locked_until or 0, attempts.times[-1] + defaults.LOCKOUT_WINDOW),
                    expect=ABSENT if found is None else found.revision,
                )
            )
            return allowed

        return await decided(attempt)


def _count(before: Attempts, now: float) -> tuple[Attempts, bool]:
    times = before.times
    if before.locked_until is not None:
        if now < before.locked_until:
            return before, False
        times = ()
    times = (*(time for time in times if time > now - defaults.LOCKOUT_WINDOW), now)
    locked = now + defaults.LOCKOUT_DURATION if len(times) >= defaults.LOCKOUT_ATTEMPTS else None
    return Attempts(times, locked), True
