"""Packets on the wire (RFC 4253 section 6) under each cipher: one class per way of protecting them.

A *sealer* makes packets of payloads, an *opener* finds payloads in received bytes. Both are given the sequence number.
"""

from __future__ import annotations

import hmac
from struct import Struct
from typing import Final, Protocol

from teleconch.ssh.problems import IntegrityProblem, ProtocolProblem

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_HEAD: Final = Struct(">IB")


class Sealer(Protocol):
    def seal(self, sequence: int, payload: bytes) -> bytes:
        """One whole packet."""


class Opener(Protocol):
    def open(self, sequence: int, data: bytearray, at: int, longest: int) -> tuple[bytes, int] | None:
        """Payload of the packet that begins at ``at``, and where it ends; ``None`` while it is not all there.

        ProtocolProblem for a length that cannot be, IntegrityProblem for what was changed on the way.
        """


def _length(length: int, block: int, longest: int) -> int:
    if length > longest or length < 5 or length % block:
        raise ProtocolProblem("a packet has an impossible length")
    return length


def _payload(plain: bytes) -> bytes:
    """``plain`` is padding length, payload, padding."""
    padding = plain[0]
    if padding < 4 or padding + 1 >= len(plain):
        raise ProtocolProblem("a packet has impossible padding")
    return plain[1:-padding]


class PlainSealer:
    """Before the first key exchange has ended."""

    def seal(self, sequence: int, payload: bytes) -> bytes:
        padding = 8 - (len(payload) + 5) % 8
        if padding < 4:
            padding += 8
        return _HEAD.pack(len(payload) + 1 + padding, padding) + payload + bytes(padding)


class PlainOpener:
    def open(self, sequence: int, data: bytearray, at: int, longest: int) -> tuple[bytes, int] | None:
        if len(data) - at < 4:
            return None
        length = _U32.unpack_from(data, at)[0]
        if (length + 4) % 8:
            raise ProtocolProblem("a packet has an impossible length")
        _length(length, 1, longest)
        end = at + 4 + length
        if len(data) < end:
            return None
        return _payload(bytes(memoryview(data)[at + 4 : end])), end


def _pad(payload: bytes, block: int) -> bytes:
    """Padding length, payload, padding: a multiple of ``block``. Encrypted and authenticated, so zeros will do."""
    padding = block - (len(payload) + 1) % block
    if padding < 4:
        padding += block
    return b"%c%b%b" % (padding, payload, bytes(padding))


