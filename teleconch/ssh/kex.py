"""Key exchange: KEXINIT, what two sides agree on, and the exchanges themselves (RFC 4253 7, 8; RFC 8731; ML-KEM)."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from attrs import evolve

from teleconch.codec import boolean, mpint, name_list, string, uint32
from teleconch.ssh import algorithms, limits, messages
from teleconch.ssh.algorithms import Algorithms
from teleconch.ssh.problems import NegotiationProblem, ProtocolProblem
from teleconch.ssh.reader import Reader

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_HASHES: Final = {
    **dict.fromkeys(algorithms.KEX, "sha256"),
    b"ecdh-sha2-nistp256": "sha256",
    b"ecdh-sha2-nistp384": "sha384",
    b"ecdh-sha2-nistp521": "sha512",
}
_EXTENSIONS_MAX: Final = 64
_KEPT_SIZE: Final = 4096  # of a parsed KEXINIT that is remembered
_LISTS: Final = 10
_MLKEM_PUBLIC: Final = 1184
_MLKEM_SEALED: Final = 1088
_X25519: Final = 32


class Offer(NamedTuple):
    """A parsed KEXINIT (RFC 4253 section 7.1)."""

    kex: tuple[bytes, ...]
    host_keys: tuple[bytes, ...]
    ciphers: tuple[tuple[bytes, ...], tuple[bytes, ...]]  # client to server, server to client
    macs: tuple[tuple[bytes, ...], tuple[bytes, ...]]
    compression: tuple[tuple[bytes, ...], tuple[bytes, ...]]
    first_follows: bool


class Agreed(NamedTuple):
    """What both will use; pairs are client to server, server to client. ``guess_wrong``: drop the next kex packet."""

    kex: bytes
    host_key: bytes
    ciphers: tuple[bytes, bytes]
    macs: tuple[bytes, bytes]
    guess_wrong: bool


def make_kexinit(offered: Algorithms, *, client: bool, first: bool, host_keys: tuple[bytes, ...]) -> bytes:
    """A KEXINIT payload. ``first`` is the connection's first: only there do the markers count."""
    return bytes((messages.KEXINIT,)) + os.urandom(16) + _lists(offered, client, first, host_keys)


@lru_cache(64)
def _lists(offered: Algorithms, client: bool, first: bool, host_keys: tuple[bytes, ...]) -> bytes:
    marks: tuple[bytes, ...] = ()
    if first:
        marks = (
            (algorithms.EXT_INFO_CLIENT, algorithms.STRICT_CLIENT)
            if client
            else (algorithms.EXT_INFO_SERVER, algorithms.STRICT_SERVER)
        )
    ciphers, macs, compression = name_list(offered.ciphers), name_list(offered.macs), name_list(algorithms.COMPRESSION)
    return b"".join(
        (
            name_list(offered.kex + marks),
            name_list(host_keys),
            ciphers,
            ciphers,
            macs,
            macs,
            compression,
            compression,
            string(b""),
            string(b""),
            boolean(False),
            uint32(0),
        )
    )


def parse_kexinit(payload: bytes) -> Offer:
    """What a KEXINIT offers. ProtocolProblem."""
    lists = payload[17:]  # after the number and the cookie; the rest is the same for all clients of one kind
    return _parse_kept(lists) if len(lists) <= _KEPT_SIZE else _parse(lists)


@lru_cache(64)
def _parse_kept(data: bytes) -> Offer:
    return _parse(data)


def _parse(data: bytes) -> Offer:
    reader = Reader(data)
    lists: list[tuple[bytes, ...]] = []
    for _ in range(_LISTS):
        raw = reader.string()
        if len(raw) > limits.NAME_LIST_MAX:
            raise ProtocolProblem("a list of algorithms is too long")
        lists.append(tuple(raw.split(b",")) if raw else ())
    first_follows = reader.boolean()
    return Offer(lists[0], lists[1], (lists[2], lists[3]), (lists[4], lists[5]), (lists[6], lists[7]), first_follows)


