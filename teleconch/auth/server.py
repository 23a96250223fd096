"""The auth server: the use cases of the auth API, and its start and stop. ``authorized.py`` says who may call them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from attrs import fields, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.codec import METHODS
from teleconch.auth.authorities import Authorities
from teleconch.auth.certificates import Certificates, TLSIdentity
from teleconch.auth.cluster import Cluster
from teleconch.auth.hosts import Hosts
from teleconch.auth.login import Logins
from teleconch.auth.names import Names
from teleconch.auth.presence import PresenceBook
from teleconch.auth.signing import Signing
from teleconch.auth.signup import Signups
from teleconch.auth.sources import Watches
from teleconch.auth.statuses import NodeStatuses
from teleconch.auth.tokens import Tokens
from teleconch.auth.users import Users
from teleconch.backend.interface import Backend
from teleconch.errors import TeleconchError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.identity import ApiIdentity

log = Logger()

TICK: Final = 2.0  # seconds between two looks at what has expired


@frozen
class UseCases:
    """Together they have each method of the API exactly once."""

    facts: Cluster
    hosts: Hosts
    presence: PresenceBook
    watches: Watches
    tokens: Tokens
    users: Users
    logins: Logins
    signups: Signups
    signing: Signing

    def by_method(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """Maps each method of the API to that of the one use case that has it. TypeError if none or several have it."""
        cases = [getattr(self, each.name) for each in fields(UseCases)]
        found = {name: [getattr(each, name) for each in cases if hasattr(each, name)] for name in METHODS}
        wrong = [name for name, methods in found.items() if len(methods) != 1]
        if wrong:
            raise TypeError(f"not exactly one use case each: {', '.join(wrong)}")
        return {name: methods[0] for name, methods in found.items()}


class AuthServer:
    """The cluster's auth server on one backend. Call :meth:`start` before anything else, :meth:`stop` at the end.

    Every method of the API is an attribute: its use case's method of the same name, without any check. Those in which a
    host speaks for itself take the caller last. ``users``, ``tokens`` and ``facts`` are for use in this process.
    ``clock.seconds()`` returns epoch seconds.
    """

    def __init__(
        self,
        backend: Backend,
        clock: IReactorTime,
        authorities: Authorities,
        certificates: Certificates,
        names: Names,
        statuses: NodeStatuses,
        use_cases: UseCases,
    ) -> None:
        self._backend = backend
        self._authorities = authorities
        self._certificates = certificates
        self._names = names
        self._statuses = statuses
        self._hosts = use_cases.hosts
        self.tokens = use_cases.tokens
        self.users = use_cases.users
        self.facts = use_cases.facts
        self.watches = use_cases.watches
        vars(self).update(use_cases.by_method())
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    async def start(self) -> None:
        """Read or make the authorities, read the nodes, and follow the clock. Unavailable."""
        await self._authorities.start()
        await self._names.index_old()
        await self._statuses.start()
        self._ticking.start(TICK, now=False).addErrback(_log_end)

    async def stop(self) -> None:
        """End all watches. The backend stays open: whoever built it closes it."""
        if self._ticking.running:
            self._ticking.stop()
        await self._statuses.stop()
        await self._authorities.stop()

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_at_the_clock())

    async def _look_at_the_clock(self) -> None:
        try:
            self._statuses.tick()
            await self._backend.sweep()
        except TeleconchError as error:
            log.error("expired items stay for now: {error}", error=str(error))
        except Exception:  # noqa: BLE001 - the boundary of the loop: it must go on
            log.failure("looking at the clock failed")

    # For the auth server's own host

    def own_identity(self, uuid: str, names: Iterable[str] = ()) -> TLSIdentity:
        """A new key and certificate for the API's listener, with these additional names and addresses. The caller makes
        one at each start, and again at half its life. No other host may have these names."""
        names = tuple(names)
        self._names.reserve(uuid, names)
        return self._certificates.own(uuid=uuid, role="auth", names=names)

    def admin_identity(self, uuid: str) -> TLSIdentity:
        """A new key and certificate for ``tctl`` on this host, to be kept in ``data_dir`` and replaced as often."""
        return self._certificates.own(uuid=uuid, role="admin")

    def trusted(self) -> tuple[TrustedAuthority, ...]:
        """The public parts of both authorities, without waiting."""
        return self._authorities.trusted()

    async def forget_host(self, uuid: str, role: str) -> None:
        """Forget a role in the auth server's own process whose names or keys have changed, so that it may join
        again."""
        await self._hosts.forget(uuid, role)

    async def check_standing(self, identity: ApiIdentity) -> None:
        """AccessDenied unless the user or host still exists: certificates outlive both."""
        if identity.kind == "user":
            await self.users.check_exists(identity.name)
        elif identity.kind == "host":
            await self._hosts.check_member(identity)


def _log_end(failure: Failure) -> None:
    log.failure("the auth server does not follow the clock any more", failure=failure)
