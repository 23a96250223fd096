"""The SQLite file itself: who may open it, what is in it, and what is wrong with it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from teleconch.errors import Unavailable

SCHEMA_VERSION: Final = 1  # in PRAGMA user_version; raise it with each change of the tables
_APPLICATION_ID: Final = 0x7E1EC04C
BUSY_MILLISECONDS: Final = 5000  # a backup program may hold the file for a moment
_TABLES: Final = """
CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX items_expires ON items (expires) WHERE expires IS NOT NULL;
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""


def unusable(name: str, path: Path) -> str:
    """What an SQLite error (by its name, such as ``SQLITE_FULL``) means for whoever runs the auth server."""
    if name == "SQLITE_FULL":
        return f"The state in {path} cannot be written: the disk is full. Free some space; then try again."
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN")):
        return f"The state in {path} cannot be written: check the owner and mode of the file, and that the disk is not mounted read-only."  # noqa: E501 - one sentence
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"The state in {path} is damaged; stop the auth server and restore the file from a backup."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"The state in {path} is held by another program; try again when it is done."
    return f"The state in {path} cannot be used ({name or 'unknown error'}); check the disk and the system's log."


def lock(path: Path) -> int:
    """Take an exclusive lock, which ends with this process, however that ends. BlockingIOError if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_private(path: Path) -> None:
    """Make the file itself private, before SQLite makes it with the umask's mode: its ``-wal`` and ``-shm`` get that
    mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prepare(db: sqlite3.Connection, path: Path) -> int:
    """Set up the connection and, in a new file, the tables. Returns the last revision. Unavailable."""
    db.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != _APPLICATION_ID:
        raise Unavailable(f"{path} is an SQLite file of another program; name another file for the state.")
    if version > SCHEMA_VERSION:
        raise Unavailable(
            f"The state in {path} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION});"
            " install that version, or restore a backup made before the upgrade."
        )
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unavailable(f"The file system of {path} cannot hold the state safely (no WAL); use a local disk.")
    db.execute("PRAGMA synchronous = FULL")
    if not tables:
        db.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id = {_APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    (check,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if check != "ok":
        raise Unavailable(unusable("SQLITE_CORRUPT", path))
    (revision,) = db.execute("SELECT revision FROM counter").fetchone()
    assert isinstance(revision, int)
    return revision