def parse_ext_info(body: bytes) -> dict[bytes, bytes]:
    """The peer's extensions that are known here (RFC 8308 section 2.3). ProtocolProblem."""
    reader = Reader(body)
    count = reader.uint32()
    if count > _EXTENSIONS_MAX:
        raise ProtocolProblem("too many extensions")
    told = [(reader.string(), reader.string()) for _ in range(count)]
    return {name: value for name, value in told if name in (b"server-sig-algs", b"ping@openssh.com")}


def _common(what: str, client: tuple[bytes, ...], server: tuple[bytes, ...]) -> bytes:
    for name in client:
        if name in server:
            return name
    raise NegotiationProblem(f"no common {what}")


def agree(client: Offer, server: Offer, *, peer_is_client: bool, strict: bool) -> Agreed:
    """The first of the client's names that the server has too (RFC 4253 section 7.1)."""
    kex = _common("key exchange", client.kex, server.kex)
    if kex not in _HASHES:  # the markers in the list are not key exchanges
        raise NegotiationProblem("no common key exchange")
    host_key = _common("host key algorithm", client.host_keys, server.host_keys)
    ciphers = (
        _common("cipher", client.ciphers[0], server.ciphers[0]),
        _common("cipher", client.ciphers[1], server.ciphers[1]),
    )
    macs = tuple(
        b"" if ciphers[way] in algorithms.AEAD else _common("MAC", client.macs[way], server.macs[way]) for way in (0, 1)
    )
    if not strict and not all(
        cipher in algorithms.SAFE_WITHOUT_STRICT or mac in algorithms.MACS_ALSO
        for cipher, mac in zip(ciphers, macs, strict=True)
    ):
        # ChaCha20 and EtM without strict key exchange are open to prefix truncation (Terrapin, CVE-2023-48795).
        raise NegotiationProblem("the other side has no strict key exchange, and no cipher that is safe without it")
    for way in (0, 1):
        _common("compression", client.compression[way], server.compression[way])
    peer = client if peer_is_client else server
    guess_wrong = peer.first_follows and (
        client.kex[:1] != server.kex[:1] or client.host_keys[:1] != server.host_keys[:1]
    )
    return Agreed(kex, host_key, ciphers, (macs[0], macs[1]), guess_wrong)


def fitting(offered: Algorithms, client: Offer) -> Algorithms:
    """What to offer to a client whose KEXINIT is known: nothing unsafe with it, and something that it has."""
    kex_algos, ciphers, macs = offered.kex, offered.ciphers, offered.macs
    if not set(kex_algos).intersection(client.kex):
        kex_algos = _and_last(kex_algos, offered.last_kex)
    if algorithms.STRICT_CLIENT not in client.kex:
        safe = tuple(name for name in ciphers if name in algorithms.SAFE_WITHOUT_STRICT)
        if all(set(safe).intersection(names) for names in client.ciphers) or not offered.last_macs:
            ciphers = safe or ciphers
        else:
            ciphers, macs = tuple(name for name in ciphers if name not in algorithms.AEAD) or ciphers, offered.last_macs
    elif not all(set(macs).intersection(names) for names in client.macs):
        macs = _and_last(macs, offered.last_macs)
    return evolve(offered, kex=kex_algos, ciphers=ciphers, macs=macs)


