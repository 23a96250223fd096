"""Every algorithm that is spoken, best first, in one place.

``ciphers``, ``kex_algos`` and ``mac_algos`` of ``teleport.yaml`` pick from (and order) these lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

from attrs import field, frozen

from teleconch.errors import BadParameter

KEX: Final = (b"mlkem768x25519-sha256", b"curve25519-sha256", b"curve25519-sha256@libssh.org")
# Spoken with clients that know none of those (FIPS 140), and where ``kex_algos`` asks for them.
KEX_ALSO: Final = (b"ecdh-sha2-nistp256", b"ecdh-sha2-nistp384", b"ecdh-sha2-nistp521")
CIPHERS: Final = (
    b"aes256-gcm@openssh.com",
    b"aes128-gcm@openssh.com",
    b"chacha20-poly1305@openssh.com",
    b"aes256-ctr",
    b"aes192-ctr",
    b"aes128-ctr",
)
AEAD: Final = frozenset(CIPHERS[:3])
SAFE_WITHOUT_STRICT: Final = frozenset(CIPHERS[:2])
MACS: Final = (b"hmac-sha2-256-etm@openssh.com", b"hmac-sha2-512-etm@openssh.com")
# Over the plain packet (encrypt-and-MAC). Spoken with clients that have nothing better (Paramiko before 3.4), and where
# ``mac_algos`` asks for them. Prefix truncation does not work against CTR with these: missing data leaves the key
# stream out of step.
MACS_ALSO: Final = (b"hmac-sha2-256", b"hmac-sha2-512")
COMPRESSION: Final = (b"none",)

# What we sign host keys with, and what we accept them in; certificates first.
HOST_KEYS: Final = (
    b"ssh-ed25519-cert-v01@openssh.com",
    b"ecdsa-sha2-nistp256-cert-v01@openssh.com",
    b"ecdsa-sha2-nistp384-cert-v01@openssh.com",
    b"ecdsa-sha2-nistp521-cert-v01@openssh.com",
    b"rsa-sha2-512-cert-v01@openssh.com",
    b"rsa-sha2-256-cert-v01@openssh.com",
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
)
# What users may sign with (RFC 8308 server-sig-algs): the same, in the order we prefer.
USER_SIGNATURES: Final = HOST_KEYS

EXT_INFO_CLIENT: Final = b"ext-info-c"
EXT_INFO_SERVER: Final = b"ext-info-s"
STRICT_CLIENT: Final = b"kex-strict-c-v00@openssh.com"
STRICT_SERVER: Final = b"kex-strict-s-v00@openssh.com"


def _chosen(
    kind: str, wanted: Iterable[str] | None, default: Sequence[bytes], also: Sequence[bytes] = ()
) -> tuple[bytes, ...]:
    if wanted is None:
        return tuple(default)
    known = (*default, *also)
    names = tuple(dict.fromkeys(name.encode("ascii", "replace") for name in wanted))
    unknown = [name.decode() for name in names if name not in known]
    if unknown or not names:
        raise BadParameter(
            f"{kind} has {', '.join(unknown) or 'no name'}; usable are {', '.join(name.decode() for name in known)}."
        )
    return names


def _tuple(names: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(names)


@frozen
class Algorithms:
    """What one side offers; a server adds the last two for a client that shares nothing else with it."""

    kex: tuple[bytes, ...] = field(default=KEX, converter=_tuple)
    ciphers: tuple[bytes, ...] = field(default=CIPHERS, converter=_tuple)
    macs: tuple[bytes, ...] = field(default=MACS, converter=_tuple)
    host_keys: tuple[bytes, ...] = field(default=HOST_KEYS, converter=_tuple)
    last_kex: tuple[bytes, ...] = field(default=(), converter=_tuple)
    last_macs: tuple[bytes, ...] = field(default=(), converter=_tuple)


@cache
def _has_mlkem() -> bool:
    """Whether ``cryptography`` (48 and up) and the library below it know ML-KEM."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True


def choose(
    *,
    ciphers: Iterable[str] | None = None,
    kex_algos: Iterable[str] | None = None,
    mac_algos: Iterable[str] | None = None,
    host_keys: Iterable[str] | None = None,
) -> Algorithms:
    """The lists as a configuration asks for them; ``None`` means the default. BadParameter names what is unknown."""
    usable = KEX if _has_mlkem() else KEX[1:]
    macs = _chosen("mac_algos", mac_algos, MACS, MACS_ALSO)
    return Algorithms(
        _chosen("kex_algos", kex_algos, usable, KEX_ALSO),
        _chosen("ciphers", ciphers, CIPHERS),
        macs,
        _chosen("host key algorithms", host_keys, HOST_KEYS),
        KEX_ALSO if kex_algos is None else (),
        tuple(name for name in MACS_ALSO if mac_algos is None or name in macs),
    )
