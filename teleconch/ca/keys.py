"""Key pairs and public keys: ed25519 for SSH, ECDSA P-256 for TLS."""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from teleconch.errors import BadParameter, quoted
from teleconch.resources.secret import Secret

_NO_PASSWORD = serialization.NoEncryption()


def new_ssh_key() -> tuple[Secret, str]:
    """A new ed25519 key: the private half as OpenSSH PEM, the public half as one line ``ssh-ed25519 AAAA...``."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, _NO_PASSWORD)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Secret(private.decode()), public.decode()


def new_tls_key() -> tuple[Secret, str]:
    """A new ECDSA P-256 key: the private half as PKCS#8 PEM, the public half as SubjectPublicKeyInfo PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _NO_PASSWORD)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Secret(private.decode()), public.decode()


def public_blob(line: str) -> bytes:
    """The wire form (RFC 4253 section 6.6) in an OpenSSH public key or certificate line. BadParameter."""
    words = line.split()
    if len(words) < 2:
        raise BadParameter("A public key is one line like 'ssh-ed25519 AAAA...'.")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise BadParameter("The public key's base64 text is damaged; copy the whole line again.") from None
    name = words[0].encode()
    if blob[:4] != len(name).to_bytes(4, "big") or blob[4 : 4 + len(name)] != name:
        raise BadParameter(
            f"The public key says {quoted(words[0])} but holds something else; copy the whole line again."
        )
    return blob


def blob_line(blob: bytes) -> str:
    """The OpenSSH line ``type base64`` for a wire blob."""
    length = int.from_bytes(blob[:4], "big")
    return f"{blob[4 : 4 + length].decode('ascii')} {base64.b64encode(blob).decode()}"
