"""SFTP as bytes: what one end writes, the other reads; garbage is malformed and nothing else happens."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.codec import Malformed, string
from teleconch.sftp import attributes, packets
from teleconch.sftp.attributes import Attributes
from teleconch.sftp.packets import Reader

numbers = st.integers(0, 2**32 - 1)
long_numbers = st.integers(0, 2**64 - 1)
pairs = st.none() | st.tuples(numbers, numbers)


@given(st.none() | long_numbers, pairs, st.none() | numbers, pairs)
def test_attributes(
    size: int | None, owner: tuple[int, int] | None, mode: int | None, times: tuple[int, int] | None
) -> None:
    """What a client asks to be set is what is set, and nothing else."""
    reader = Reader(Attributes(size, owner, mode, times).packed())
    found = Attributes.read(reader)
    assert (found.size, found.owner, found.mode, found.times, reader.rest()) == (size, owner, mode, times, 0)


def test_no_attributes() -> None:
    """None at all is said in four bytes."""
    assert Attributes().packed() == attributes.NONE


def test_attributes_of_a_file(tmp_path: Path) -> None:
    """What the server says of a file is what a client reads; times before 1970 and after 2106 are cut to 32 bits."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    for changed in (1700000000, -1, 2**32 + 5):
        try:
            os.utime(path, (changed, changed))
        except OverflowError:
            continue
        info = path.stat()
        found = Attributes.read(Reader(attributes.packed(info)))
        assert (found.size, found.owner, found.mode) == (5, (info.st_uid, info.st_gid), info.st_mode)
        assert found.times == (int(info.st_atime) & 0xFFFFFFFF, int(info.st_mtime) & 0xFFFFFFFF)


@given(numbers, st.integers(0, 2**40), st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=5))
def test_extended_attributes_are_passed_over(mode: int, size: int, more: list[tuple[bytes, bytes]]) -> None:
    """What only some servers say of a file does not hide what follows it."""
    flags = attributes.SIZE | attributes.PERMISSIONS | attributes.EXTENDED
    data = struct.pack(">LQLL", flags, size, mode, len(more))
    data += b"".join(string(part) for pair in more for part in pair)
    reader = Reader(data + b"next")
    found = Attributes.read(reader)
    assert (found.size, found.mode, found.owner, reader.rest()) == (size, mode, None, 4)


@given(st.lists(st.binary(max_size=100)), numbers, long_numbers, st.booleans())
def test_fields(strings: list[bytes], number: int, long: int, view: bool) -> None:
    """Strings and numbers are read as they were written; a packet that ends early is noticed."""
    data = b"".join(map(string, strings)) + struct.pack(">LQ", number, long)
    reader = Reader(memoryview(data) if view else data)
    assert [reader.string() for _ in strings] == strings
    assert (reader.uint32(), reader.uint64(), reader.rest()) == (number, long, 0)
    short = Reader(data[:-1])
    assert [short.string() for _ in strings] == strings
    short.uint32()
    with pytest.raises(Malformed):
        short.uint64()


@given(st.binary(max_size=60), st.lists(st.sampled_from(("uint32", "uint64", "string", "path", "rest")), max_size=9))
def test_garbage(data: bytes, fields: list[str]) -> None:
    """Garbage is malformed; no field is longer than the packet, and nothing is read beyond its end."""
    reader = Reader(memoryview(data))
    try:
        for field in fields:
            found: Any = getattr(reader, field)()
            assert isinstance(found, int) or len(found) <= len(data)
            assert reader.rest() >= 0
    except Malformed:
        pass


@given(st.binary(max_size=80))
def test_garbage_as_attributes(data: bytes) -> None:
    """So are attributes, however many they say they are."""
    for start in (b"", struct.pack(">LL", attributes.EXTENDED, 2**32 - 1)):
        try:
            Attributes.read(Reader(start + data))
        except Malformed:
            pass
        else:
            assert not start


@given(numbers, st.sampled_from(sorted(packets.SENTENCES)), st.none() | st.binary(max_size=50))
def test_answers(id: int, code: int, sentence: bytes | None) -> None:
    """An answer is as long as it says, and bears the id of its question."""
    packet = packets.answer(id, packets.status(code, sentence))
    reader = Reader(packet)
    assert reader.uint32() == len(packet) - 4
    assert packet[4] == packets.STATUS
    reader = Reader(packet, 5)
    assert (reader.uint32(), reader.uint32()) == (id, code)
    assert reader.string() == (packets.SENTENCES[code] if sentence is None else sentence)
    assert (reader.string(), reader.rest()) == (b"", 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [(errno.ENOENT, packets.NO_SUCH_FILE), (errno.EACCES, packets.PERMISSION_DENIED), (errno.ENOSPC, packets.FAILURE)],
)
def test_errors_of_the_system(error: int, code: int) -> None:
    """An error of the system has the code that OpenSSH's server has for it; "Failure" says why."""
    reader = Reader(packets.problem(OSError(error, os.strerror(error))), 1)
    assert reader.uint32() == code
    assert reader.string() == (os.strerror(error).encode() if code == packets.FAILURE else packets.SENTENCES[code])


@pytest.mark.parametrize("read", [Reader.path, lambda reader: reader.string()])
def test_zero_in_a_path(read: Callable[[Reader], bytes]) -> None:
    """A path that the system would cut at a zero byte is malformed; other strings may have one."""
    reader = Reader(string(b"a\0b"))
    if read is Reader.path:
        with pytest.raises(Malformed):
            read(reader)
    else:
        assert read(reader) == b"a\0b"
