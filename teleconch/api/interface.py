"""The auth API, by noun. ``auth/authorized.py`` says who may call what; the wire is in ``wire.py``.

Every method is ``async``, takes and returns values of ``teleconch.resources``, and raises the kinds of
``teleconch.errors``. These are protocols rather than zope interfaces because the wire's codec is made from the
annotations, which a zope interface drops.
"""

# No `from __future__ import annotations` here: the codec needs the types themselves.
from typing import Protocol, TypeVar

from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates, JoinRequest, Ping, RenewRequest
from teleconch.resources.kind import Change, Kind
from teleconch.resources.lockout import Lockout
from teleconch.resources.login import (
    ClusterStatus,
    LoginRequest,
    SignedHost,
    Signup,
    SignupToken,
    UserCertificates,
)
from teleconch.resources.node import Node, NodePage, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User

T = TypeVar("T")


class Receiver(Protocol[T]):
    """Takes what :meth:`Watches.watch` reports."""

    def changes(self, changes: tuple[Change[T], ...]) -> None:
        """Some changes, oldest first."""

    def whole(self) -> None:
        """Everything that exists has been reported once; what comes from now on are changes as they happen."""

    def watch_ended(self) -> None:
        """Nothing more will come: the connection is gone, or the watcher fell behind. Watch again."""


class Watch(Protocol):
    """A running watch."""

    def stop(self) -> None:
        """Report nothing more. Idempotent."""


class Join(Protocol):
    """All that a peer without a certificate may call."""

    async def join(self, request: JoinRequest) -> HostCertificates:
        """Sign a new host's public keys. AccessDenied (token or names), ClockSkew, AlreadyJoined, BadParameter."""


class Cluster(Protocol):
    """What every member may know."""

    async def status(self) -> ClusterStatus:
        """Name, version, second factor, authorities, pins, time."""

    async def authorities(self) -> tuple[TrustedAuthority, ...]:
        """Public keys of the cluster's authorities."""


class Hosts(Protocol):
    """What a host does for itself."""

    async def renew(self, request: RenewRequest) -> HostCertificates:
        """New certificates for the calling host, with the names recorded when it joined."""

    async def heartbeat(self, node: Node, instance: str) -> Ping:
        """The calling node is alive. ``instance`` is random per process: AlreadyJoined when two processes use one UUID
        in turn. ``node.uuid`` must be the caller's."""

    async def goodbye(self, instance: str) -> None:
        """The calling node is stopping: it is offline from now on."""


class Nodes(Protocol):
    """The directory of nodes."""

    async def list_nodes(self, after: str, limit: int) -> NodePage:
        """At most ``limit`` nodes whose UUID sorts after ``after`` ("" for the first page)."""

    async def get_node(self, uuid: str) -> NodeStatus:
        """One node. NotFound."""

    async def delete_node(self, uuid: str) -> None:
        """Forget a node and its membership: its certificates are no longer renewed. NotFound."""


class Watches(Protocol):
    """Everything that can be watched."""

    async def watch(self, kind: Kind[T], receiver: Receiver[T]) -> Watch:
        """Report all values of this kind (any number of calls, then ``whole``), then each change. NotFound."""


class Tokens(Protocol):
    """Join tokens (and, in lists, sign-up tokens)."""

    async def create_token(self, roles: tuple[str, ...], ttl: float, value: Secret | None) -> Token:
        """A dynamic join token for ``ttl`` seconds, at most 48 h. ``None`` as ``value``: make a random one.
        AlreadyExists."""

    async def list_tokens(self) -> tuple[Token, ...]:
        """Static and unexpired dynamic tokens, including sign-up tokens."""

    async def delete_token(self, value: Secret) -> None:
        """Revoke one. NotFound; BadParameter for a static one, which is set in the configuration."""


class Users(Protocol):
    """Local users."""

    async def create_user(self, user: User, ttl: float) -> SignupToken:
        """A new user who can sign up within ``ttl`` seconds. AlreadyExists."""

    async def upsert_user(self, user: User, replace: bool) -> None:
        """Write a user as given (``tctl create [-f]``); password and second factor stay. AlreadyExists."""

    async def reset_user(self, name: str, ttl: float) -> SignupToken:
        """Void the password and second factor, end any lock-out, and return a new sign-up token. NotFound."""

    async def unlock_user(self, name: str) -> bool:
        """Forget the wrong answers held against a user; password and second factor stay. Returns whether there were
        any. NotFound."""

    async def get_user(self, name: str) -> User:
        """One user. NotFound."""

    async def list_users(self) -> tuple[User, ...]:
        """All users, by name."""

    async def list_lockouts(self) -> tuple[Lockout, ...]:
        """The lock-outs in force, by user; of each user at most 16, those that end last."""

    async def delete_user(self, name: str) -> None:
        """Remove a user, the password, the second factor and open sign-up tokens. NotFound."""


class Logins(Protocol):
    """What the proxy passes on for people who have no certificate yet."""

    async def login(self, request: LoginRequest) -> UserCertificates:
        """Check password, second factor and lock-out; sign. AccessDenied, with one sentence for every reason."""

    async def start_signup(self, token: Secret, source: str = "") -> Signup:
        """What a sign-up shows: the same secret each time until the token is used. ``source`` is the address of whoever
        asks. AccessDenied."""

    async def finish_signup(self, token: Secret, password: Secret, otp: str, source: str = "") -> str:
        """Set the password and second factor, and use up the token. Returns the user's name. AccessDenied; BadParameter
        for a password that is too short or long, or a wrong code (the token stays usable)."""


class Signing(Protocol):
    """Certificates that an administrator makes (``tctl auth sign``)."""

    async def sign_user(self, name: str, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        """Certificates of an existing user. NotFound."""

    async def sign_host(
        self, names: tuple[str, ...], ssh_public_key: str, tls_public_key: str, ttl: float
    ) -> SignedHost:
        """A host certificate with these principals (for an OpenSSH server). BadParameter."""


class AuthAPI(Join, Cluster, Hosts, Nodes, Watches, Tokens, Users, Logins, Signing, Protocol):
    """The whole API."""


NOUNS: tuple[type, ...] = tuple(noun for noun in AuthAPI.__bases__ if noun is not Protocol)
