"""Counts wrong answers by name and source, for names that exist and for names that do not.

After five wrong answers from one source, that source is locked out for 20 minutes. That does not shut out a user who
logs in from elsewhere, and a user who has logged in from that source before only for a minute. Beyond that, a name has
three bounds over all sources from which its user has never logged in:

- a few wrong answers a minute from sources that were wrong before, and many more from new ones. Each bound refuses only
what exceeds it, so a user at a new place is slowed down but not shut out; - ten wrong codes in half an hour after the
right password. Only somebody who knows the password can reach it.

An attempt is counted before the answer is checked, and forgotten if the answer was right, so many attempts at once get
no more guesses than the same number in a row. Each count costs a turn at bcrypt and ends with the window, which bounds
how many counts there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from attrs import evolve

from teleconch import defaults
from teleconch.auth.records import LOCKOUTS, Attempts, KnownSource, SourceAttempts
from teleconch.auth.state import State, decided, put
from teleconch.backend.interface import ABSENT, Change, Check, Delete
from teleconch.rate import Rate
from teleconch.resources.lockout import Lockout

KNOWN_DURATION: Final = defaults.MINUTE  # of a lock-out at a source from which the user has logged in before
SOURCES_MAX: Final = 256  # remembered for one name: those that were wrong last
NEAR_MAX: Final = 10  # wrong codes after the right password, in a window
_NEAR_KEPT: Final = 64
NEWCOMERS: Final = Rate(50, 2.0)  # wrong answers from sources that are new to a name
REPEATERS: Final = Rate(100, 20.0)  # the same from sources that were wrong before
KNOWN_MAX: Final = 16  # sources remembered for a user
KNOWN_FOR: Final = 90 * defaults.DAY
LISTED: Final = 16  # lock-outs of one user shown to an administrator
_KNOWN_FRESH: Final = defaults.DAY  # a remembered login younger than this is not written again


def attempts_key(name: str) -> str:
    """The key under which attempts at a name are counted, whether or not there is such a user."""
    return f"{LOCKOUTS}name/{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"


def forget(name: str) -> Delete:
    """The change that clears everything held against a name."""
    return Delete(attempts_key(name))


def is_known(known: tuple[KnownSource, ...], source: str, now: float) -> bool:
    """Whether a login from ``source`` succeeded within the last 90 days."""
    return any(each.source == source and each.last > now - KNOWN_FOR for each in known)


def remembered(known: tuple[KnownSource, ...], source: str, now: float) -> tuple[KnownSource, ...]:
    """``known`` after a login from ``source``; the same object if it has a recent login from there."""
    if any(each.source == source and each.last > now - _KNOWN_FRESH for each in known):
        return known
    others = [each for each in known if each.source != source and each.last > now - KNOWN_FOR]
    return (*others[1 - KNOWN_MAX :], KnownSource(source, now))


class Lockouts:
    """Counts attempts. ``source`` is whatever counts as one source, such as an IPv4 address or an IPv6 /64."""

    def __init__(self, state: State, now: Callable[[], float]) -> None:
        self._state = state
        self._now = now

    async def begin(self, name: str, source: str, known: bool) -> bool:
        """Count an attempt. Returns whether its answer may be accepted. ``known``: the user has logged in from
        ``source`` before."""
        allowed = False

        def count(attempts: Attempts, now: float) -> Attempts:
            nonlocal allowed
            attempts, allowed = _count(attempts, source, known, now)
            return attempts

        await self._write(name, count)  # during a lock-out too, so that it takes the same time
        return allowed

    async def refused(self, name: str, source: str, near: bool) -> None:
        """The answer was wrong; ``near``: the password was right. Writes in either case, so that both take the same
        time."""

        def note(attempts: Attempts, now: float) -> Attempts:
            return evolve(attempts, near=(*attempts.near, (now, source))[-_NEAR_KEPT:]) if near else attempts

        await self._write(name, note)

    async def forgiven(self, name: str, source: str) -> Change:
        """The change that a right answer from ``source`` makes: nothing is held against that source any more."""
        found = await self._state.find(attempts_key(name), Attempts)
        if found is None:
            return Check(attempts_key(name), ABSENT)
        sources = tuple(each for each in found.record.sources if each.source != source)
        near = tuple(each for each in found.record.near if each[1] != source)
        if not sources and not near:
            return Delete(found.key, found.revision)
        attempts = evolve(found.record, sources=sources, near=near)
        return put(found.key, attempts, expires=_end(attempts), expect=found.revision)

    async def held(self, name: str) -> bool:
        """Whether anything is held against a name."""
        return await self._state.find(attempts_key(name), Attempts) is not None

    async def standing(self, name: str, known: tuple[KnownSource, ...]) -> tuple[Lockout, ...]:
        """The user's lock-outs at this moment: at most ``LISTED``, those that end last."""
        found = await self._state.find(attempts_key(name), Attempts)
        return () if found is None else _standing(name, found.record, known, self._now())

    async def _write(self, name: str, change: Callable[[Attempts, float], Attempts]) -> None:
        key = attempts_key(name)

        async def attempt() -> None:
            found = await self._state.find(key, Attempts)
            attempts = change(Attempts() if found is None else found.record, self._now())
            await self._state.commit(
                put(key, attempts, expires=_end(attempts), expect=ABSENT if found is None else found.revision)
            )

        await decided(attempt)


