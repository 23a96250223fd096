"""The cluster's certificate authorities: one for users, one for hosts; each an SSH key and a TLS authority."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import frozen

from teleconch.resources.secret import Secret

AuthorityType = Literal["user", "host"]


@frozen
class CertAuthority:
    """An authority with its private keys, which exists in the auth server's state only.

    ``ssh_private_key`` is OpenSSH PEM (ed25519), ``ssh_public_key`` one line ``ssh-ed25519 AAAA...``;
    ``tls_private_key`` is PKCS#8 PEM (ECDSA P-256), ``tls_cert`` a self-signed CA certificate in PEM.
    ``created`` and ``rotated`` are epoch seconds; ``rotated`` is ``None`` if it never was.
    """

    type: AuthorityType
    cluster: str
    ssh_public_key: str
    ssh_private_key: Secret
    tls_cert: str
    tls_private_key: Secret
    created: float
    rotated: float | None = None


@frozen
class TrustedAuthority:
    """The public part of one authority. It has tuples, since two keys are trusted for a while during a rotation."""

    type: AuthorityType
    cluster: str
    ssh_public_keys: tuple[str, ...]
    tls_certs: tuple[str, ...]
    rotated: float | None = None


def user_authorities(known: Iterable[TrustedAuthority], cluster: str) -> tuple[TrustedAuthority, ...]:
    """The authorities in ``known`` that vouch for the users of ``cluster``. Others may be known too; they let nobody
    in."""
    return tuple(each for each in known if each.type == "user" and each.cluster == cluster)
