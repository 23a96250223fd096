"""Packets on the wire (RFC 4253 section 6) under each cipher: one class per way of protecting them.

A *sealer* makes packets, an *opener* finds them in received bytes; both are given the sequence number. ``plain`` is
always padding length, payload, padding. Padding is zeros: it is encrypted and authenticated; its value says nothing.
"""

from __future__ import annotations

import hmac
from struct import Struct
from typing import Final, Protocol

from teleconch.ssh.problems import IntegrityProblem, ProtocolProblem

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_MASK64: Final = 0xFFFFFFFFFFFFFFFF
_JOIN_BELOW: Final = 4096  # smaller parts are joined: one more buffer for the kernel costs more than the copy


class Sealer(Protocol):
    def seal(self, sequence: int, out: list[bytes], head: bytes, body: bytes | memoryview) -> int:
        """Append one packet with the payload ``head + body`` to ``out``; returns its size."""


class Opener(Protocol):
    def open(self, sequence: int, data: memoryview, at: int, end: int, longest: int) -> tuple[bytes, int] | None:
        """``plain`` of the packet that begins at ``at``, and where it ends; ``None`` while it is not complete at
        ``end``.

        ProtocolProblem for an impossible length, IntegrityProblem for a packet that was changed on the way.
        """


def _pads(block: int) -> list[tuple[bytes, bytes]]:
    """By ``len(payload) % block``: the padding length as a byte, and the padding."""
    pads = []
    for remainder in range(block):
        size = block - (remainder + 1) % block
        size += block if size < 4 else 0
        pads.append((bytes((size,)), bytes(size)))
    return pads


_PADS8: Final = _pads(8)
_PADS16: Final = _pads(16)


def _impossible() -> ProtocolProblem:
    return ProtocolProblem("a packet has an impossible length")


def _changed() -> IntegrityProblem:
    return IntegrityProblem("a packet was changed on the way")


class PlainSealer:
    """Before the first key exchange has ended."""

    def seal(self, sequence: int, out: list[bytes], head: bytes, body: bytes | memoryview) -> int:
        size = len(head) + len(body)
        padding = 8 - (size + 5) % 8
        padding += 8 if padding < 4 else 0
        out.append(b"".join((_U32.pack(1 + size + padding), bytes((padding,)), head, body, bytes(padding))))
        return 5 + size + padding


class PlainOpener:
    def open(self, sequence: int, data: memoryview, at: int, end: int, longest: int) -> tuple[bytes, int] | None:
        if end - at < 4:
            return None
        (length,) = _U32.unpack_from(data, at)
        if length > longest or length < 5 or (length + 4) % 8:
            raise _impossible()
        stop = at + 4 + length
        return None if end < stop else (bytes(data[at + 4 : stop]), stop)


