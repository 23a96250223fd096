"""Terminal modes: as RFC 4254 section 8 and RFC 8160 encode them, and as termios keeps them. No I/O.

Encoded, each mode is a byte opcode and a uint32; an opcode of 0, or one of 160 and above, ends them. ``attributes`` is
the list that ``termios.tcgetattr`` makes.
"""

from __future__ import annotations

import termios
from collections.abc import Mapping
from typing import Any, Final

from teleconch.codec import Malformed, Reader, uint32

BYTES_MAX: Final = 4096  # there are not that many
IN_SPEED, OUT_SPEED = 128, 129
_UNDEFINED: Final = 160
_NO_CHARACTER: Final = 255
_DISABLED: Final = 0  # Linux's _POSIX_VDISABLE
_IUTF8: Final = 0o40000  # not in Python's termios

# opcode -> index into the control characters
CHARACTERS: Final[Mapping[int, int]] = {
    1: termios.VINTR,
    2: termios.VQUIT,
    3: termios.VERASE,
    4: termios.VKILL,
    5: termios.VEOF,
    6: termios.VEOL,
    7: termios.VEOL2,
    8: termios.VSTART,
    9: termios.VSTOP,
    10: termios.VSUSP,
    12: termios.VREPRINT,
    13: termios.VWERASE,
    14: termios.VLNEXT,
    18: termios.VDISCARD,
}
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)
# opcode -> (index into the attributes, flag); of CS7 to PARODD, a PTY's driver keeps only what it can
FLAGS: Final[Mapping[int, tuple[int, int]]] = {
    30: (_IFLAG, termios.IGNPAR),
    31: (_IFLAG, termios.PARMRK),
    32: (_IFLAG, termios.INPCK),
    33: (_IFLAG, termios.ISTRIP),
    34: (_IFLAG, termios.INLCR),
    35: (_IFLAG, termios.IGNCR),
    36: (_IFLAG, termios.ICRNL),
    37: (_IFLAG, termios.IUCLC),
    38: (_IFLAG, termios.IXON),
    39: (_IFLAG, termios.IXANY),
    40: (_IFLAG, termios.IXOFF),
    41: (_IFLAG, termios.IMAXBEL),
    42: (_IFLAG, _IUTF8),
    50: (_LFLAG, termios.ISIG),
    51: (_LFLAG, termios.ICANON),
    52: (_LFLAG, termios.XCASE),
    53: (_LFLAG, termios.ECHO),
    54: (_LFLAG, termios.ECHOE),
    55: (_LFLAG, termios.ECHOK),
    56: (_LFLAG, termios.ECHONL),
    57: (_LFLAG, termios.NOFLSH),
    58: (_LFLAG, termios.TOSTOP),
    59: (_LFLAG, termios.IEXTEN),
    60: (_LFLAG, termios.ECHOCTL),
    61: (_LFLAG, termios.ECHOKE),
    62: (_LFLAG, termios.PENDIN),
    70: (_OFLAG, termios.OPOST),
    71: (_OFLAG, termios.OLCUC),
    72: (_OFLAG, termios.ONLCR),
    73: (_OFLAG, termios.OCRNL),
    74: (_OFLAG, termios.ONOCR),
    75: (_OFLAG, termios.ONLRET),
    90: (_CFLAG, termios.CS7),
    91: (_CFLAG, termios.CS8),
    92: (_CFLAG, termios.PARENB),
    93: (_CFLAG, termios.PARODD),
}
_SPEEDS: Final[Mapping[int, int]] = {
    int(name[1:]): getattr(termios, name) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()
}


def encode(modes: Mapping[int, int]) -> bytes:
    """Opcode to value, as ``pty-req`` carries them."""
    return b"".join(bytes((opcode,)) + uint32(value) for opcode, value in modes.items()) + b"\0"


def parse(data: bytes) -> dict[int, int]:
    """Opcode to value. Malformed."""
    if len(data) > BYTES_MAX:
        raise Malformed("there are not that many terminal modes")
    modes: dict[int, int] = {}
    reader = Reader(data)
    for at in range(0, len(data), 5):
        if not 0 < data[at] < _UNDEFINED:
            break
        opcode = reader.byte()
        modes[opcode] = reader.uint32()
    return modes


def read(attributes: list[Any], speed: int) -> dict[int, int]:
    """All modes of a terminal, and ``speed`` for both directions, in bits a second."""
    modes = {IN_SPEED: speed, OUT_SPEED: speed}
    for opcode, index in CHARACTERS.items():
        value = attributes[_CC][index]
        modes[opcode] = (value[0] if isinstance(value, bytes) else int(value)) or _NO_CHARACTER
    for opcode, (index, flag) in FLAGS.items():
        mask = termios.CSIZE if index == _CFLAG and flag & termios.CSIZE else flag  # CS8 has CS7's bit
        modes[opcode] = int(attributes[index] & mask == flag)
    return modes


def apply(modes: Mapping[int, int], attributes: list[Any]) -> None:
    """Change ``attributes``; opcodes that Linux does not know are left out."""
    for opcode, value in modes.items():
        if opcode in CHARACTERS:
            attributes[_CC][CHARACTERS[opcode]] = bytes((_DISABLED if value == _NO_CHARACTER else value & 0xFF,))
        elif opcode in FLAGS:
            index, flag = FLAGS[opcode]
            attributes[index] = attributes[index] | flag if value else attributes[index] & ~flag
        elif opcode == IN_SPEED and value in _SPEEDS:
            attributes[_ISPEED] = _SPEEDS[value]
        elif opcode == OUT_SPEED and value in _SPEEDS:
            attributes[_OSPEED] = _SPEEDS[value]
