"""File attributes of SFTP version 3 (draft section 5), and the line that ``ls -l`` would print (section 7)."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time
from struct import Struct

from teleconch.node.files.packets import Malformed, Reader

SIZE, OWNER, PERMISSIONS, TIMES, EXTENDED = 1, 2, 4, 8, 0x80000000
EXTENDED_MAX = 256
_ALL = Struct(">LQ5L")
_ALL_FLAGS = SIZE | OWNER | PERMISSIONS | TIMES
_HALF_YEAR = 365 * 24 * 3600 // 2
_UINT32_MAX = 0xFFFFFFFF

NONE = b"\0\0\0\0"  # no attributes at all


class Attributes:
    """What a client asks to be set; ``None`` is left as it is. ``owner`` is (uid, gid), ``times`` (access, change)."""

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
        """Malformed where they end early. Extended pairs are passed over, as there are none in version 3's draft."""
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
                raise Malformed
            for _ in range(2 * count):
                reader.string()
        return found

    def packed(self) -> bytes:
        """As a client sends them."""
        flags = 0
        body = b""
        if self.size is not None:
            flags |= SIZE
            body += self.size.to_bytes(8, "big")
        for flag, pair in ((OWNER, self.owner), (PERMISSIONS, self.mode), (TIMES, self.times)):
            if pair is not None:
                flags |= flag
                for number in pair if isinstance(pair, tuple) else (pair,):
                    body += number.to_bytes(4, "big")
        return flags.to_bytes(4, "big") + body


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


class Listing:
    """Makes ``ls -l`` lines; remembers the names of users and groups, and when it was made."""

    def __init__(self) -> None:
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}
        self._now = time.time()

    def user(self, uid: int) -> bytes:
        """A user's name, or the number."""
        if uid not in self._users:
            try:
                self._users[uid] = os.fsencode(pwd.getpwuid(uid).pw_name)
            except (KeyError, OverflowError):
                self._users[uid] = b"%d" % uid
        return self._users[uid]

    def group(self, gid: int) -> bytes:
        """A group's name, or the number."""
        if gid not in self._groups:
            try:
                self._groups[gid] = os.fsencode(grp.getgrgid(gid).gr_name)
            except (KeyError, OverflowError):
                self._groups[gid] = b"%d" % gid
        return self._groups[gid]

    def line(self, name: bytes, info: os.stat_result) -> bytes:
        """Mode, links, owner, group, size, time (with the year where it is half a year old, or to come), name."""
        changed = int(info.st_mtime)
        shape = "%b %e %H:%M" if self._now - _HALF_YEAR < changed <= self._now else "%b %e  %Y"
        try:
            when = time.strftime(shape, time.localtime(changed)).encode()
        except (OverflowError, ValueError, OSError):
            when = b""
        return b"%-10s %4d %-8s %-8s %8d %s %s" % (
            stat.filemode(info.st_mode).encode(),
            info.st_nlink,
            self.user(info.st_uid),
            self.group(info.st_gid),
            info.st_size,
            when,
            name,
        )
