"""The line that ``ls -l`` would print for a file (draft-ietf-secsh-filexfer-02, section 7)."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time

_HALF_YEAR = 365 * 24 * 3600 // 2


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
        """Mode, links, owner, group, size, time (with the year if it is half a year old, or in the future), name."""
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
