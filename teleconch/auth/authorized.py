"""The auth API as one identity may use it: every call is checked against one table, then passed on.

Nothing is decided in ``auth/server.py``, so nothing reaches it but through here. A method without a rule cannot be
called; a test walks the API's protocols and fails on one that lacks a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from twisted.logger import Logger

from teleconch.api.interface import NodeReceiver, Watch
from teleconch.api.perspectives import described, perspectives_of
from teleconch.auth.server import AuthServer
from teleconch.errors import AccessDenied, quoted
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates, JoinRequest, Ping, RenewRequest
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.lockout import Lockout
from teleconch.resources.login import ClusterStatus, LoginRequest, SignedHost, Signup, SignupToken, UserCertificates
from teleconch.resources.node import Node, NodePage, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.times import utc_text
from teleconch.resources.token import Token
from teleconch.resources.user import User

log = Logger()

_ANONYMOUS: Final = frozenset(("anonymous",))
_HOSTS: Final = frozenset(("node", "proxy"))
_PROXY: Final = frozenset(("proxy",))
_MEMBERS: Final = frozenset(("node", "proxy", "user", "admin"))
_ADMIN: Final = frozenset(("admin",))

RULES: Final[Mapping[str, frozenset[str]]] = {
    "join": _ANONYMOUS | _HOSTS,  # as a host, to show who it is already
    "status": _MEMBERS,
    "authorities": _MEMBERS,
    "renew": _HOSTS,
    "heartbeat": _HOSTS,
    "goodbye": _HOSTS,
    "list_nodes": _MEMBERS,
    "get_node": _MEMBERS,
    "watch_nodes": _HOSTS | _ADMIN,
    "delete_node": _ADMIN,
    "create_token": _ADMIN,
    "list_tokens": _ADMIN,
    "delete_token": _ADMIN,
    "create_user": _ADMIN,
    "upsert_user": _ADMIN,
    "reset_user": _ADMIN,
    "unlock_user": _ADMIN,
    "get_user": _ADMIN,
    "list_users": _ADMIN,
    "list_lockouts": _ADMIN,
    "delete_user": _ADMIN,
    "login": _PROXY,
    "start_signup": _PROXY,
    "finish_signup": _PROXY,
    "sign_user": _ADMIN,
    "sign_host": _ADMIN,
}
"""Method to the perspectives that may call it."""


class AuthorizedAPI:
    """``server`` as ``identity`` may use it, with ``now`` (epoch seconds) for its expiry.

    AccessDenied for anything that :data:`RULES` does not give, and for users and hosts that were removed while their
    certificates still live. Calls by which a host speaks for itself are passed on with the identity, and are held to
    it here: a heartbeat is the caller's own; whether the host is a member is decided by the server, with the call.
    """

    def __init__(self, server: AuthServer, identity: ApiIdentity, now: Callable[[], float]) -> None:
        self._server = server
        self._identity = identity
        self._now = now

    def _check(self, method: str) -> None:
        identity = self._identity
        if identity.kind != "anonymous" and (identity.expires is None or self._now() >= identity.expires):
            when = "it has no end" if identity.expires is None else f"it ended {utc_text(identity.expires)}"
            again = "log in again with `tsh login`" if identity.kind == "user" else "the host must renew or join again"
            self._deny(method, f"The certificate of {described(identity)} is not valid ({when}): {again}.")
        if not RULES.get(method, frozenset()) & perspectives_of(identity):
            self._deny(method, f"The auth API's {quoted(method)} is not for {described(identity)}.")

    async def _check_member(self, method: str) -> None:
        self._check(method)
        try:
            await self._server.check_standing(self._identity)
        except AccessDenied as error:
            self._deny(method, str(error))

    def _deny(self, method: str, sentence: str) -> NoReturn:
        identity = self._identity
        log.warn(
            "access denied: {error}",
            event="auth.api",
            method=method,
            error=sentence,
            user=identity.name if identity.kind == "user" else None,
            server_id=identity.name if identity.kind == "host" else None,
        )
        raise AccessDenied(sentence)

    # -- Join

    async def join(self, request: JoinRequest) -> HostCertificates:
        self._check("join")
        return await self._server.join(request, self._identity)

    # -- Cluster

    async def status(self) -> ClusterStatus:
        await self._check_member("status")
        return await self._server.status()

    async def authorities(self) -> tuple[TrustedAuthority, ...]:
        await self._check_member("authorities")
        return await self._server.authorities()

    # -- Hosts

    async def renew(self, request: RenewRequest) -> HostCertificates:
        self._check("renew")
        return await self._server.renew(self._identity, request)

    async def heartbeat(self, node: Node, instance: str) -> Ping:
        self._check("heartbeat")
        identity = self._identity
        if node.uuid != identity.name:
            self._deny("heartbeat", f"A heartbeat for {quoted(node.uuid)} cannot come from {described(identity)}.")
        if node.cluster != identity.cluster:
            self._deny(
                "heartbeat", f"A heartbeat for cluster {quoted(node.cluster)} cannot come from {described(identity)}."
            )
        if not set(node.roles) <= set(identity.roles):
            self._deny(
                "heartbeat", f"A heartbeat as {quoted(', '.join(node.roles))} cannot come from {described(identity)}."
            )
        return await self._server.heartbeat(identity, node, instance)

    async def goodbye(self, instance: str) -> None:
        self._check("goodbye")
        await self._server.goodbye(self._identity, instance)

    # -- Nodes

    async def list_nodes(self, after: str, limit: int) -> NodePage:
        await self._check_member("list_nodes")
        return await self._server.list_nodes(after, limit)

    async def get_node(self, uuid: str) -> NodeStatus:
        await self._check_member("get_node")
        return await self._server.get_node(uuid)

    async def delete_node(self, uuid: str) -> None:
        await self._check_member("delete_node")
        await self._server.delete_node(uuid)

    async def watch_nodes(self, receiver: NodeReceiver) -> Watch:
        await self._check_member("watch_nodes")
        return await self._server.watch_nodes(receiver)

    # -- Tokens

    async def create_token(self, roles: tuple[str, ...], ttl: float, value: Secret | None) -> Token:
        await self._check_member("create_token")
        return await self._server.create_token(roles, ttl, value)

    async def list_tokens(self) -> tuple[Token, ...]:
        await self._check_member("list_tokens")
        return await self._server.list_tokens()

    async def delete_token(self, value: Secret) -> None:
        await self._check_member("delete_token")
        await self._server.delete_token(value)

    # -- Users

    async def create_user(self, user: User, ttl: float) -> SignupToken:
        await self._check_member("create_user")
        return await self._server.create_user(user, ttl)

    async def upsert_user(self, user: User, replace: bool) -> None:
        await self._check_member("upsert_user")
        await self._server.upsert_user(user, replace)

    async def reset_user(self, name: str, ttl: float) -> SignupToken:
        await self._check_member("reset_user")
        return await self._server.reset_user(name, ttl)

    async def unlock_user(self, name: str) -> bool:
        await self._check_member("unlock_user")
        return await self._server.unlock_user(name)

    async def get_user(self, name: str) -> User:
        await self._check_member("get_user")
        return await self._server.get_user(name)

    async def list_users(self) -> tuple[User, ...]:
        await self._check_member("list_users")
        return await self._server.list_users()

    async def list_lockouts(self) -> tuple[Lockout, ...]:
        await self._check_member("list_lockouts")
        return await self._server.list_lockouts()

    async def delete_user(self, name: str) -> None:
        await self._check_member("delete_user")
        await self._server.delete_user(name)

    # -- Logins

    async def login(self, request: LoginRequest) -> UserCertificates:
        await self._check_member("login")
        return await self._server.login(request)

    async def start_signup(self, token: Secret) -> Signup:
        await self._check_member("start_signup")
        return await self._server.start_signup(token)

    async def finish_signup(self, token: Secret, password: Secret, otp: str) -> str:
        await self._check_member("finish_signup")
        return await self._server.finish_signup(token, password, otp)

    # -- Signing

    async def sign_user(self, name: str, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        await self._check_member("sign_user")
        return await self._server.sign_user(name, ssh_public_key, tls_public_key, ttl)

    async def sign_host(
        self, names: tuple[str, ...], ssh_public_key: str, tls_public_key: str, ttl: float
    ) -> SignedHost:
        await self._check_member("sign_host")
        return await self._server.sign_host(names, ssh_public_key, tls_public_key, ttl)
