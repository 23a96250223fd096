"""Signatures by keys of every kind."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from teleconch.ca.keys import public_blob
from teleconch.codec import Reader, string
from teleconch.ssh import signatures
from teleconch.ssh.hostkey import HostKey
from teleconch.ssh.problems import ProtocolProblem
from tests.worlds.ssh import HOST_CERT, HOST_PEM, USER_CERT

RSA = rsa.generate_private_key(65537, 2048)
KEYS: list[Any] = [
    ed25519.Ed25519PrivateKey.generate(),
    RSA,
    *(ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())),
]
PAIRS = [
    (key, name) for key in KEYS for name in signatures.algorithms_of(signatures.key_type(signatures.public_blob(key)))
]


@pytest.mark.parametrize(("key", "algorithm"), PAIRS, ids=[name.decode() for _, name in PAIRS])
def test_a_signature_counts_for_its_data_key_and_algorithm(key: Any, algorithm: bytes) -> None:
    """What was signed verifies; other data, another key, another algorithm or a changed signature does not."""
    blob = signatures.public_blob(key)
    signature = signatures.sign(key, b"data", algorithm)
    assert signatures.verify(blob, signature, b"data", algorithm)
    assert not signatures.verify(blob, signature, b"date", algorithm)
    changed = bytearray(signature)
    changed[-1] ^= 1
    assert not signatures.verify(blob, bytes(changed), b"data", algorithm)
    for other, name in PAIRS:
        if name != algorithm:
            assert not signatures.verify(blob, signature, b"data", name)
        if other is not key:
            assert not signatures.verify(signatures.public_blob(other), signature, b"data", algorithm)
    with pytest.raises(ProtocolProblem):
        signatures.verify(blob, signature + b"more", b"data", algorithm)


def test_the_signature_names_the_algorithm_that_was_agreed_on() -> None:
    """Where rsa-sha2-512 was agreed on, a signature with rsa-sha2-256 does not count, nor one that is mislabelled."""
    blob = signatures.public_blob(RSA)
    with_256 = signatures.sign(RSA, b"data", b"rsa-sha2-256")
    assert not signatures.verify(blob, with_256, b"data", b"rsa-sha2-512")
    raw = Reader(with_256)
    raw.string()
    assert not signatures.verify(blob, string(b"rsa-sha2-512") + string(raw.string()), b"data", b"rsa-sha2-512")
    ed = KEYS[0]
    good = Reader(signatures.sign(ed, b"data", b"ssh-ed25519"))
    good.string()
    mislabelled = string(b"ssh-ed25519-cert-v01@openssh.com") + string(good.string())
    assert not signatures.verify(signatures.public_blob(ed), mislabelled, b"data", b"ssh-ed25519")


def test_an_algorithm_is_for_its_kind_of_key() -> None:
    """A plain key is not taken under a certificate's algorithm, nor a certificate under a plain key's."""
    plain = signatures.public_blob(KEYS[0])
    cert_name = b"ssh-ed25519-cert-v01@openssh.com"
    signature = signatures.sign(KEYS[0], b"data", b"ssh-ed25519")
    assert not signatures.verify(plain, signature, b"data", cert_name)
    key = signatures.load_private_key(HOST_PEM.reveal())
    signature = signatures.sign(key, b"data", cert_name)
    assert signatures.verify(public_blob(HOST_CERT), signature, b"data", cert_name)
    assert not signatures.verify(public_blob(HOST_CERT), signature, b"data", b"ssh-ed25519")
    assert not signatures.verify(public_blob(USER_CERT), signature, b"data", cert_name)


def test_sha1_and_dsa_do_not_exist() -> None:
    """``ssh-rsa`` signatures (SHA-1), DSA keys and short RSA keys are worth nothing (CVE-2026-44405)."""
    blob = signatures.public_blob(RSA)
    old = string(b"ssh-rsa") + string(RSA.sign(b"data", padding.PKCS1v15(), hashes.SHA1()))
    assert not signatures.verify(blob, old, b"data", b"ssh-rsa")
    assert signatures.algorithms_of(b"ssh-dss") == ()
    assert signatures.algorithms_of(b"ssh-dss-cert-v01@openssh.com") == ()
    short = rsa.generate_private_key(65537, 1024)
    signature = signatures.sign(short, b"data", b"rsa-sha2-512")
    assert not signatures.verify(signatures.public_blob(short), signature, b"data", b"rsa-sha2-512")
    with pytest.raises(ValueError, match="not usable"):
        signatures.public_blob(dsa.generate_private_key(1024))


@settings(deadline=None, max_examples=300)
@given(which=st.integers(0, len(KEYS) - 1), cut=st.integers(0, 600), junk=st.binary(max_size=8))
def test_broken_blobs(which: int, cut: int, junk: bytes) -> None:
    """Blobs and signatures that are cut or garbled are refused, never an unexpected error."""
    key = KEYS[which]
    blob = signatures.public_blob(key)
    (algorithm, *_) = signatures.algorithms_of(signatures.key_type(blob))
    signature = signatures.sign(key, b"data", algorithm)
    for given_blob, given_signature in (
        (blob[:cut] + junk, signature),
        (blob, signature[:cut] + junk),
        (blob[:cut] + junk + blob[cut + len(junk) :], signature),
    ):
        try:
            good = signatures.verify(given_blob, given_signature, b"data", algorithm)
        except ProtocolProblem:
            continue
        assert not good or (given_blob[: len(blob)] == blob and given_signature == signature)


def test_host_keys() -> None:
    """A host key offers its certificate first, can be PKCS#8 too, and never shows its private half."""
    key = HostKey(HOST_PEM.reveal(), HOST_CERT)
    assert list(key.offers()) == [b"ssh-ed25519-cert-v01@openssh.com", b"ssh-ed25519"]
    assert "PRIVATE" not in repr(key)
    pem = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert list(HostKey(pem).offers()) == [b"rsa-sha2-512", b"rsa-sha2-256"]
