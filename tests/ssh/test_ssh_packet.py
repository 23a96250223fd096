"""Packets under each cipher."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleconch.ssh import algorithms, limits
from teleconch.ssh.packet import Opener, PlainOpener, PlainSealer, Sealer, make_opener, make_sealer
from teleconch.ssh.problems import IntegrityProblem, ProtocolProblem

PAIRS = [
    (cipher, b"" if cipher in algorithms.AEAD else mac)
    for cipher in algorithms.CIPHERS
    for mac in ((*algorithms.MACS, *algorithms.MACS_ALSO) if cipher not in algorithms.AEAD else algorithms.MACS[:1])
]


def derive(letter: bytes, size: int) -> bytes:
    return hashlib.shake_256(letter).digest(size)


def ends(cipher: bytes, mac: bytes) -> tuple[Sealer, Opener]:
    return make_sealer(cipher, mac, derive, b"ACE"), make_opener(cipher, mac, derive, b"ACE")


def payload(plain: bytes) -> bytes:
    return plain[1 : len(plain) - plain[0]]


@settings(deadline=None, max_examples=200)
@given(
    pair=st.sampled_from(PAIRS),
    parts=st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=9000)), min_size=1, max_size=5),
)
def test_what_is_sealed_is_opened(pair: tuple[bytes, bytes], parts: list[tuple[bytes, bytes]]) -> None:
    """Everything that is sent arrives as it was, in one piece or byte by byte."""
    sealer, opener = ends(*pair)
    out: list[bytes] = []
    sizes = [sealer.seal(number, out, head, memoryview(body)) for number, (head, body) in enumerate(parts)]
    wire = b"".join(out)
    assert sum(sizes) == len(wire)
    at = 0
    for number, (head, body) in enumerate(parts):
        for short in {at, at + 3, at + 4, at + sizes[number] - 1}:
            assert opener.open(number, memoryview(wire), at, short, limits.PACKET_MAX) is None
        found = opener.open(number, memoryview(wire), at, len(wire), limits.PACKET_MAX)
        assert found is not None
        plain, at = found
        assert payload(plain) == head + body
        assert plain[0] >= 4


@settings(deadline=None, max_examples=300)
@given(pair=st.sampled_from(PAIRS), body=st.binary(max_size=200), where=st.integers(0, 10_000))
def test_a_flipped_bit_is_noticed(pair: tuple[bytes, bytes], body: bytes, where: int) -> None:
    """A packet that was changed on the way never reaches anyone."""
    sealer, opener = ends(*pair)
    out: list[bytes] = []
    sealer.seal(0, out, b"\x5e", body)
    wire = bytearray(b"".join(out))
    bit = where % (len(wire) * 8)
    wire[bit // 8] ^= 1 << bit % 8
    try:
        found = opener.open(0, memoryview(wire), 0, len(wire), limits.PACKET_MAX)
    except (IntegrityProblem, ProtocolProblem):
        return
    assert found is None  # a longer length: it waits for bytes, and then sees the tag
    wire += bytes(limits.PACKET_MAX + 4096)
    with pytest.raises((IntegrityProblem, ProtocolProblem)):
        opener.open(0, memoryview(wire), 0, len(wire), limits.PACKET_MAX)


@pytest.mark.parametrize(("cipher", "mac"), PAIRS)
def test_replayed_and_reordered_packets_are_noticed(cipher: bytes, mac: bytes) -> None:
    """Who sits on the wire can neither repeat nor swap nor drop packets."""
    for order in ([0, 0], [1], [0, 2]):
        sealer, opener = ends(cipher, mac)
        packets = []
        for number in range(3):
            out: list[bytes] = []
            sealer.seal(number, out, b"\x5e", b"data %d" % number)
            packets.append(b"".join(out))
        for sequence, which in enumerate(order[:-1]):
            assert opener.open(sequence, memoryview(packets[which]), 0, len(packets[which]), limits.PACKET_MAX)
        wire = packets[order[-1]]
        with pytest.raises((IntegrityProblem, ProtocolProblem)):
            opener.open(len(order) - 1, memoryview(wire), 0, len(wire), limits.PACKET_MAX)


@pytest.mark.parametrize("length", [0, 1, 4, 11, 13, limits.PACKET_MAX + 1, 0xFFFFFFFF])
def test_impossible_lengths_end_the_connection(length: int) -> None:
    """A peer cannot have us wait for, or keep, a packet that is too long or no packet at all."""
    wire = length.to_bytes(4, "big") + bytes(100)
    for opener in (PlainOpener(), make_opener(b"aes128-gcm@openssh.com", b"", derive, b"ACE")):
        with pytest.raises(ProtocolProblem):
            opener.open(0, memoryview(wire), 0, len(wire), limits.PACKET_MAX)


@given(head=st.binary(min_size=1, max_size=50), body=st.binary(max_size=500))
def test_plain_packets(head: bytes, body: bytes) -> None:
    """The first messages of a connection arrive as they were."""
    out: list[bytes] = []
    size = PlainSealer().seal(0, out, head, body)
    wire = b"".join(out)
    assert len(wire) == size
    assert size % 8 == 0
    found = PlainOpener().open(0, memoryview(wire), 0, size, limits.PACKET_MAX)
    assert found is not None
    assert payload(found[0]) == head + body
