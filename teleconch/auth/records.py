"""What is stored, under which key, and as which bytes: JSON with a version, unknown fields tolerated.

::

    /authorities/<user|host>         CertAuthority
    /hosts/<uuid>/<role>             HostRecord       membership: a host without one is not a member; ends with its
                                                      certificates, or soon where the node never pinged
    /names/<name>                    NameRecord       who owns a name; the owner's record says whether that still holds
    /presence/<uuid>                 Presence         ends after the presence TTL
    /tokens/<sha256 of the value>    JoinToken
    /users/<name>                    UserRecord       password, second factor and sign-up in one, so that they
    /signups/<sha256 of the value>   SignupIndex      change together; the index only says whose token it is
    /lockouts/name/<sha256>          Attempts         of a user, or of a name that nobody has
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, TypeVar

import cattrs
from attrs import field, frozen

from teleconch.errors import TeleconchError, Unavailable
from teleconch.rate import Bucket
from teleconch.resources.authority import AuthorityType
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.resources.user import User

AUTHORITIES: Final = "/authorities/"
HOSTS: Final = "/hosts/"
NAMES: Final = "/names/"
PRESENCE: Final = "/presence/"
TOKENS: Final = "/tokens/"
USERS: Final = "/users/"
SIGNUPS: Final = "/signups/"
LOCKOUTS: Final = "/lockouts/"

_VERSION: Final = 1  # raise it when a record changes in a way that an older program would misread


@frozen
class HostRecord:
    """A member in one role. The keys are those that it showed last; ``joined`` and ``renewed`` are epoch seconds.

    ``granted`` are the names that it owns, as ``resources.addresses.stem`` spells them; ``None`` in a record from
    before names were owned. ``pinged``: the node has pinged since it joined.
    """

    uuid: str
    role: str
    nodename: str
    addresses: tuple[str, ...]
    ssh_public_key: str
    tls_public_key: str
    joined: float
    renewed: float
    granted: tuple[str, ...] | None = None
    pinged: bool = False


@frozen
class NameRecord:
    """The UUIDs of the hosts that own a name: one, or several proxies behind one address. ``until`` is when the entry
    ends, in epoch seconds."""

    owners: tuple[str, ...]
    until: float


@frozen
class Presence:
    """A node's last heartbeat. ``instance`` is the process that sent it; ``replaced`` are the ones before it, newest
    first. ``stopped``: it said goodbye."""

    node: Node
    last_seen: float
    instance: str
    replaced: tuple[str, ...] = ()
    stopped: bool = False


@frozen
class JoinToken:
    """A dynamic join token. It is kept for a while after ``expires``, so that a host can be told that it has
    expired."""

    value: Secret
    roles: tuple[str, ...]
    expires: float


@frozen
class SignupRecord:
    """An open sign-up: the hash of its token, and the second factor that it shows. ``tries``: codes tried so far."""

    token: str
    expires: float
    otp_secret: Secret | None
    tries: int = 0


@frozen
class KnownSource:
    """A source that a user has logged in from, and when they last did (epoch seconds)."""

    source: str
    last: float


@frozen
class UserRecord:
    """A user and their secrets. ``password`` is a bcrypt hash, ``otp_secret`` is base32, ``otp_used`` is the last TOTP
    step whose code was accepted, and ``known`` is where logins came from."""

    user: User
    password: Secret | None = None
    otp_secret: Secret | None = None
    otp_used: int = -1
    signup: SignupRecord | None = None
    known: tuple[KnownSource, ...] = ()


@frozen
class SignupIndex:
    """Whose sign-up token this is; the user's record says whether it is still valid."""

    user: str


@frozen
class SourceAttempts:
    """Times of wrong (or unfinished) logins from one source in epoch seconds, and the end of a lock-out."""

    source: str
    times: tuple[float, ...]
    locked_until: float | None = None


@frozen
class Attempts:
    """What is held against one name: by source, the latest last; over all ``newcomers`` and all ``repeaters``; and when
    and from where a wrong code came after the right password (``near``)."""

    sources: tuple[SourceAttempts, ...] = ()
    newcomers: Bucket = field(factory=Bucket)
    repeaters: Bucket = field(factory=Bucket)
    near: tuple[tuple[float, str], ...] = ()


def authority_key(type: AuthorityType) -> str:
    return AUTHORITIES + type


def host_key(uuid: str, role: str) -> str:
    return f"{HOSTS}{uuid}/{role}"


def name_key(stem: str) -> str:
    return NAMES + stem


def presence_key(uuid: str) -> str:
    return PRESENCE + uuid


def token_key(value: Secret) -> str:
    return TOKENS + digest(value)


def user_key(name: str) -> str:
    return USERS + name


def signup_key(token_digest: str) -> str:
    return SIGNUPS + token_digest


def digest(value: Secret) -> str:
    """SHA-256 in hex: how a token is looked up, so that neither the comparison nor the key reveals its value."""
    return hashlib.sha256(value.reveal().encode("utf-8", "surrogatepass")).hexdigest()


_converter = cattrs.Converter()
_converter.register_unstructure_hook(Secret, lambda secret: secret.reveal())
_converter.register_structure_hook(Secret, lambda text, _: Secret(str(text)))

Record = TypeVar("Record")


def encode(record: object) -> bytes:
    """A record as it is stored."""
    return json.dumps({"version": _VERSION, **_converter.unstructure(record)}, ensure_ascii=False).encode()


def decode(key: str, value: bytes, kind: type[Record]) -> Record:
    """The record stored under ``key``. Unavailable (never a traceback) for one that this version cannot read."""
    try:
        data: Any = json.loads(value)
        if data["version"] > _VERSION:
            raise Unavailable(f"{key} was written by a newer version of teleconch; upgrade this auth server.")
        return _converter.structure(data, kind)
    except (ValueError, TypeError, KeyError, cattrs.BaseValidationError, TeleconchError) as error:
        if isinstance(error, Unavailable):
            raise
        raise Unavailable(
            f"{key} is damaged in the store; restore the state from a backup, or delete that item."
        ) from None
