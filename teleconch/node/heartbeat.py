"""Pings: the node tells the auth server that it is alive, and what it is.

States: *reached* (the last ping was answered) and *lost* (it was not). Entering *lost* logs one line, and leaving it
another; in between, the node tries again with back-off and full jitter. A refusal (two nodes with one UUID, a node that
was removed) is logged once, as its sentence, and tried again at the usual pace, since only people can help.
Sessions do not depend on any of this.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch import defaults
from teleconch.api.backoff import full_jitter
from teleconch.api.interface import Hosts
from teleconch.errors import (
    AccessDenied,
    AlreadyJoined,
    BadParameter,
    ClockSkew,
    NotFound,
    TeleconchError,
    TrustError,
)
from teleconch.resources.host import Ping
from teleconch.resources.node import Node

CALL_DEADLINE: Final = 30.0  # seconds for one ping to be answered
GOODBYE_DEADLINE: Final = 3.0
INTERVAL_MIN: Final = 1.0
_REFUSALS = (AlreadyJoined, AccessDenied, BadParameter, ClockSkew, NotFound, TrustError)

log = Logger()


class Heartbeat:
    """Pings until stopped. ``describe`` returns what to tell; ``now`` is epoch seconds.

    ``reached`` is called after each ping that was answered, ``refused``, with the error, after each that was refused;
    ``first`` fires after the first ping, whatever became of it. ``instance`` is random per process, so that the auth
    server can tell two nodes with one UUID from a restart.
    """

    def __init__(
        self,
        clock: IReactorTime,
        hosts: Hosts,
        describe: Callable[[], Node],
        *,
        instance: str,
        chance: random.Random,
        now: Callable[[], float],
        interval: float = defaults.PING_INTERVAL,
        reached: Callable[[], None] = lambda: None,
        refused: Callable[[TeleconchError], None] = lambda error: None,
    ) -> None:
        self._clock = clock
        self._hosts = hosts
        self._describe = describe
        self._instance = instance
        self._chance = chance
        self._now = now
        self._interval = interval
        self._reached = reached
        self._refused = refused
        self.first: Deferred[None] = Deferred()
        self._running = False
        self._next: IDelayedCall | None = None
        self._call: Deferred[Ping] | None = None
        self._changed = False
        self._failures = 0
        self._lost_since: float | None = None
        self._told: str | None = None
        self._skew_told = False

    @property
    def failures(self) -> int:
        """Pings that failed in a row."""
        return self._failures

    def start(self) -> None:
        """Send the first ping now."""
        self._running = True
        self._ping()

    def changed(self) -> None:
        """What ``describe`` returns has changed: ping now, or as soon as the running ping is answered."""
        if not self._running:
            return
        if self._call is not None:
            self._changed = True
        elif self._failures == 0:  # while the auth server is lost, the next try tells anyway
            self._ping()

    async def stop(self) -> None:
        """Stop, and say goodbye so that the node shows as offline at once. Never fails."""
        if not self._running:
            return
        self._running = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._call is not None:
            self._call.cancel()
        if self._failures:
            return  # nobody to say it to
        goodbye = Deferred.fromCoroutine(self._hosts.goodbye(self._instance))
        goodbye.addTimeout(GOODBYE_DEADLINE, self._clock)
        try:
            await goodbye
        except (TeleconchError, DeferredTimeout) as error:
            log.info("the auth server could not be told that this node is stopping: {error}", error=str(error))

    # --- one ping ----------------------------------------------------------------------------------------------------

    def _ping(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        self._changed = False
        sent = self._now()
        call = self._call = Deferred.fromCoroutine(self._hosts.heartbeat(self._describe(), self._instance))
        call.addTimeout(CALL_DEADLINE, self._clock)
        call.addCallbacks(self._answered, self._failed, callbackArgs=(sent,))
        call.addErrback(self._broken)
        call.addCallback(self._once)

    def _answered(self, ping: Ping, sent: float) -> None:
        self._call = None
        if not self._running:
            return
        if self._lost_since is not None:
            log.info(
                "the auth server answers again, after {seconds} s",
                seconds=round(self._clock.seconds() - self._lost_since),
            )
        self._failures = 0
        self._lost_since = None
        self._told = None
        self._check_clock(ping.time - (sent + self._now()) / 2)
        self._interval = max(INTERVAL_MIN, ping.interval)
        self._schedule(0.0 if self._changed else self._pace())
        self._reached()

    def _once(self, _: object) -> None:
        if not self.first.called:
            self.first.callback(None)

    def _pace(self) -> float:
        """Never later than asked for, never more than twice as often, and no two nodes in step."""
        return self._interval * (0.5 + self._chance.random() / 2)

    def _failed(self, failure: Failure) -> None:
        self._call = None
        if not self._running:
            failure.trap(CancelledError, TeleconchError, DeferredTimeout)
            return
        failure.trap(TeleconchError, DeferredTimeout)
        sentence = str(failure.value) or "no answer in time"
        if failure.check(DeferredTimeout):
            sentence = f"It did not answer within {CALL_DEADLINE:.0f} s."
        self._failures += 1
        if self._lost_since is None:
            self._lost_since = self._clock.seconds()
        if failure.check(*_REFUSALS):
            if sentence != self._told:
                log.error("the auth server refuses this node's pings: {error}", error=sentence)
            self._told = sentence
            self._schedule(self._pace())
            assert isinstance(failure.value, TeleconchError)
            self._refused(failure.value)
            return
        if self._told is None:
            log.warn(
                "the auth server cannot be reached; sessions go on, and this node keeps trying: {error}",
                error=sentence,
            )
            self._told = sentence
        self._schedule(full_jitter(self._chance, self._failures))

    def _broken(self, failure: Failure) -> None:
        # A fault of ours must not end the pings for good.
        log.failure("a ping failed unexpectedly", failure)
        self._call = None
        self._failures += 1
        if self._running:
            self._schedule(self._pace())

    def _schedule(self, seconds: float) -> None:
        if self._running:
            self._next = self._clock.callLater(seconds, self._ping)

    def _check_clock(self, skew: float) -> None:
        if abs(skew) <= defaults.CLOCK_SKEW_MAX:
            self._skew_told = False
        elif not self._skew_told:
            self._skew_told = True
            log.warn(
                "the clocks of this node and the auth server differ by {seconds} s ({direction}): certificates may be"
                " refused until both are set, for example by NTP",
                seconds=round(abs(skew)),
                direction="this one is behind" if skew > 0 else "this one is ahead",
            )
