"""The auth server: every use case of the auth API, and no checks (those stand in ``authorized.py``)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

import teleconch
from teleconch.api.interface import NodeReceiver, Watch
from teleconch.auth.authorities import Authorities
from teleconch.auth.certificates import Certificates, TLSIdentity
from teleconch.auth.directory import Directory
from teleconch.auth.hosts import Hosts
from teleconch.auth.lockout import Lockouts
from teleconch.auth.login import Logins
from teleconch.auth.names import Names
from teleconch.auth.passwords import AT_ONCE, ROUNDS, InThread, Passwords
from teleconch.auth.presence import PresenceBook
from teleconch.auth.signup import Signups
from teleconch.auth.state import State
from teleconch.auth.tokens import Tokens
from teleconch.auth.users import Users
from teleconch.backend.interface import Backend
from teleconch.ca.authority import ca_pin
from teleconch.errors import BadParameter, LimitExceeded, TeleconchError, quoted
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates, JoinRequest, Ping, RenewRequest
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.lockout import Lockout
from teleconch.resources.login import (
    ClusterStatus,
    LoginRequest,
    SignedHost,
    Signup,
    SignupToken,
    UserCertificates,
)
from teleconch.resources.names import check_name
from teleconch.resources.node import Node, NodePage, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User
from teleconch.turns import Turns

log = Logger()

CALLS_AT_ONCE: Final = 10  # of one host, to one method; each of its processes makes one at a time
TICK: Final = 2.0  # seconds between two looks at what ended by the clock
LOGIN_PATIENCE: Final = 20.0  # seconds that a login waits for others; its caller waits for 30
SECOND_FACTORS: Final = ("otp", "off")


class AuthServer:
    """The cluster's auth server on one backend. Call :meth:`start` before anything else, :meth:`stop` at the end.

    ``second_factor`` is ``otp`` or ``off``; ``clock.seconds()`` gives epoch seconds; ``randomness(n)`` gives n random
    bytes; ``in_thread`` runs a function in a thread; ``password_rounds`` is the logarithm of bcrypt's cost.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        cluster: str,
        second_factor: str,
        static_tokens: Iterable[Token] = (),
        clock: IReactorTime,
        randomness: Callable[[int], bytes] = os.urandom,
        in_thread: InThread = deferToThread,
        password_rounds: int = ROUNDS,
    ) -> None:
        self.cluster = check_name(cluster, "Cluster name")
        if second_factor not in SECOND_FACTORS:
            raise BadParameter(f"second_factor is {' or '.join(SECOND_FACTORS)}, not {quoted(second_factor)}.")
        self.second_factor = second_factor
        self._backend = backend
        self._clock = clock
        now = clock.seconds
        state = State(backend)
        passwords = Passwords(in_thread, password_rounds)
        self._authorities = Authorities(state, cluster, now)
        self._certificates = Certificates(self._authorities, cluster, now, randomness)
        self._tokens = Tokens(state, now, randomness, static_tokens)
        self._names = Names(state, cluster, now)
        self._hosts = Hosts(state, self._tokens, self._certificates, self._names, now)
        self._presence = PresenceBook(state, self._names, cluster, now)
        self._directory = Directory(state, clock)
        lockouts = Lockouts(state, now)
        turns = Turns(clock, AT_ONCE, LOGIN_PATIENCE)
        self._users = Users(state, lockouts, second_factor, now, randomness)
        self._signups = Signups(state, self._users, passwords, turns, cluster, now)
        self._logins = Logins(state, self._users, passwords, turns, lockouts, self._certificates, second_factor, now)
        self._calls: Counter[tuple[str, str, tuple[str, ...]]] = Counter()  # under way, of hosts about themselves
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
            await self._users.check_exists(identity.name)
        elif identity.kind == "host":
            await self._hosts.check_member(identity)

    # Join, Hosts

    async def join(self, request: JoinRequest, caller: ApiIdentity = ANONYMOUS) -> HostCertificates:
        return await self._hosts.join(request, caller)

    async def renew(self, identity: ApiIdentity, request: RenewRequest) -> HostCertificates:
        with self._few_at_once("renew", identity):
            return await self._hosts.renew(identity, request)

    async def heartbeat(self, identity: ApiIdentity, node: Node, instance: str) -> Ping:
        with self._few_at_once("heartbeat", identity):
            return await self._presence.heartbeat(identity, node, instance)

    async def goodbye(self, identity: ApiIdentity, instance: str) -> None:
        with self._few_at_once("goodbye", identity):
            await self._presence.goodbye(identity, instance)

    @contextmanager
    def _few_at_once(self, method: str, identity: ApiIdentity) -> Iterator[None]:
        """Around what a host writes about itself. LimitExceeded while some such calls of it are under way: all write
        the same record, so each of many at once would be tried again for each of the others."""
        call = (method, identity.name, identity.roles)
        if self._calls[call] >= CALLS_AT_ONCE:
            raise LimitExceeded(f"Several calls of {method} of this host are under way: wait for their answers.")
        self._calls[call] += 1
        try:
            yield
        finally:
            self._calls[call] -= 1
            if not self._calls[call]:
                del self._calls[call]

    # Cluster

    async def status(self) -> ClusterStatus:
        trusted = self._authorities.trusted()
        return ClusterStatus(
            cluster=self.cluster,
            version=teleconch.__version__,
            second_factor=self.second_factor,
            authorities=trusted,
            ca_pins=tuple(ca_pin(cert) for each in trusted if each.type == "host" for cert in each.tls_certs),
            time=self._clock.seconds(),
        )

    async def authorities(self) -> tuple[TrustedAuthority, ...]:
        return self._authorities.trusted()

    # Nodes

    async def list_nodes(self, after: str, limit: int) -> NodePage:
        return await self._presence.list(after, limit)

    async def get_node(self, uuid: str) -> NodeStatus:
        return await self._presence.get(uuid)

    async def delete_node(self, uuid: str) -> None:
        await self._presence.delete(uuid)

    async def watch_nodes(self, receiver: NodeReceiver) -> Watch:
        return self._directory.watch(receiver)

    # Tokens

    async def create_token(self, roles: tuple[str, ...], ttl: float, value: Secret | None) -> Token:
        return await self._tokens.create(roles, ttl, value)

    async def list_tokens(self) -> tuple[Token, ...]:
        return await self._tokens.list()

    async def delete_token(self, value: Secret) -> None:
        await self._tokens.delete(value)

    # Users

    async def create_user(self, user: User, ttl: float) -> SignupToken:
        return await self._users.create(user, ttl)

    async def upsert_user(self, user: User, replace: bool) -> None:
        await self._users.upsert(user, replace)

    async def reset_user(self, name: str, ttl: float) -> SignupToken:
        return await self._users.reset(name, ttl)

    async def unlock_user(self, name: str) -> bool:
        return await self._users.unlock(name)

    async def get_user(self, name: str) -> User:
        return await self._users.get(name)

    async def list_users(self) -> tuple[User, ...]:
        return await self._users.list()

    async def list_lockouts(self) -> tuple[Lockout, ...]:
        return await self._users.lockouts()

    async def delete_user(self, name: str) -> None:
        await self._users.delete(name)

    # Logins

    async def login(self, request: LoginRequest) -> UserCertificates:
        return await self._logins.login(request)

    async def start_signup(self, token: Secret) -> Signup:
        return await self._signups.start(token)

    async def finish_signup(self, token: Secret, password: Secret, otp: str) -> str:
        return await self._signups.finish(token, password, otp)

    # Signing

    async def sign_user(self, name: str, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        return await self._logins.sign(name, ssh_public_key, tls_public_key, ttl)

    async def sign_host(
        self, names: tuple[str, ...], ssh_public_key: str, tls_public_key: str, ttl: float
    ) -> SignedHost:
        signed = self._certificates.openssh_host(names, ssh_public_key, tls_public_key, ttl)
        log.info("signed a host certificate for {names}", names=names, ttl=ttl, event="cert.create")
        return signed


def _log_end(failure: Failure) -> None:
    log.failure("the auth server does not follow the clock any more", failure=failure)
