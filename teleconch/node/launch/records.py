"""utmp, wtmp, lastlog and wtmp.db: who is logged in on which terminal, since when, and when they were here last.

As with sshd, each session that has a terminal is recorded, whatever runs on it; one without is not. Debian 13's
sshd writes all four, and ``last`` reads the fourth there; Debian 12 has the first three.

- utmp and wtmp have a record of one size for each event; a login that is over makes way for the next one in utmp.
- lastlog is a plain file with one record for each user id. Layouts as in glibc's ``<utmpx.h>`` and ``<lastlog.h>``.
- wtmp.db is an SQLite database, which libwtmpdb writes, if that is installed.

Each writer locks what it writes, and any user can hold such a lock, because anyone may read these files. So nobody
waits for one longer than :data:`PATIENCE`. After that, utmp and wtmp are written without it: a user who holds the lock
hides no login. (Records are appended in one piece; at worst, of two that are written at once to the same place in utmp,
one is lost.)

Written by root only, in the launcher's children. Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

UTMP: Final = "/var/run/utmp"
WTMP: Final = "/var/log/wtmp"
LASTLOG: Final = "/var/log/lastlog"
LIBWTMPDB: Final = "libwtmpdb.so.0"
USER_PROCESS: Final = 7
DEAD_PROCESS: Final = 8
PATIENCE: Final = 0.2  # seconds for the lock of one file; whoever means well holds it for microseconds
DATABASE_PATIENCE: Final = 1.0  # seconds for wtmp.db, which is written through to the disk
UTMP_MAX: Final = 4 << 20  # bytes; 10,000 terminals

_WIDE: Final = platform.machine() in ("aarch64", "loongarch64")  # 64-bit times; all others keep 32 bits in the files
_LASTLOG: Final = struct.Struct("q32s256s" if _WIDE else "i32s256s")
# struct utmpx: type, pid, line, id, user, host, exit (2), session, time (2), address, unused
_RECORD: Final = struct.Struct("hi32s4s32s256s2h" + ("q2q" if _WIDE else "i2i") + "16s20s" + ("0q" if _WIDE else ""))
_OF_A_TERMINAL: Final = (5, 6, 7, 8)  # INIT_PROCESS to DEAD_PROCESS
_DATABASE_USER: Final = 3  # wtmpdb.h's USER_PROCESS


def login(line: str, pid: int, user: str, host: str) -> None:
    """``user`` is on the terminal ``line`` (``pts/3``) now. What cannot be written is left out, as everywhere here."""
    _write(_record(USER_PROCESS, line, pid, user, host))
    _in_time(_database_login, line, user, host)


def logout(line: str, pid: int) -> None:
    """Nobody is on ``line`` any longer."""
    _write(_record(DEAD_PROCESS, line, pid, "", ""))
    _in_time(_database_logout, line)


# --- utmp and wtmp ---------------------------------------------------------------------------------------------------


def _record(type: int, line: str, pid: int, user: str, host: str) -> bytes:
    now, name = time.time(), os.fsencode(line)
    texts = name[:32], name[-4:], os.fsencode(user)[:32], os.fsencode(host)[:256]
    return _RECORD.pack(type, pid, *texts, 0, 0, 0, int(now), int(now % 1 * 1_000_000), _address(host), b"")


def _address(host: str) -> bytes:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, host)
        except OSError:
            continue
    return b""


def _write(record: bytes) -> None:
    for path, put in ((UTMP, _put), (WTMP, _append)):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            _lock(fd, time.monotonic() + PATIENCE)
            put(fd, record)
        except OSError:
            pass
        finally:
            os.close(fd)


def _lock(fd: int, until: float) -> None:
    """Returns without the lock at ``until`` (monotonic)."""
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() >= until:
                return
            time.sleep(0.005)


def _put(fd: int, record: bytes) -> None:
    """In place of the terminal's last record."""
    kind, id, when = _key(record, 0)
    whole = os.pread(fd, UTMP_MAX, 0)
    for at in range(0, len(whole) - _RECORD.size + 1, _RECORD.size):
        its_kind, its_id, its_when = _key(whole, at)
        if its_kind in _OF_A_TERMINAL and its_id == id:
            if kind != DEAD_PROCESS or its_when <= when:  # otherwise the terminal is somebody else's already
                os.pwrite(fd, record, at)
            return
    _append(fd, record)


def _key(records: bytes, at: int) -> tuple[int, bytes, tuple[int, int]]:
    """Kind, id and time of one record."""
    kind, _, _, id, _, _, _, _, _, seconds, microseconds, _, _ = _RECORD.unpack_from(records, at)
    return kind, id, (seconds, microseconds)


def _append(fd: int, record: bytes) -> None:
    size = os.fstat(fd).st_size
    if size % _RECORD.size:  # what a full disk left of somebody's record
        os.ftruncate(fd, size - size % _RECORD.size)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    if os.write(fd, record) < _RECORD.size:
        os.ftruncate(fd, size - size % _RECORD.size)


# --- wtmp.db ---------------------------------------------------------------------------------------------------------


def _load() -> ctypes.CDLL | None:
    try:
        lib = ctypes.CDLL(LIBWTMPDB)
    except OSError:
        return None
    lib.wtmpdb_login.restype = lib.wtmpdb_get_id.restype = ctypes.c_int64
    text, time, error = ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p
    lib.wtmpdb_login.argtypes = [text, ctypes.c_int, text, time, text, text, text, error]
    lib.wtmpdb_get_id.argtypes = [text, text, error]
    lib.wtmpdb_logout.argtypes = [text, ctypes.c_int64, time, error]
    return lib


_lib: Final = _load()  # once, and not in each child


def _database_login(lib: ctypes.CDLL, line: str, user: str, host: str) -> None:
    texts = (os.fsencode(each) for each in (line, host))
    lib.wtmpdb_login(None, _DATABASE_USER, os.fsencode(user), time.time_ns() // 1000, *texts, None, None)


def _database_logout(lib: ctypes.CDLL, line: str) -> None:
    id = lib.wtmpdb_get_id(None, os.fsencode(line), None)
    if id >= 0:
        lib.wtmpdb_logout(None, id, time.time_ns() // 1000, None)


def _in_time(write: Callable[..., None], *facts: str) -> None:
    """Let a child write to wtmp.db, if there is one, and end it if it takes too long: SQLite waits for locks by itself,
    up to 5 s for each, and nothing can interrupt it."""
    if _lib is None:
        return
    try:
        child = os.fork()
    except OSError:  # the machine has no process left; the login goes on without this record
        return
    if child == 0:
        try:
            write(_lib, *facts)
        finally:
            os._exit(0)
    try:
        fd = os.pidfd_open(child)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(DATABASE_PATIENCE * 1000)
        finally:
            os.close(fd)
    except OSError:  # the same, with no descriptor left
        pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # it is root's: no user can keep it


# --- lastlog ---------------------------------------------------------------------------------------------------------


def seen(uid: int, line: str, host: str) -> tuple[float, str] | None:
    """When and from where the user was here last (``None``: never). Notes that they are here now."""
    at = uid * _LASTLOG.size
    record = _LASTLOG.pack(int(time.time()), os.fsencode(line)[:32], os.fsencode(host)[:256])
    before = b""
    for flags in (os.O_RDONLY, os.O_WRONLY):  # one may be possible without the other, on a full disk for example
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
