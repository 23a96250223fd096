"""Terminal requests from the wire."""

from __future__ import annotations

import os
import struct
import termios

from hypothesis import example, given
from hypothesis import strategies as st

from teleconch.codec import string
from teleconch.errors import BadParameter
from teleconch.node.pty import PtyRequest, Terminal, parse_request, parse_size
from teleconch.session.program import WindowSize
from teleconch.ssh.modes import encode

UINT32 = st.integers(0, 2**32 - 1)
MODES = st.dictionaries(st.integers(1, 159), UINT32, max_size=80)
TERMS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=64)


@given(TERMS, st.tuples(UINT32, UINT32, UINT32, UINT32), MODES)
def test_round_trip(term: str, size: tuple[int, int, int, int], modes: dict[int, int]) -> None:
    """Whatever a client encodes as RFC 4254 says arrives as it was meant."""
    data = string(term.encode()) + struct.pack(">4L", *size) + string(encode(modes))
    assert parse_request(data) == PtyRequest(term, WindowSize(*size), modes)


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    """Garbage is refused and nothing else happens."""
    for parse in (parse_request, parse_size):
        try:
            parse(data)
        except BadParameter:
            pass


@example({92: 1}, (0, 0, 0, 0))  # parity, which a PTY does not have
@given(MODES, st.tuples(UINT32, UINT32, UINT32, UINT32))
def test_any_modes_can_be_set(modes: dict[int, int], size: tuple[int, int, int, int]) -> None:
    """No terminal modes and no window size, however odd, keep a session from starting or leave a descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    Terminal(PtyRequest("xterm", WindowSize(*size), modes)).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_modes_that_matter() -> None:
    """stty shows what the client's terminal had: characters, disabled ones, flags on and off, speed."""
    modes = {1: 7, 2: 255, 36: 0, 50: 0, 53: 1, 71: 0, 91: 1, 42: 1, 128: 9600, 129: 9600}
    terminal = Terminal(PtyRequest("xterm", WindowSize(80, 24), modes))
    iflag, _, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(terminal.master)
    terminal.close()
    assert cc[termios.VINTR] == b"\x07"
    assert cc[termios.VQUIT] == b"\0"
    assert not iflag & termios.ICRNL
    assert iflag & 0o40000
    assert not lflag & termios.ISIG
    assert lflag & termios.ECHO
    assert cflag & termios.CSIZE == termios.CS8
    assert (ispeed, ospeed) == (termios.B9600, termios.B9600)