class _GCM:
    """RFC 5647 as OpenSSH has it: the length goes in the clear and is authenticated; the IV's last 8 bytes count."""

    __slots__ = ("_cipher", "_counter", "_fixed", "_invalid_tag")

    def __init__(self, key: bytes, iv: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._invalid_tag = InvalidTag

        self._cipher = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = _U64.unpack(iv[4:])[0]


class GCMSealer(_GCM):
    __slots__ = ()

    def seal(self, sequence: int, out: list[bytes], head: bytes, body: bytes | memoryview) -> int:
        size = len(head) + len(body)
        pad, padding = _PADS16[size & 15]
        plain = b"".join((pad, head, body, padding))
        length = _U32.pack(len(plain))
        counter = self._counter
        self._counter = (counter + 1) & _MASK64
        sealed = self._cipher.encrypt(self._fixed + _U64.pack(counter), plain, length)
        if size < _JOIN_BELOW:
            out.append(length + sealed)
        else:
            out.append(length)
            out.append(sealed)
        return 4 + len(sealed)


class GCMOpener(_GCM):
    __slots__ = ()

    def open(self, sequence: int, data: memoryview, at: int, end: int, longest: int) -> tuple[bytes, int] | None:
        body = at + 4
        if end < body:
            return None
        (length,) = _U32.unpack_from(data, at)
        if length > longest or length < 16 or length & 15:
            raise _impossible()
        stop = body + length + 16
        if end < stop:
            return None
        counter = self._counter
        self._counter = (counter + 1) & _MASK64
        try:
            plain = self._cipher.decrypt(self._fixed + _U64.pack(counter), data[body:stop], _U32.pack(length))
        except self._invalid_tag:
            raise _changed() from None
        return plain, stop


class _ChaCha:
    """chacha20-poly1305@openssh.com: the second half of the key hides the length, the first half does the rest.

    Block 0 of the main stream is the key of the tag, and the data begins with block 1: 64 zeros in front of the data
    give both in one call.
    """

    __slots__ = ("_head_stream", "_main_stream", "_tag")

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
        from cryptography.hazmat.primitives.poly1305 import Poly1305

        self._tag = Poly1305.generate_tag
        self._main_stream = Cipher(algorithms.ChaCha20(key[:32], bytes(16)), None).encryptor()
        self._head_stream = Cipher(algorithms.ChaCha20(key[32:], bytes(16)), None).encryptor()


_ZEROS8: Final = bytes(8)
_ZEROS64: Final = bytes(64)


class ChaChaSealer(_ChaCha):
    __slots__ = ()

    def seal(self, sequence: int, out: list[bytes], head: bytes, body: bytes | memoryview) -> int:
        size = len(head) + len(body)
        pad, padding = _PADS8[size & 7]
        nonce = _ZEROS8 + _U64.pack(sequence)
        self._head_stream.reset_nonce(nonce)
        self._main_stream.reset_nonce(nonce)
        length = self._head_stream.update(_U32.pack(1 + size + len(padding)))
        stream = self._main_stream.update(b"".join((_ZEROS64, pad, head, body, padding)))
        sealed = length + stream[64:]
        out.append(sealed)
        out.append(self._tag(stream[:32], sealed))
        return len(sealed) + 16


class ChaChaOpener(_ChaCha):
    __slots__ = ("_length", "_sequence")

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._sequence, self._length = -1, 0  # the length of a packet that is not whole yet is decrypted once

    def open(self, sequence: int, data: memoryview, at: int, end: int, longest: int) -> tuple[bytes, int] | None:
        body = at + 4
        if end < body:
            return None
        nonce = _ZEROS8 + _U64.pack(sequence)
        if self._sequence != sequence:
            self._head_stream.reset_nonce(nonce)
            self._length = _U32.unpack(self._head_stream.update(data[at:body]))[0]
            self._sequence = sequence
        length = self._length
        if length > longest or length < 8 or length & 7:
            raise _impossible()
        stop = body + length
        if end < stop + 16:
            return None
        self._sequence = -1
        self._main_stream.reset_nonce(nonce)
        stream = self._main_stream.update(_ZEROS64)
        if not hmac.compare_digest(self._tag(stream[:32], data[at:stop]), data[stop : stop + 16]):
            raise _changed()
        return self._main_stream.update(data[body:stop]), stop + 16


class _CTR:
    """AES-CTR with a MAC over the encrypted packet (EtM): the length goes in the clear."""

    __slots__ = ("_mac", "_mac_key", "_size", "_stream")

    def __init__(self, key: bytes, iv: bytes, mac: str, mac_key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._stream = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
        self._mac, self._mac_key = mac, mac_key
        self._size = len(mac_key)


class CTRSealer(_CTR):
    __slots__ = ()

    def seal(self, sequence: int, out: list[bytes], head: bytes, body: bytes | memoryview) -> int:
        size = len(head) + len(body)
        pad, padding = _PADS16[size & 15]
        sealed = self._stream.update(b"".join((pad, head, body, padding)))
        length = _U32.pack(len(sealed))
        tag = hmac.digest(self._mac_key, b"".join((_U32.pack(sequence), length, sealed)), self._mac)
        out += (length, sealed, tag)
        return 4 + len(sealed) + self._size


class CTROpener(_CTR):
    __slots__ = ()

    def open(self, sequence: int, data: memoryview, at: int, end: int, longest: int) -> tuple[bytes, int] | None:
        body = at + 4
        if end < body:
            return None
        (length,) = _U32.unpack_from(data, at)
        if length > longest or length < 16 or length & 15:
            raise _impossible()
        stop = body + length
        if end < stop + self._size:
            return None
        tag = hmac.digest(self._mac_key, b"".join((_U32.pack(sequence), data[at:stop])), self._mac)
        if not hmac.compare_digest(tag, data[stop : stop + self._size]):
            raise _changed()
        return self._stream.update(data[body:stop]), stop + self._size


class PlainMACSealer(_CTR):
    """AES-CTR with a MAC over the plain packet (RFC 4253 section 6): the length is encrypted with the rest."""

    __slots__ = ()

    def seal(self, sequence: int, out: list[bytes], head: bytes, body: bytes | memoryview) -> int:
        size = len(head) + len(body)
        pad, padding = _PADS16[(size + 4) & 15]
        plain = b"".join((_U32.pack(1 + size + len(padding)), pad, head, body, padding))
        tag = hmac.digest(self._mac_key, _U32.pack(sequence) + plain, self._mac)
        out += (self._stream.update(plain), tag)
        return len(plain) + self._size


class PlainMACOpener(_CTR):
    __slots__ = ("_first", "_sequence")

    def __init__(self, key: bytes, iv: bytes, mac: str, mac_key: bytes) -> None:
        super().__init__(key, iv, mac, mac_key)
        self._sequence, self._first = -1, b""  # the first block of a packet that is not whole yet is decrypted once

    def open(self, sequence: int, data: memoryview, at: int, end: int, longest: int) -> tuple[bytes, int] | None:
        body = at + 16
        if end < body:
            return None
        if self._sequence != sequence:
            self._first = self._stream.update(data[at:body])
            self._sequence = sequence
        (length,) = _U32.unpack_from(self._first)
        if length > longest or length < 12 or (length + 4) & 15:
            raise _impossible()
        stop = at + 4 + length
        if end < stop + self._size:
            return None
        self._sequence = -1
        plain = self._first + self._stream.update(data[body:stop])
        tag = hmac.digest(self._mac_key, _U32.pack(sequence) + plain, self._mac)
        if not hmac.compare_digest(tag, data[stop : stop + self._size]):
            raise _changed()
        return plain[4:], stop + self._size


_GCM_KEYS: Final = {b"aes128-gcm@openssh.com": 16, b"aes256-gcm@openssh.com": 32}
_CTR_KEYS: Final = {b"aes128-ctr": 16, b"aes192-ctr": 24, b"aes256-ctr": 32}
_MACS: Final = {
    b"hmac-sha2-256-etm@openssh.com": ("sha256", 32),
    b"hmac-sha2-512-etm@openssh.com": ("sha512", 64),
    b"hmac-sha2-256": ("sha256", 32),
    b"hmac-sha2-512": ("sha512", 64),
}
_ENCRYPT_THEN_MAC: Final = b"-etm@openssh.com"
_CHACHA: Final = b"chacha20-poly1305@openssh.com"


class Derive(Protocol):
    def __call__(self, letter: bytes, size: int) -> bytes:
        """``size`` bytes of key for ``letter`` (RFC 4253 section 7.2)."""


def make_sealer(cipher: bytes, mac: bytes, derive: Derive, letters: bytes) -> Sealer:
    """``letters`` are those of IV, key and MAC key: ``ACE`` from the client, ``BDF`` from the server."""
    iv, key, mac_letter = letters[:1], letters[1:2], letters[2:]
    if size := _GCM_KEYS.get(cipher):
        return GCMSealer(derive(key, size), derive(iv, 12))
    if cipher == _CHACHA:
        return ChaChaSealer(derive(key, 64))
    name, mac_size = _MACS[mac]
    made = CTRSealer if mac.endswith(_ENCRYPT_THEN_MAC) else PlainMACSealer
    return made(derive(key, _CTR_KEYS[cipher]), derive(iv, 16), name, derive(mac_letter, mac_size))


def make_opener(cipher: bytes, mac: bytes, derive: Derive, letters: bytes) -> Opener:
    """The same for the other direction."""
    iv, key, mac_letter = letters[:1], letters[1:2], letters[2:]
    if size := _GCM_KEYS.get(cipher):
        return GCMOpener(derive(key, size), derive(iv, 12))
    if cipher == _CHACHA:
        return ChaChaOpener(derive(key, 64))
    name, mac_size = _MACS[mac]
    made = CTROpener if mac.endswith(_ENCRYPT_THEN_MAC) else PlainMACOpener
    return made(derive(key, _CTR_KEYS[cipher]), derive(iv, 16), name, derive(mac_letter, mac_size))
