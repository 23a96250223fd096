"""File attributes of SFTP version 3 (draft section 5). No I/O."""

from __future__ import annotations

import os
from struct import Struct

from teleconch.codec import Malformed, uint32
from teleconch.sftp.packets import UINT64, Reader

SIZE, OWNER, PERMISSIONS, TIMES, EXTENDED = 1, 2, 4, 8, 0x80000000
EXTENDED_MAX = 256
_ALL = Struct(">LQ5L")
_PAIR = Struct(">2L")
_ALL_FLAGS = SIZE | OWNER | PERMISSIONS | TIMES
_UINT32_MAX = 0xFFFFFFFF

NONE = b"\0\0\0\0"  # no attributes at all


class Attributes:
    """What a client asks to set, or a server says of a file; ``None`` is left as it is, or not said.

    ``size`` in 64 bits, everything else in 32. ``owner`` is (uid, gid), ``times`` (access, change) in seconds.
    """

    __slots__ = ("mode", "owner", "size", "times")

    def __init__(
        self,
        size: int | None = None,
        owner: tuple[int, int] | None = None,
        mode: int | None = None,
        times: tuple[int, int] | None = None,
    ) -> None:
        self.size = size
        self.owner = owner
        self.mode = mode
        self.times = times

    @classmethod
    def read(cls, reader: Reader) -> Attributes:
        """Malformed if they end early. Extended pairs are skipped: version 3's draft defines none."""
        flags = reader.uint32()
        found = cls()
        if flags & SIZE:
            found.size = reader.uint64()
        if flags & OWNER:
            found.owner = (reader.uint32(), reader.uint32())
        if flags & PERMISSIONS:
            found.mode = reader.uint32()
        if flags & TIMES:
            found.times = (reader.uint32(), reader.uint32())
        if flags & EXTENDED:
            count = reader.uint32()
            if count > EXTENDED_MAX:
                raise Malformed("a file has too many attributes")
            for _ in range(2 * count):
                reader.string()
        return found

    def packed(self) -> bytes:
        """As they are sent."""
        flags = 0
        body = b""
        if self.size is not None:
            flags |= SIZE
            body += UINT64.pack(self.size)
        if self.owner is not None:
            flags |= OWNER
            body += _PAIR.pack(*self.owner)
        if self.mode is not None:
            flags |= PERMISSIONS
            body += uint32(self.mode)
        if self.times is not None:
            flags |= TIMES
            body += _PAIR.pack(*self.times)
        return uint32(flags) + body


def packed(info: os.stat_result) -> bytes:
    """All attributes of a file. Times are cut to the protocol's 32 bits."""
    return _ALL.pack(
        _ALL_FLAGS,
        info.st_size,
        info.st_uid,
        info.st_gid,
        info.st_mode,
        int(info.st_atime) & _UINT32_MAX,
        int(info.st_mtime) & _UINT32_MAX,
    )
