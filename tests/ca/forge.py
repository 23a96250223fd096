"""Certificates that no honest authority would make: encoded by hand after PROTOCOL.certkeys."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from teleconch.resources.authority import CertAuthority


def string(data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + data


def options(values: dict[bytes, bytes]) -> bytes:
    return b"".join(string(name) + string(string(value) if value else b"") for name, value in values.items())


def ca_key(authority: CertAuthority) -> Ed25519PrivateKey:
    key = load_ssh_private_key(authority.ssh_private_key.reveal().encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def plain_blob(key: Ed25519PrivateKey) -> bytes:
    return string(b"ssh-ed25519") + string(raw_public(key))


def certificate(
    signer: Ed25519PrivateKey,
    subject: Ed25519PrivateKey,
    *,
    kind: int = 1,
    key_id: bytes = b"joe",
    principals: tuple[bytes, ...] = (b"joe",),
    after: int = 0,
    before: int = 2**40,
    critical: dict[bytes, bytes] | None = None,
    extensions: dict[bytes, bytes] | None = None,
    signing_key: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    """``signing_key`` stands where the authority's blob belongs; the signature is always ``signer``'s."""
    body = b"".join(
        (
            string(b"ssh-ed25519-cert-v01@openssh.com"),
            string(b"n" * 32),
            string(raw_public(subject)),
            struct.pack(">QL", 1, kind),
            string(key_id),
            string(b"".join(string(name) for name in principals)),
            struct.pack(">QQ", after, before),
            string(options(critical or {})),
            string(options(extensions or {})),
            string(b""),
            string(plain_blob(signer) if signing_key is None else signing_key),
        )
    )
    return body + string(string(b"ssh-ed25519") + string(signer.sign(body))) + tail