class _GCM:
    """RFC 5647 as OpenSSH has it: the length is sent in clear and authenticated; the last 8 bytes of the IV count."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = _U64.unpack(iv[4:])[0]

    def _nonce(self) -> bytes:
        counter = self._counter
        self._counter = (counter + 1) & 0xFFFFFFFFFFFFFFFF
        return self._fixed + _U64.pack(counter)


class GCMSealer(_GCM):
    def seal(self, sequence: int, payload: bytes) -> bytes:
        plain = _pad(payload, 16)
        head = _U32.pack(len(plain))
        return head + self._cipher.encrypt(self._nonce(), plain, head)


class GCMOpener(_GCM):
    def open(self, sequence: int, data: bytearray, at: int, longest: int) -> tuple[bytes, int] | None:
        if len(data) - at < 4:
            return None
        head = bytes(data[at : at + 4])
        length = _length(_U32.unpack(head)[0], 16, longest)
        end = at + 20 + length
        if len(data) < end:
            return None
        from cryptography.exceptions import InvalidTag

        try:
            with memoryview(data)[at + 4 : end] as sealed:
                return _payload(self._cipher.decrypt(self._nonce(), sealed, head)), end
        except InvalidTag:
            raise IntegrityProblem("a packet was changed on the way") from None


class _ChaCha:
    """chacha20-poly1305@openssh.com: the second half of the key hides the length, the first half does the rest."""

    def __init__(self, key: bytes) -> None:
        self._main, self._head = key[:32], key[32:]

    @staticmethod
    def _stream(key: bytes, sequence: int, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        nonce = bytes(8) + _U64.pack(sequence)  # a block counter of 0, then the sequence number
        return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(data)

    @staticmethod
    def _tag(key: bytes, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.poly1305 import Poly1305

        return Poly1305.generate_tag(key, data)


class ChaChaSealer(_ChaCha):
    def seal(self, sequence: int, payload: bytes) -> bytes:
        plain = _pad(payload, 8)
        head = self._stream(self._head, sequence, _U32.pack(len(plain)))
        stream = self._stream(self._main, sequence, bytes(64) + plain)
        sealed = head + stream[64:]
        return sealed + self._tag(stream[:32], sealed)


class ChaChaOpener(_ChaCha):
    def open(self, sequence: int, data: bytearray, at: int, longest: int) -> tuple[bytes, int] | None:
        if len(data) - at < 4:
            return None
        head = self._stream(self._head, sequence, bytes(data[at : at + 4]))
        length = _length(_U32.unpack(head)[0], 8, longest)
        end = at + 20 + length
        if len(data) < end:
            return None
        sealed = bytes(data[at : end - 16])
        stream = self._stream(self._main, sequence, bytes(64) + sealed[4:])
        if not hmac.compare_digest(self._tag(stream[:32], sealed), bytes(data[end - 16 : end])):
            raise IntegrityProblem("a packet was changed on the way")
        return _payload(stream[64:]), end


class _CTR:
    """AES-CTR with a MAC over the encrypted packet (EtM): the length is sent in clear."""

    def __init__(self, key: bytes, iv: bytes, mac: str, mac_key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._stream = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
        self._mac, self._mac_key = mac, mac_key
        self._size = 32 if mac == "sha256" else 64

    def _tag(self, sequence: int, packet: bytes) -> bytes:
        return hmac.digest(self._mac_key, _U32.pack(sequence) + packet, self._mac)


class CTRSealer(_CTR):
    def seal(self, sequence: int, payload: bytes) -> bytes:
        plain = _pad(payload, 16)
        packet = _U32.pack(len(plain)) + self._stream.update(plain)
        return packet + self._tag(sequence, packet)


class CTROpener(_CTR):
    def open(self, sequence: int, data: bytearray, at: int, longest: int) -> tuple[bytes, int] | None:
        if len(data) - at < 4:
            return None
        length = _length(_U32.unpack_from(data, at)[0], 16, longest)
        end = at + 4 + length + self._size
        if len(data) < end:
            return None
        packet = bytes(data[at : at + 4 + length])
        if not hmac.compare_digest(self._tag(sequence, packet), bytes(data[at + 4 + length : end])):
            raise IntegrityProblem("a packet was changed on the way")
        return _payload(self._stream.update(packet[4:])), end


_KEY_SIZES: Final = {b"aes128-gcm@openssh.com": 16, b"aes256-gcm@openssh.com": 32}
_CTR_KEYS: Final = {b"aes128-ctr": 16, b"aes192-ctr": 24, b"aes256-ctr": 32}
_MACS: Final = {b"hmac-sha2-256-etm@openssh.com": ("sha256", 32), b"hmac-sha2-512-etm@openssh.com": ("sha512", 64)}


class Derive(Protocol):
    def __call__(self, letter: bytes, size: int) -> bytes:
        """``size`` bytes of key for ``letter`` (RFC 4253 section 7.2)."""


def make_sealer(cipher: bytes, mac: bytes, derive: Derive, letters: bytes) -> Sealer:
    """``letters`` are those of IV, key and MAC key: ``ACE`` from the client, ``BDF`` from the server."""
    if size := _KEY_SIZES.get(cipher):
        return GCMSealer(derive(letters[1:2], size), derive(letters[:1], 12))
    if cipher == b"chacha20-poly1305@openssh.com":
        return ChaChaSealer(derive(letters[1:2], 64))
    name, mac_size = _MACS[mac]
    return CTRSealer(
        derive(letters[1:2], _CTR_KEYS[cipher]), derive(letters[:1], 16), name, derive(letters[2:], mac_size)
    )


def make_opener(cipher: bytes, mac: bytes, derive: Derive, letters: bytes) -> Opener:
    if size := _KEY_SIZES.get(cipher):
        return GCMOpener(derive(letters[1:2], size), derive(letters[:1], 12))
    if cipher == b"chacha20-poly1305@openssh.com":
        return ChaChaOpener(derive(letters[1:2], 64))
    name, mac_size = _MACS[mac]
    return CTROpener(
        derive(letters[1:2], _CTR_KEYS[cipher]), derive(letters[:1], 16), name, derive(letters[2:], mac_size)
    )
