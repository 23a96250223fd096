"""The auth server: puts the use cases of the auth API together. Who may call them stands in ``authorized.py``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.api.codec import METHODS
from teleconch.audit.emitter import Emitter
from teleconch.auth.authorities import Authorities
from teleconch.auth.certificates import Certificates, TLSIdentity
from teleconch.auth.cluster import Cluster
from teleconch.auth.directory import Directory
from teleconch.auth.hosts import Hosts
from teleconch.auth.lockout import Lockouts
from teleconch.auth.login import Logins
from teleconch.auth.names import Names
from teleconch.auth.passwords import AT_ONCE, ROUNDS, InThread, Passwords
from teleconch.auth.presence import PresenceBook
from teleconch.auth.signing import Signing
from teleconch.auth.signup import Signups
from teleconch.auth.sources import Watches
from teleconch.auth.state import State
from teleconch.auth.tokens import Tokens
from teleconch.auth.users import Users
from teleconch.backend.interface import Backend
from teleconch.errors import BadParameter, TeleconchError, quoted
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.names import check_name
from teleconch.resources.token import Token
from teleconch.turns import Turns

log = Logger()

TICK: Final = 2.0  # seconds between two looks at what ended by the clock
LOGIN_PATIENCE: Final = 20.0  # seconds that a login waits for others; its caller waits for 30
SECOND_FACTORS: Final = ("otp", "off")


class AuthServer:
    """The cluster's auth server on one backend. Call :meth:`start` before anything else, :meth:`stop` at the end.

    Every method of the API is an attribute: the method of that name of its use case, nothing checked. Those in which a
    host speaks for itself take the caller last. ``users``, ``tokens`` and ``facts`` are for this very process.

    ``second_factor`` is ``otp`` or ``off``; ``clock.seconds()`` gives epoch seconds; ``randomness(n)`` gives n random
    bytes; ``emitter`` takes the audit events; ``in_thread`` runs a function in a thread; ``password_rounds`` is the
    logarithm of bcrypt's cost.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        cluster: str,
        second_factor: str,
        static_tokens: Iterable[Token] = (),
        clock: IReactorTime,
        emitter: Emitter,
        randomness: Callable[[int], bytes] = os.urandom,
        in_thread: InThread = deferToThread,
        password_rounds: int = ROUNDS,
    ) -> None:
        self.cluster = check_name(cluster, "Cluster name")
        if second_factor not in SECOND_FACTORS:
            raise BadParameter(f"second_factor is {' or '.join(SECOND_FACTORS)}, not {quoted(second_factor)}.")
        self._backend = backend
        self._clock = clock
        now = clock.seconds
        state = State(backend)
        passwords = Passwords(in_thread, password_rounds)
        self._authorities = Authorities(state, cluster, clock, emitter)
        self._certificates = Certificates(self._authorities, cluster, now, randomness)
        self.tokens = Tokens(state, now, randomness, emitter, static_tokens)
        self._names = Names(state, cluster, now)
        self._hosts = Hosts(state, self.tokens, self._certificates, self._names, now, emitter)
        self._directory = Directory(state, clock)
        lockouts = Lockouts(state, now)
        turns = Turns(clock, AT_ONCE, LOGIN_PATIENCE)
        self.users = Users(state, lockouts, second_factor, now, randomness, emitter)
        self.facts = Cluster(cluster, self._authorities, second_factor, now)
        self.watches = Watches(self._directory.source)
        vars(self).update(
            _by_method(
                self.facts,
                self._hosts,
                PresenceBook(state, self._names, cluster, now, emitter),
                self.watches,
                self.tokens,
                self.users,
                Logins(state, self.users, passwords, turns, lockouts, self._certificates, second_factor, now, emitter),
                Signups(state, self.users, passwords, turns, cluster, now, emitter),
                Signing(self.users, self._certificates, emitter),
            )
        )
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    async def start(self) -> None:
        """Read or make the authorities, read the nodes, and follow the clock. Unavailable."""
        await self._authorities.start()
        await self._names.index_old()
        await self._directory.start()
        self._ticking.start(TICK, now=False).addErrback(_log_end)

    async def stop(self) -> None:
        """End all watches. The backend stays open: who built it closes it."""
        if self._ticking.running:
            self._ticking.stop()
        await self._directory.stop()
        await self._authorities.stop()

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_at_the_clock())

    async def _look_at_the_clock(self) -> None:
        try:
            self._directory.tick()
            await self._backend.sweep()
        except TeleconchError as error:
            log.error("expired items stay for now: {error}", error=str(error))
        except Exception:  # noqa: BLE001 - the boundary of the loop: it must go on
            log.failure("looking at the clock failed")

    # For the auth server's own host

    def own_identity(self, uuid: str, names: Iterable[str] = ()) -> TLSIdentity:
        """A new key and certificate for the API's listener, with these additional names and addresses. Made at each
        start, and again at half its life. No other host may have these names."""
        names = tuple(names)
        self._names.reserve(uuid, names)
        return self._certificates.own(uuid=uuid, role="auth", names=names)

    def admin_identity(self, uuid: str) -> TLSIdentity:
        """A new key and certificate for ``tctl`` on this host, to be kept in ``data_dir``; likewise."""
        return self._certificates.own(uuid=uuid, role="admin")

    def trusted(self) -> tuple[TrustedAuthority, ...]:
        """The public parts of both authorities, at once."""
        return self._authorities.trusted()

    async def forget_host(self, uuid: str, role: str) -> None:
        """For a role in the auth server's own process whose names or keys changed: it may join anew."""
        await self._hosts.forget(uuid, role)

    async def check_standing(self, identity: ApiIdentity) -> None:
        """That a user or host is still there: certificates outlive both. AccessDenied."""
        if identity.kind == "user":
            await self.users.check_exists(identity.name)
        elif identity.kind == "host":
            await self._hosts.check_member(identity)


def _by_method(*use_cases: object) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Each method of the API, as the one use case that has a method of its name. TypeError where none or several do."""
    found = {name: [getattr(each, name) for each in use_cases if hasattr(each, name)] for name in METHODS}
    wrong = [name for name, methods in found.items() if len(methods) != 1]
    if wrong:
        raise TypeError(f"not exactly one use case each: {', '.join(wrong)}")
    return {name: methods[0] for name, methods in found.items()}


def _log_end(failure: Failure) -> None:
    log.failure("the auth server does not follow the clock any more", failure=failure)
