"""What keeps a host a member: renewing its certificates at half their life, and learning new authorities."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch import defaults
from teleconch.api.backoff import full_jitter
from teleconch.api.held import Held
from teleconch.api.interface import AuthAPI
from teleconch.api.join import Joining
from teleconch.errors import AccessDenied, TeleconchError
from teleconch.resources.host import RenewRequest
from teleconch.resources.times import utc_text

log = Logger()

_LOOK_EVERY: Final = 10 * defaults.MINUTE  # seconds between looks at the clock, which may be set, or have slept
_FIRST_RENEWAL: Final = 5 * defaults.MINUTE  # after the join, plus up to as much again at random
_RETRY_MAX: Final = 10 * defaults.MINUTE  # between attempts to renew


class Upkeep:
    """Renews what ``held`` holds, through ``api`` as this host. Calls ``renewed`` once new certificates are in
    place."""

    def __init__(
        self,
        reactor: Any,
        held: Held,
        joining: Joining,
        api: AuthAPI,
        renewed: Callable[[], None],
        *,
        now: Callable[[], float],
        chance: random.Random,
        version: str,
    ) -> None:
        self._reactor = reactor
        self._held = held
        self._joining = joining
        self._api = api
        self._renewed = renewed
        self._now = now
        self._chance = chance
        self._version = version
        self._running: set[Deferred[None]] = set()
        self._acknowledged = False  # the auth server has accepted this host as a member since the start
        self._doubted = False

    def start(self, joined: bool) -> None:
        """Renew in time from now on. ``joined``: the host has just joined."""
        self._acknowledged = self._acknowledged or joined
        self._run(self._upkeep())

    def stop(self) -> None:
        """End timers and calls. Idempotent."""
        for each in tuple(self._running):
            each.cancel()

    # -- renewal

    async def _upkeep(self) -> None:
        failures = 0
        while True:
            given = self._held.certificates
            # A little before half, and no two hosts in step.
            life = given.valid_before - given.valid_after
            chance = self._chance.random()
            due = given.valid_after + life * (0.5 - 0.05 * chance)
            if life < defaults.DAY:  # a host that has just joined: its next certificates will last longer
                due = min(due, given.valid_after + defaults.BACKDATE + _FIRST_RENEWAL * (1 + chance))
            while (wait := due - self._now()) > 0:
                await deferLater(self._reactor, min(wait, _LOOK_EVERY))
            if await self._renew():
                failures = 0
            else:
                await deferLater(self._reactor, full_jitter(self._chance, failures, _RETRY_MAX))
                failures += 1

    async def _renew(self) -> bool:
        request = RenewRequest(self._held.keys.ssh_public, self._held.keys.tls_public, self._now(), self._version)
        try:
            self._held.adopt(await self._api.renew(request))
        except TeleconchError as error:
            log.warn(
                "the certificates of this host, valid until {end}, cannot be renewed now: {error}",
                server_id=self._held.uuid,
                end=utc_text(self._held.expires),
                error=str(error),
            )
            if isinstance(error, AccessDenied):
                await self._join_again()
            return False
        self._acknowledged = True
        self._renewed()
        end = utc_text(self._held.expires)
        log.info("renewed the certificates of this host until {end}", end=end)
        return True

    async def _join_again(self) -> None:
        """Join again after a removal from the cluster: only with a token, and only if the removal was before the
        start."""
        if not self._joining.has_token or self._acknowledged:
            return
        try:
            await self._joining.join()
        except TeleconchError as error:
            uuid = self._held.uuid
            log.warn("this host cannot join again: {error}", server_id=uuid, error=str(error))
        else:
            self._acknowledged = True
            self._renewed()
            log.info("this host joined again", server_id=self._held.uuid)

    def acknowledged(self) -> None:
        """The auth server answered this host as a member."""
        self._acknowledged = True

    def refused(self, error: TeleconchError) -> None:
        """The auth server refused a call from this host. If access was denied, find out, once, whether it is still a
        member."""
        if isinstance(error, AccessDenied) and not self._doubted and not self._acknowledged:
            self._doubted = True
            self._run(self._ask_for_renewal())

    async def _ask_for_renewal(self) -> None:
        await self._renew()

    # -- authorities

    def connected(self) -> None:
        """The client has a new connection: a good moment to learn of new authorities."""
        self._run(self._refresh())

    async def _refresh(self) -> None:
        try:
            authorities = await self._api.authorities()
        except TeleconchError as error:
            log.info("the authorities could not be asked for: {error}", error=str(error))
            self.refused(error)
            return
        self.acknowledged()
        self._held.learn(authorities)

    # -- parts

    def _run(self, job: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(job)
        self._running.add(running)
        running.addErrback(self._failed).addBoth(lambda _: self._running.discard(running))

    @staticmethod
    def _failed(failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("the upkeep of this host's membership failed", failure=failure)
