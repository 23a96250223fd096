"""Keys, certificates' keys and signatures in SSH's forms (RFC 4253 6.6, 5656, 8332, 8709; PROTOCOL.certkeys).

SHA-1 (``ssh-rsa`` signatures) and DSA do not exist here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from teleconch.codec import mpint, string
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CERT_SUFFIX: Final = b"-cert-v01@openssh.com"
_CURVES: Final = {
    b"nistp256": ("SECP256R1", "SHA256"),
    b"nistp384": ("SECP384R1", "SHA384"),
    b"nistp521": ("SECP521R1", "SHA512"),
}
_RSA_MIN: Final = 2048
_RSA_MAX: Final = 16384
_EXPONENT_MAX: Final = 64  # bits: with more, each check costs as much as signing


def plain_algorithm(algorithm: bytes) -> bytes:
    """The signature algorithm behind a certificate's: ``rsa-sha2-512-cert-v01@openssh.com`` -> ``rsa-sha2-512``."""
    return algorithm.removesuffix(CERT_SUFFIX)


def key_type(blob: bytes) -> bytes:
    """The type that stands first in a key's or certificate's blob."""
    return Reader(blob).string()


def algorithms_of(blob_type: bytes) -> tuple[bytes, ...]:
    """The algorithms that a key or certificate of this type signs with; none for a type that is not spoken."""
    if plain_algorithm(blob_type) == b"ssh-rsa":
        suffix = blob_type[len(b"ssh-rsa") :]
        return (b"rsa-sha2-512" + suffix, b"rsa-sha2-256" + suffix)
    plain = plain_algorithm(blob_type)
    if plain == b"ssh-ed25519" or (plain.startswith(b"ecdsa-sha2-") and plain[11:] in _CURVES):
        return (blob_type,)
    return ()


def algorithms_for(blob: bytes, told: bytes | None) -> tuple[bytes, ...]:
    """The algorithms to sign with, for a server, by the key or certificate ``blob``, best first.

    ``told`` is its ``server-sig-algs`` (RFC 8308 section 3.1), which name no certificates. If they name none of the
    algorithms, all are kept.
    """
    names = algorithms_of(key_type(blob))
    taken = {plain_algorithm(name) for name in told.split(b",")} if told is not None else set()
    return tuple(name for name in names if plain_algorithm(name) in taken) or names


def _point(reader: Reader, blob_type: bytes) -> tuple[bytes, bytes]:
    curve = reader.string()
    if curve not in _CURVES or plain_algorithm(blob_type) != b"ecdsa-sha2-" + curve:
        raise ProtocolProblem("a key is malformed")
    return curve, reader.string()


def verify(blob: bytes, signature: bytes, data: bytes, algorithm: bytes) -> bool:
    """Whether ``signature`` over ``data`` was made with ``algorithm`` by the key (or certificate's key) in ``blob``.

    ``algorithm`` is the one that was agreed on or named with the key; the signature must name the same.
    ProtocolProblem for a blob or signature that cannot be read.
    """
    from cryptography.exceptions import InvalidSignature

    reader = Reader(blob)
    blob_type = reader.string()
    if algorithm not in algorithms_of(blob_type):
        return False
    signed = Reader(signature)
    if signed.string() != plain_algorithm(algorithm):
        return False
    raw = signed.string()
    signed.end()
    if blob_type.endswith(CERT_SUFFIX):
        reader.string()  # nonce
    plain = plain_algorithm(blob_type)
    try:
        if plain == b"ssh-ed25519":
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            Ed25519PublicKey.from_public_bytes(reader.string()).verify(raw, data)
        elif plain == b"ssh-rsa":
            _verify_rsa(reader, raw, data, plain_algorithm(algorithm))
        else:
            _verify_ecdsa(*_point(reader, blob_type), raw, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _verify_rsa(reader: Reader, raw: bytes, data: bytes, algorithm: bytes) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    exponent, modulus = reader.mpint(), reader.mpint()
    if not _RSA_MIN <= modulus.bit_length() <= _RSA_MAX:
        raise ValueError("RSA key too short or too long")
    if exponent.bit_length() > _EXPONENT_MAX:
        raise ValueError("RSA exponent too long")
    digest = hashes.SHA512() if algorithm == b"rsa-sha2-512" else hashes.SHA256()
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    key.verify(raw.rjust((modulus.bit_length() + 7) // 8, b"\0"), data, padding.PKCS1v15(), digest)


def _verify_ecdsa(curve: bytes, point: bytes, raw: bytes, data: bytes) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    name, digest = _CURVES[curve]
    key = ec.EllipticCurvePublicKey.from_encoded_point(getattr(ec, name)(), point)
    numbers = Reader(raw)
    r, s = numbers.mpint(), numbers.mpint()
    numbers.end()
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(getattr(hashes, digest)()))


def _magnitude(number: int) -> bytes:
    return mpint(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def load_private_key(pem: str) -> PrivateKeyTypes:
    """A private key from OpenSSH or PKCS#8 PEM. ValueError for anything else."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    raw = pem.encode()
    if b"BEGIN OPENSSH PRIVATE KEY" in raw:
        return load_ssh_private_key(raw, None)
    return load_pem_private_key(raw, None)


def public_blob(key: Any) -> bytes:
    """The blob of a private key's public half."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return string(b"ssh-ed25519") + string(public.public_bytes_raw())
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return string(b"ssh-rsa") + _magnitude(numbers.e) + _magnitude(numbers.n)
    if isinstance(public, ec.EllipticCurvePublicKey):
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        curve = b"nistp%d" % public.curve.key_size
        if curve in _CURVES:
            point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return string(b"ecdsa-sha2-" + curve) + string(curve) + string(point)
    raise ValueError("this kind of key is not usable for SSH here; make an ed25519 key")


def sign(key: Any, data: bytes, algorithm: bytes) -> bytes:
    """A signature blob by a private key; ``algorithm`` may be a certificate's."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    name = plain_algorithm(algorithm)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return string(name) + string(key.sign(data))
    from cryptography.hazmat.primitives import hashes

    if isinstance(key, ec.EllipticCurvePrivateKey):
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        digest = getattr(hashes, _CURVES[name[11:]][1])()
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return string(name) + string(_magnitude(r) + _magnitude(s))
    from cryptography.hazmat.primitives.asymmetric import padding

    hashed = hashes.SHA512() if name == b"rsa-sha2-512" else hashes.SHA256()
    return string(name) + string(key.sign(data, padding.PKCS1v15(), hashed))
