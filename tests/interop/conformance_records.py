"""What stands in utmp, wtmp, lastlog and wtmp.db, read without the programs that show it: each release has others."""

from __future__ import annotations

import platform
import pwd
import re
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

UTMP, WTMP, LASTLOG, DATABASE = map(Path, ("/run/utmp", "/var/log/wtmp", "/var/log/lastlog", "/var/log/wtmp.db"))
_WIDE = platform.machine() == "aarch64"
_RECORD = struct.Struct("@hi32s4s32s256shh" + ("q2q16s20s0q" if _WIDE else "i2i16s20s"))  # glibc's <utmpx.h>
_SEEN = struct.Struct("=" + ("q" if _WIDE else "i") + "32s256s")
_KINDS = {7: "in", 8: "out"}

Marks = tuple[int, int]


def forget(user: str) -> None:
    """The user was never here, as far as lastlog knows: ids are given again, and not each useradd clears it."""
    if LASTLOG.exists():
        with LASTLOG.open("r+b") as file:
            file.seek(pwd.getpwnam(user).pw_uid * _SEEN.size)
            file.write(bytes(_SEEN.size))


def marks(user: str) -> Marks:
    """How much is there now: of wtmp and of wtmp.db. The user was never here."""
    forget(user)
    return WTMP.stat().st_size, len(_rows())


def told(user: str, since: Marks) -> str:
    """What is there of the user now; of wtmp and wtmp.db, what has come since then."""
    size, rows = since
    found = {
        "utmp": _entries(UTMP.read_bytes() if UTMP.exists() else b""),
        "wtmp": _entries(WTMP.read_bytes()[size:]),
        "lastlog": _seen(pwd.getpwnam(user).pw_uid),
        "wtmp.db": [" ".join(map(str, row)) for row in _rows()[rows:]],
    }
    whole = ", ".join(f"{name} {' '.join(entries)}" for name, entries in found.items() if entries) or "nothing"
    return re.sub(r"\b(pts|ts)/\d+", r"\1/N", whole.replace(user, "USER"))


def is_over(since: Marks) -> bool:
    """Whether what began since then has ended, as far as the records know."""
    size, rows = since
    events = _entries(WTMP.read_bytes()[size:])
    return len(events) % 2 == 0 and all(row[-1] == "out" for row in _rows()[rows:])


def _entries(data: bytes) -> list[str]:
    """A login with terminal, id, user, host and address; a logout with what it still has of them but for the id."""
    found = []
    for kind, _, *texts, _, _, _, _, _, address, _ in _RECORD.iter_unpack(data):
        line, id, user, host = (text.rstrip(b"\0").decode() for text in texts)
        if kind == 7:
            found.append(f"(in: {line} {id} {user} {host} {'.'.join(map(str, address[:4]))})")
        else:
            found.append(f"({_KINDS.get(kind, kind)}: {' '.join(filter(None, (line, user, host)))})")
    return found


def _seen(uid: int) -> list[str]:
    with LASTLOG.open("rb") as file:
        file.seek(uid * _SEEN.size)
        when, line, host = _SEEN.unpack(file.read(_SEEN.size).ljust(_SEEN.size, b"\0"))
    return [f"({line.rstrip(bytes(1)).decode()} {host.rstrip(bytes(1)).decode()})"] if when else []


def _rows() -> list[tuple[object, ...]]:
    if not DATABASE.exists():
        return []
    with closing(sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)) as database:
        shown = (
            "SELECT Type, User, TTY, RemoteHost, Service, CASE WHEN Logout IS NULL THEN 'in' ELSE 'out' END FROM wtmp"
        )
        return database.execute(f"{shown} ORDER BY ID").fetchall()