def _and_last(names: tuple[bytes, ...], last: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return names + tuple(name for name in last if name not in names)


def for_anyone(offered: Algorithms) -> Algorithms:
    """What to offer to a client about which nothing is known: all that is safe without strict key exchange."""
    last = offered.last_macs
    ciphers = tuple(
        name
        for name in offered.ciphers
        if name in algorithms.SAFE_WITHOUT_STRICT or (last and name not in algorithms.AEAD)
    )
    kex_algos = _and_last(offered.kex, offered.last_kex)
    return evolve(offered, kex=kex_algos, ciphers=ciphers or offered.ciphers, macs=last or offered.macs)


def _curve(kex: bytes) -> ec.EllipticCurve:
    from cryptography.hazmat.primitives.asymmetric import ec

    name = {b"256": "SECP256R1", b"384": "SECP384R1", b"521": "SECP521R1"}[kex[-3:]]
    curve: ec.EllipticCurve = getattr(ec, name)()
    return curve


def _ecdh_public(private: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _ecdh_secret(private: ec.EllipticCurvePrivateKey, public: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        peer = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, public)
    except ValueError:
        raise NegotiationProblem("the peer's key exchange value is not usable") from None
    return mpint(private.exchange(ec.ECDH(), peer))


def _shared_x25519(private: object, public: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    assert isinstance(private, X25519PrivateKey)
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # of the wrong length, or a point of small order
        raise NegotiationProblem("the peer's key exchange value is not usable") from None


class ClientExchange:
    """The client's half. ``init`` is what to send; :meth:`secret` returns K as it stands in the exchange hash."""

    def __init__(self, kex: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._ecdh: ec.EllipticCurvePrivateKey | None = None
        if kex.startswith(b"ecdh-"):
            from cryptography.hazmat.primitives.asymmetric import ec

            self._ecdh = ec.generate_private_key(_curve(kex))
            self.init = _ecdh_public(self._ecdh)
            return
        self._private = X25519PrivateKey.generate()
        self.init = self._private.public_key().public_bytes_raw()
        self._mlkem = None
        if kex == b"mlkem768x25519-sha256":
            from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

            self._mlkem = MLKEM768PrivateKey.generate()
            self.init = self._mlkem.public_key().public_bytes_raw() + self.init

    def secret(self, reply: bytes) -> bytes:
        if self._ecdh is not None:
            return _ecdh_secret(self._ecdh, reply)
        if self._mlkem is None:
            return mpint(_shared_x25519(self._private, reply))
        if len(reply) != _MLKEM_SEALED + _X25519:
            raise NegotiationProblem("the peer's key exchange value is not usable")
        quantum = self._mlkem.decapsulate(reply[:_MLKEM_SEALED])
        classic = _shared_x25519(self._private, reply[_MLKEM_SEALED:])
        return string(hashlib.sha256(quantum + classic).digest())


def server_exchange(kex: bytes, init: bytes) -> tuple[bytes, bytes]:
    """The server's half: what to reply, and K as it stands in the exchange hash."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    if kex.startswith(b"ecdh-"):
        from cryptography.hazmat.primitives.asymmetric import ec

        ephemeral = ec.generate_private_key(_curve(kex))
        return _ecdh_public(ephemeral), _ecdh_secret(ephemeral, init)
    private = X25519PrivateKey.generate()
    reply = private.public_key().public_bytes_raw()
    if kex != b"mlkem768x25519-sha256":
        return reply, mpint(_shared_x25519(private, init))
    if len(init) != _MLKEM_PUBLIC + _X25519:
        raise NegotiationProblem("the peer's key exchange value is not usable")
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

    try:
        quantum, sealed = MLKEM768PublicKey.from_public_bytes(init[:_MLKEM_PUBLIC]).encapsulate()
    except ValueError:
        raise NegotiationProblem("the peer's key exchange value is not usable") from None
    classic = _shared_x25519(private, init[_MLKEM_PUBLIC:])
    return sealed + reply, string(hashlib.sha256(quantum + classic).digest())


def exchange_hash(
    kex: bytes,
    versions: tuple[bytes, bytes],
    kexinits: tuple[bytes, bytes],
    host_key: bytes,
    init: bytes,
    reply: bytes,
    secret: bytes,
) -> bytes:
    """H (RFC 4253 section 8); pairs are client's, server's."""
    parts = (*versions, *kexinits, host_key, init, reply)
    return hashlib.new(_HASHES[kex], b"".join(map(string, parts)) + secret).digest()


class KeyMaterial:
    """Keys from K, H and the session id (RFC 4253 section 7.2)."""

    def __init__(self, kex: bytes, secret: bytes, digest: bytes, session_id: bytes) -> None:
        self._hash, self._head, self._session_id = _HASHES[kex], secret + digest, session_id

    def __call__(self, letter: bytes, size: int) -> bytes:
        key = hashlib.new(self._hash, self._head + letter + self._session_id).digest()
        while len(key) < size:
            key += hashlib.new(self._hash, self._head + key).digest()
        return key[:size]
