"""The terminal during `tsh ssh`."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.client.terminal import Escapes, RawTerminal, modes_of, size_of, window_of


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_terminal_is_put_back(terminal: int) -> None:
    """After the session, also one that broke, the shell's line editing and echo are as before."""
    before = termios.tcgetattr(terminal)
    seen = []

    def broken_session() -> None:
        with RawTerminal(terminal) as raw:
            raw.enter()
            seen.append(termios.tcgetattr(terminal)[3] & termios.ECHO)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_session()
    assert seen == [0]
    assert termios.tcgetattr(terminal) == before


def test_size_and_modes(terminal: int) -> None:
    """The remote side gets the local size, erase key and echo."""
    termios.tcsetwinsize(terminal, (33, 101))
    assert size_of(terminal) == (101, 33)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 808, 660))
    assert window_of(terminal) == (101, 33, 808, 660)
    modes = modes_of(terminal)
    assert modes[-1] == 0
    found = {modes[i]: struct.unpack(">I", modes[i + 1 : i + 5])[0] for i in range(0, len(modes) - 1, 5)}
    assert found[3] == 0x7F
    assert found[53] == 1
    assert found[91] == 1


def test_what_is_no_terminal(tmp_path: Path) -> None:
    """A pipe has the size that every program can work with, and no modes."""
    with open(tmp_path / "file", "w") as file:
        assert size_of(file.fileno()) == (80, 24)
        assert modes_of(file.fileno()) == b"\0"


@pytest.mark.parametrize(
    ("typed", "sent", "leave"),
    [
        (b"~.", b"", True),
        (b"ls\r~.", b"ls\r", True),
        (b"ls ~.", b"ls ~.", False),
        (b"~~.", b"~.", False),
        (b"~x", b"~x", False),
        (b"a\r~~\r", b"a\r~\r", False),
        (b"~\r~.", b"~\r", True),
        (b"a\r~?~.", b"a\r", True),
        (b"~.rm -rf\r", b"", True),
    ],
)
def test_escapes(typed: bytes, sent: bytes, leave: bool) -> None:
    """~. at the start of a line leaves a session that hangs; everything else reaches the other side."""
    for pieces in ([typed], [typed[i : i + 1] for i in range(len(typed))]):
        escapes = Escapes()
        out = b""
        actions: list[Any] = []
        for piece in pieces:
            passed, asked = escapes.feed(piece)
            out, actions = out + passed, actions + asked
            if "." in actions:
                break
        assert out == sent
        assert ("." in actions) is leave


def test_other_escapes() -> None:
    """~? ~# ~^Z ~B ~R are told one by one and do not reach the node; another character may take the tilde's place."""
    assert Escapes().feed(b"~?~#a\r~\x1a~B~R~&~C~~") == (b"a\r~", ["?", "#", "\x1a", "B", "R", "&", "C"])
    assert Escapes(b"\x02").feed(b"~.\r\x02.") == (b"~.\r", ["."])
    assert Escapes(b"").feed(b"~.") == (b"~.", [])
    assert "~." in Escapes().help
    assert "^B." in Escapes(b"\x02").help


@given(st.binary())
def test_ordinary_keys_pass(typed: bytes) -> None:
    """Without a tilde nothing is changed."""
    typed = typed.replace(b"~", b"")
    assert Escapes().feed(typed) == (typed, [])
