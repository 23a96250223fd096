"""Terminal modes, encoded and in termios, as client and node both use them."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.codec import Malformed
from teleconch.ssh import modes

MODES = st.dictionaries(st.integers(1, 159), st.integers(0, 2**32 - 1), max_size=159)


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


@given(MODES)
def test_round_trip(wanted: dict[int, int]) -> None:
    """Whatever is encoded is read as it was meant."""
    assert modes.parse(modes.encode(wanted)) == wanted


@given(st.binary(max_size=modes.BYTES_MAX + 9))
def test_garbage(data: bytes) -> None:
    """Garbage is malformed and nothing else happens."""
    try:
        modes.parse(data)
    except Malformed:
        pass


def test_end() -> None:
    """Modes end at opcode 0, at the first one that RFC 4254 leaves undefined, and at a bound."""
    assert modes.parse(b"\x35\0\0\0\1\0\x36") == {53: 1}
    assert modes.parse(b"\x35\0\0\0\1\xa0\x36") == {53: 1}
    assert modes.parse(b"") == {}
    for data in (b"\x35\0\0", b"\x35", b"\x35\0\0\0\1" * 1000):
        with pytest.raises(Malformed):
            modes.parse(data)


def test_every_mode_arrives(terminal: int) -> None:
    """Each mode that is set here, by itself, is set on the other side: the two sides have one table."""
    plain = termios.tcgetattr(terminal)
    sizes = (90, 91)  # of a character: two bits that a PTY keeps as they are
    for opcode, (index, flag) in modes.FLAGS.items():
        if opcode in sizes:
            continue
        for value in (plain[index] | flag, plain[index] & ~flag):
            here = [*plain[:6], list(plain[6])]
            here[index] = value
            there = [*plain[:6], list(plain[6])]
            modes.apply(modes.parse(modes.encode(modes.read(here, 38400))), there)
            assert there[:6] == here[:6], opcode
    for opcode, index in modes.CHARACTERS.items():
        for character in (b"\x07", b"\0"):  # zero: no key does this
            here = [*plain[:6], list(plain[6])]
            here[6][index] = character
            there = [*plain[:6], list(plain[6])]
            modes.apply(modes.read(here, 38400), there)
            assert there[6] == here[6], opcode


def test_speeds(terminal: int) -> None:
    """RFC 4254: 128 is the speed of what is read, 129 of what is written; one that no terminal has changes nothing."""
    there = termios.tcgetattr(terminal)
    modes.apply({128: 9600, 129: 19200}, there)
    assert there[4:6] == [termios.B9600, termios.B19200]
    modes.apply({128: 12345, 129: 12345}, there)
    assert there[4:6] == [termios.B9600, termios.B19200]


def test_what_is_unknown_is_left_out(terminal: int) -> None:
    """An opcode that Linux has no mode for changes nothing."""
    there = termios.tcgetattr(terminal)
    modes.apply({11: 1, 15: 1, 16: 1, 17: 1, 43: 1, 99: 1, 159: 1}, there)
    assert there == termios.tcgetattr(terminal)
