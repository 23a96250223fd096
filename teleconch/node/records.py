"""utmp, wtmp and lastlog: who is logged in on which terminal, since when, and when they were here last.

Written by root only, in the launcher and its children. libc writes utmp and wtmp, which locks them; lastlog is a plain
file with one record for each user id. Layouts as in glibc's ``<utmpx.h>`` and ``<lastlog.h>``.

Runs in the launcher, and so imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import time
from typing import Final

WTMP: Final = b"/var/log/wtmp"
LASTLOG: Final = "/var/log/lastlog"
USER_PROCESS: Final = 7
DEAD_PROCESS: Final = 8

_WIDE: Final = platform.machine() in ("aarch64", "loongarch64")  # 64-bit times; all others keep 32 bits in the files
_TIME: Final = ctypes.c_int64 if _WIDE else ctypes.c_int32
_LASTLOG: Final = struct.Struct("q32s256s" if _WIDE else "i32s256s")


class _Time(ctypes.Structure):
    _fields_ = [("seconds", _TIME), ("microseconds", _TIME)]


class _Record(ctypes.Structure):
    """``struct utmpx``."""

    _fields_ = [
        ("type", ctypes.c_short),
        ("pid", ctypes.c_int),
        ("line", ctypes.c_char * 32),
        ("id", ctypes.c_char * 4),
        ("user", ctypes.c_char * 32),
        ("host", ctypes.c_char * 256),
        ("exit", ctypes.c_short * 2),
        ("session", _TIME),
        ("time", _Time),
        ("address", ctypes.c_int32 * 4),
        ("unused", ctypes.c_char * 20),
    ]


def login(line: str, pid: int, user: str, host: str) -> None:
    """``user`` is on the terminal ``line`` (``pts/3``) now. What cannot be written is left out, as everywhere."""
    _write(_record(USER_PROCESS, line, pid, user, host))


def logout(line: str, pid: int) -> None:
    """Nobody is on ``line`` any more."""
    _write(_record(DEAD_PROCESS, line, pid, "", ""))


def _record(type: int, line: str, pid: int, user: str, host: str) -> _Record:
    now = time.time()
    record = _Record(type=type, pid=pid)
    record.line = os.fsencode(line)[:32]
    record.id = os.fsencode(line)[-4:]
    record.user = os.fsencode(user)[:32]
    record.host = os.fsencode(host)[:256]
    record.time = _Time(int(now), int(now % 1 * 1_000_000))
    return record


def _write(record: _Record) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.pututxline.restype = ctypes.c_void_p
    libc.setutxent()
    libc.pututxline(ctypes.byref(record))
    libc.endutxent()
    libc.updwtmpx(WTMP, ctypes.byref(record))


def seen(uid: int, line: str, host: str) -> tuple[float, str] | None:
    """When and from where the user was here last (``None``: never), and a note that it is now."""
    at = uid * _LASTLOG.size
    record = _LASTLOG.pack(int(time.time()), os.fsencode(line)[:32], os.fsencode(host)[:256])
    before = b""
    for flags in (os.O_RDONLY, os.O_WRONLY):  # one may be possible without the other, on a full disk for one
        try:
            fd = os.open(LASTLOG, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if flags == os.O_RDONLY:
                before = os.pread(fd, _LASTLOG.size, at)
            else:
                os.pwrite(fd, record, at)
        except OSError:
            pass
        finally:
            os.close(fd)
    if len(before) < _LASTLOG.size:
        return None
    when, _, where = _LASTLOG.unpack(before)
    return (float(when), where.split(b"\0")[0].decode("ascii", "replace")) if when else None