def _count(before: Attempts, source: str, known: bool, now: float) -> tuple[Attempts, bool]:
    since = now - defaults.LOCKOUT_WINDOW
    near = tuple(each for each in before.near if each[0] > since)
    mine = next((each for each in before.sources if each.source == source), None)
    others = tuple(each for each in before.sources if each is not mine and _last(each) > since)
    attempts = evolve(before, sources=others, near=near)
    if mine is not None and mine.locked_until is not None and now < mine.locked_until:
        return evolve(attempts, sources=(*others, mine)), False
    allowed = sum(known is False or where == source for _, where in near) < NEAR_MAX
    if not known and mine is None:
        newcomers, room = NEWCOMERS.spend(attempts.newcomers, now)
        attempts = evolve(attempts, newcomers=newcomers)
        allowed = allowed and room
    elif not known:
        repeaters, room = REPEATERS.spend(attempts.repeaters, now)
        attempts = evolve(attempts, repeaters=repeaters)
        allowed = allowed and room
    times = () if mine is None or mine.locked_until is not None else mine.times
    times = (*(time for time in times if time > since), now)
    duration = KNOWN_DURATION if known else defaults.LOCKOUT_DURATION
    locked = now + duration if len(times) >= defaults.LOCKOUT_ATTEMPTS else None
    mine = SourceAttempts(source, times, locked)
    return evolve(attempts, sources=(*others[1 - SOURCES_MAX :], mine)), allowed


def _standing(name: str, attempts: Attempts, known: tuple[KnownSource, ...], now: float) -> tuple[Lockout, ...]:
    """What :func:`_count` refuses for a while, without what the buckets refuse for a moment."""
    ends: dict[str | None, float] = {each.source: each.locked_until or 0.0 for each in attempts.sources}
    ends[None] = _near_end(attempts.near)
    for source in {where for _, where in attempts.near}:
        if is_known(known, source, now):
            own = _near_end(tuple(each for each in attempts.near if each[1] == source))
            ends[source] = max(own, ends.get(source, 0.0))
    lasting = [Lockout(name, source, until) for source, until in ends.items() if until > now]
    lasting.sort(key=lambda each: (each.source is not None, -each.until))
    return tuple(lasting[:LISTED])


def _near_end(near: tuple[tuple[float, str], ...]) -> float:
    """When fewer than ``NEAR_MAX`` of these wrong codes will be in the window; 0 if there are fewer already."""
    times = sorted(time for time, _ in near)
    return times[-NEAR_MAX] + defaults.LOCKOUT_WINDOW if len(times) >= NEAR_MAX else 0.0


def _last(attempts: SourceAttempts) -> float:
    return max(attempts.locked_until or 0.0, attempts.times[-1] if attempts.times else 0.0)


def _end(attempts: Attempts) -> float:
    """When none of it matters any more, apart from the buckets, which are full again soon after."""
    ends = [attempts.newcomers.when, attempts.repeaters.when, *(time for time, _ in attempts.near)]
    ends += [max(each.locked_until or 0.0, *each.times) for each in attempts.sources]
    return max(ends, default=0.0) + defaults.LOCKOUT_WINDOW
