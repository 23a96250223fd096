"""A store in one SQLite file: WAL, ``synchronous=FULL``, one thread that writes and one that reads.

Writes that wait for the disk are grouped: the next transaction takes all of them, and each is answered once that
transaction is durable. A locked file keeps other processes out.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from teleconch.backend.interface import (
    ABSENT,
    RANGE_MAX,
    Change,
    Delete,
    Event,
    Item,
    Put,
    Watch,
    check_changes,
    check_key,
    check_prefix,
    is_met,
)
from teleconch.backend.sqlite_file import BUSY_MILLISECONDS, lock, make_private, prepare, unusable
from teleconch.backend.store import Store, changed
from teleconch.backend.watch import Watches
from teleconch.errors import Unavailable
from teleconch.worker import Worker

log = Logger()

_SWEEP_MAX: Final = 1000  # items removed in one transaction


@frozen
class _Write:
    changes: tuple[Change, ...]
    now: float


@frozen
class _Sweep:
    now: float


@frozen
class _Written:
    revision: int
    events: tuple[Event, ...]


_Read = Callable[[sqlite3.Connection], tuple[Item, ...]]


class SqliteBackend(Store):
    """State in the file ``path`` (0600; its folder is made with 0700). ``now`` returns epoch seconds.

    Unavailable if the file cannot be used: another process uses it, or it is damaged, of a newer version, or read-only.
    """

    def __init__(self, path: str | os.PathLike[str], reactor: IReactorFromThreads, now: Callable[[], float]) -> None:
        self.path = Path(path)
        self._now = now
        self._closing = False
        self._watches = Watches()
        with contextlib.ExitStack() as undo:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = lock(self.path.with_name(self.path.name + ".lock"))
                undo.callback(os.close, self._lock)
                make_private(self.path)
                self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                undo.callback(self._db.close)
                self._revision = prepare(self._db, self.path)
                self._reader_db = sqlite3.connect(
                    f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
                )
                self._reader_db.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            except BlockingIOError:
                raise Unavailable(
                    f"{self.path} is in use by another auth server process; stop that one first."
                ) from None
            except OSError as error:
                raise Unavailable(
                    f"The state in {self.path} cannot be opened ({error.strerror}); check the folder's owner and mode."
                ) from error
            except sqlite3.Error as error:
                raise self._unavailable(error) from error
            undo.pop_all()
        self._writer: Worker[_Write | _Sweep, _Written] = Worker("state-writer", reactor, self._write, self._tell)
        self._reader: Worker[_Read, tuple[Item, ...]] = Worker("state-reader", reactor, self._read)

    async def commit(self, *changes: Change) -> int:
        check_changes(changes)
        return (await self._writer.submit(_Write(changes, self._now()))).revision

    async def find(self, key: str) -> Item | None:
        check_key(key)
        now = self._now()

        def read(db: sqlite3.Connection) -> tuple[Item, ...]:
            rows = db.execute(
                "SELECT key, value, expires, revision FROM items WHERE key = ? AND (expires IS NULL OR expires > ?)",
                (key, now),
            )
            return tuple(Item(*row) for row in rows)

        items = await self._reader.submit(read)
        return items[0] if items else None

    async def range(self, prefix: str, after: str = "", limit: int = RANGE_MAX) -> tuple[Item, ...]:
        check_prefix(prefix)
        # "0" follows "/" in the order of keys, so [prefix, end) holds exactly the keys that begin with the prefix.
        bounds = (prefix, prefix[:-1] + "0", after, self._now(), max(0, min(limit, RANGE_MAX)))

        def read(db: sqlite3.Connection) -> tuple[Item, ...]:
            rows = db.execute(
                "SELECT key, value, expires, revision FROM items WHERE key >= ? AND key < ? AND key > ?"
                " AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?",
                bounds,
            )
            return tuple(Item(*row) for row in rows)

        return await self._reader.submit(read)

    async def watch(self, prefix: str, limit: int = 4096) -> Watch:
        if self._closing:
            raise Unavailable("The store was closed; start the auth server again.")
        return self._watches.add(prefix, limit)

    async def sweep(self) -> int:
        count = 0
        while True:
            swept = len((await self._writer.submit(_Sweep(self._now()))).events)
            count += swept
            if swept < _SWEEP_MAX:
                return count

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        await self._writer.close()
        await self._reader.close()
        self._watches.close()
        self._reader_db.close()
        self._db.close()
        os.close(self._lock)

    # In the writer's thread

    def _write(self, jobs: Sequence[_Write | _Sweep]) -> Sequence[_Written | Exception]:
        """Do all the jobs in one transaction. A job whose expectations fail changes nothing and does not affect the
        others."""
        before = self._revision
        try:
            self._db.execute("BEGIN IMMEDIATE")
            answers = [self._apply(job) for job in jobs]
            if self._revision != before:
                self._db.execute("UPDATE counter SET revision = ?", (self._revision,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(before)
            log.error("state not written: {error}", error=str(error), path=str(self.path))
            return [self._unavailable(error) for _ in jobs]
        except BaseException:
            self._roll_back(before)
            raise
        return answers

    def _roll_back(self, revision: int) -> None:
        self._revision = revision
        with contextlib.suppress(sqlite3.Error):  # there may no longer be a transaction
            self._db.execute("ROLLBACK")

    def _apply(self, job: _Write | _Sweep) -> _Written | Exception:
        if isinstance(job, _Sweep):
            return self._swept(job.now)
        found = {change.key: self._revision_of(change.key) for change in job.changes}
        for change in job.changes:
            revision, expires = found[change.key]
            if expires is not None and expires <= job.now:
                revision = ABSENT
            if not is_met(change.expect, revision):
                return changed(change.key)
        self._revision += 1
        events = []
        for change in job.changes:
            if isinstance(change, Put):
                item = Item(change.key, bytes(change.value), change.expires, self._revision)
                self._db.execute(
                    "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
                    " SET value = excluded.value, expires = excluded.expires, revision = excluded.revision",
                    (item.key, item.value, item.expires, item.revision),
                )
                events.append(Event(item.key, item, item.revision))
            elif isinstance(change, Delete) and found[change.key][0] != ABSENT:
                self._db.execute("DELETE FROM items WHERE key = ?", (change.key,))
                events.append(Event(change.key, None, self._revision))
        return _Written(self._revision, tuple(events))

    def _revision_of(self, key: str) -> tuple[int, float | None]:
        row = self._db.execute("SELECT revision, expires FROM items WHERE key = ?", (key,)).fetchone()
        return (ABSENT, None) if row is None else row

    def _swept(self, now: float) -> _Written:
        keys = [
            key
            for (key,) in self._db.execute(
                "SELECT key FROM items WHERE expires <= ? ORDER BY expires LIMIT ?", (now, _SWEEP_MAX)
            ).fetchall()
        ]
        if keys:
            self._revision += 1
            self._db.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in keys])
        return _Written(self._revision, tuple(Event(key, None, self._revision) for key in keys))

    # In the reader's thread

    def _read(self, jobs: Sequence[_Read]) -> Sequence[tuple[Item, ...] | Exception]:
        answers: list[tuple[Item, ...] | Exception] = []
        for job in jobs:
            try:
                answers.append(job(self._reader_db))
            except sqlite3.Error as error:
                log.error("state not read: {error}", error=str(error), path=str(self.path))
                answers.append(self._unavailable(error))
        return answers

    # On the reactor's thread

    def _tell(self, answers: Sequence[_Written | Exception]) -> None:
        self._watches.tell(event for answer in answers if isinstance(answer, _Written) for event in answer.events)

    def _unavailable(self, error: sqlite3.Error) -> Unavailable:
        return Unavailable(unusable(getattr(error, "sqlite_errorname", ""), self.path))
