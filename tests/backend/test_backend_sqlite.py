"""What the store on SQLite must do beside the acceptance suite: survive, keep secrets, and say what is wrong."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import DeferredList, gatherResults

from teleconch.backend.sqlite import SqliteBackend
from teleconch.backend.sqlite_file import SCHEMA_VERSION
from teleconch.errors import TeleconchError, Unavailable
from tests.worlds.reactor import reactor
from tests.worlds.waiting import spawn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backend" / "state.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the store; what a test opened is closed after it."""
    stores = []

    def open_store(where: Path = path) -> SqliteBackend:
        stores.append(SqliteBackend(where, reactor, time.time))
        return stores[-1]

    yield open_store
    for store in stores:
        pytest_twisted.blockon(spawn(store.close()))


@pytest_twisted.ensureDeferred
async def test_a_restart_finds_everything(opened: Callable[..., Any]) -> None:
    """Stopping and starting the auth server loses nothing, and revisions go on."""
    store = opened()
    first = await store.put("/a/b", b"kept")
    await store.delete("/a/b")
    second = await store.put("/a/b", b"again")
    await store.put("/a/c", b"")
    await store.delete("/a/c")
    await store.close()
    store = opened()
    item = await store.get("/a/b")
    assert (item.value, item.revision) == (b"again", second)
    assert second > first
    assert await store.put("/a/c", b"") > second + 2


@pytest_twisted.ensureDeferred
async def test_nobody_else_may_read_the_state(opened: Callable[..., Any], path: Path) -> None:
    """CA keys and password hashes are readable for the auth server's user alone, whatever the umask."""
    before = os.umask(0)
    try:
        store = opened()
        await store.put("/a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["state.db", "state.db-shm", "state.db-wal", "state.db.lock"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


@pytest_twisted.ensureDeferred
async def test_a_state_that_was_readable_is_closed(opened: Callable[..., Any], path: Path) -> None:
    """A restored backup with a lax mode does not stay readable."""
    await opened().close()
    path.chmod(0o644)
    opened()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_write_is_synchronous(opened: Callable[..., Any]) -> None:
    """An answered write survives a power cut: SQLite is set up to wait for the disk."""
    db = opened()._db
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA busy_timeout").fetchone()[0] > 0


@pytest_twisted.ensureDeferred
async def test_writes_that_wait_share_a_transaction(opened: Callable[..., Any]) -> None:
    """A thousand nodes that ping at once wait for a few turns of the disk, not for a thousand."""
    store = opened()
    commits = []
    store._db.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    revisions = await gatherResults([spawn(store.put(f"/p/{number}", b"x" * 500)) for number in range(1000)])
    assert len(set(revisions)) == 1000
    assert len(commits) <= 20


@pytest_twisted.ensureDeferred
async def test_a_refused_change_does_not_harm_those_beside_it(opened: Callable[..., Any]) -> None:
    """One use case that loses a race does not undo the others in the same transaction."""
    store = opened()
    await store.create("/a/taken", b"")
    writes = [store.create(f"/a/{n}", b"") if n % 2 else store.create("/a/taken", b"") for n in range(50)]
    results = await DeferredList([spawn(write) for write in writes], consumeErrors=True)
    assert [success for success, _ in results] == [bool(n % 2) for n in range(50)]
    assert len(await store.range("/a/")) == 26


def test_a_second_process_is_kept_away(opened: Callable[..., Any], path: Path) -> None:
    """Two auth servers on one file would overwrite each other: the second is told who has it."""
    opened()
    with pytest.raises(Unavailable, match="in use by another auth server process"):
        opened()


@pytest_twisted.ensureDeferred
async def test_a_newer_schema_is_refused(opened: Callable[..., Any], path: Path) -> None:
    """After a downgrade the old program does not damage what the new one wrote."""
    await opened().close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(Unavailable, match=r"newer version \(schema 2, this one knows 1\)"):
        opened()


def test_another_programs_file_is_refused(opened: Callable[..., Any], path: Path) -> None:
    """A wrong path in the configuration does not write tables into somebody's database."""
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (x)")
    db.close()
    with pytest.raises(Unavailable, match="another program"):
        opened()


@pytest_twisted.ensureDeferred
async def test_damage_is_told_at_the_start(opened: Callable[..., Any], path: Path) -> None:
    """A file that is no database, or a damaged one, is a sentence and not a traceback; nothing is written over it."""
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, it only looks like a file" * 100)
    with pytest.raises(Unavailable, match="damaged"):
        opened()
    assert path.read_bytes().startswith(b"this is not")
    path.unlink()
    store = opened()
    await gatherResults([spawn(store.put(f"/a/{n}", os.urandom(2000))) for n in range(200)])
    await store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 40] = random.Random(1).randbytes(4096 * 38)
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="damaged"):
        opened()


def test_a_folder_that_cannot_be_used_is_told(opened: Callable[..., Any], tmp_path: Path) -> None:
    """A wrong data_dir is a sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be opened"):
        opened(tmp_path / "file" / "state.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="cannot be opened"):
        opened(tmp_path / "link.db")
    assert not (tmp_path / "elsewhere").exists()


@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_told_and_survived(opened: Callable[..., Any]) -> None:
    """With a full disk writes are refused with the reason, reads go on, and writes work again when there is space."""
    store = opened()
    await store.put("/a/before", b"kept")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    writes = [spawn(store.put(f"/a/{n}", b"x" * 4000)) for n in range(50)]
    results = await DeferredList(writes, consumeErrors=True)
    told = {str(result.value) for success, result in results if not success}
    assert told
    assert all("the disk is full" in each for each in told)
    answered = [f"/a/{n}" for n, (success, _) in enumerate(results) if success]
    assert sorted(item.key for item in await store.range("/a/")) == sorted([*answered, "/a/before"])
    store._db.execute("PRAGMA max_page_count = 1000000")
    await store.put("/a/after", b"x" * 4000)
    assert (await store.get("/a/before")).value == b"kept"


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_a_really_full_disk_is_told(opened: Callable[..., Any], tmp_path: Path) -> None:
    """The same on a file system that has no space left."""
    where = tmp_path / "small"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)], check=False).returncode:
        pytest.skip("no right to mount")
    try:
        store = opened(where / "state.db")
        told = ""
        answered: list[Any] = []
        while not told:
            try:
                await store.put(f"/a/{len(answered):03}", b"x" * 10_000)
                answered.append(f"/a/{len(answered):03}")
            except Unavailable as error:
                told = str(error)
        assert "the disk is full" in told
        assert answered
        items = await store.range("/a/")
        assert [item.key for item in items] == answered
        await store.close()
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


@pytest_twisted.ensureDeferred
async def test_a_read_only_state_is_told(opened: Callable[..., Any]) -> None:
    """A disk that was remounted read-only is told as that."""
    store = opened()
    await store.put("/a", b"")
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match="read-only"):
        await store.put("/a", b"")
    assert (await store.get("/a")).value == b""


@pytest_twisted.ensureDeferred
async def test_a_backup_program_may_read_meanwhile(opened: Callable[..., Any], path: Path) -> None:
    """`sqlite3 state.db .backup` on the running auth server gives a whole copy."""
    store = opened()
    await store.put("/a", b"1")
    copy = sqlite3.connect(path.with_name("copy.db"))
    source = sqlite3.connect(path)
    source.backup(copy)
    assert copy.execute("SELECT key, value FROM items").fetchall() == [("/a", b"1")]
    source.close()
    copy.close()
    await store.put("/a", b"2")


@pytest_twisted.ensureDeferred
async def test_too_many_waiting_writes_are_refused(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stalled disk the auth server says so instead of growing without bound."""
    from teleconch import worker

    monkeypatch.setattr(worker, "WAITING_MAX", 10)
    store = opened()
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    writes = [spawn(store.put(f"/a/{n}", b"")) for n in range(100)]
    blocker.execute("ROLLBACK")
    blocker.close()
    results = await DeferredList(writes, consumeErrors=True)
    refused = [str(result.value) for success, result in results if not success]
    assert 0 < len(refused) < 100
    assert all("too slow" in each for each in refused)
    await store.put("/a", b"")


@pytest_twisted.ensureDeferred
async def test_who_gave_up_does_not_disturb(opened: Callable[..., Any]) -> None:
    """A caller whose connection went away while it waited breaks nothing."""
    store = opened()
    waiting = [spawn(store.put(f"/a/{n}", b"")) for n in range(20)]
    for each in waiting[::2]:
        each.addErrback(lambda _: None)
        each.cancel()
    await gatherResults(waiting[1::2])
    assert len(await store.range("/a/")) >= 10


WRITER = """
import sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from teleconch.backend.interface import Put
from teleconch.backend.sqlite import SqliteBackend

store = SqliteBackend(sys.argv[1], reactor, time.time)

async def write(lane):
    number = 0
    while True:
        key = f"/k/{sys.argv[2]}-{lane}-{number}"
        await store.commit(Put(key, b"x" * 300), Put(key + "/twin", b"y"))
        sys.stdout.write(key + "\\n")
        sys.stdout.flush()
        number += 1

for lane in range(8):
    Deferred.fromCoroutine(write(lane)).addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
reactor.run()
"""


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_what_was_answered_survives_kill_9(opened: Callable[..., Any], path: Path, seed: int) -> None:
    """The process is killed at random moments under load, again and again: every answered write is there, whole."""
    answered: set[Any] = set()
    chance = random.Random(seed)
    for run in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        first = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.25))
        child.send_signal(signal.SIGKILL)
        rest, errors = child.communicate()
        assert child.returncode == -signal.SIGKILL, errors
        lines = (first + rest).decode().split("\n")
        answered.update(lines[:-1])  # what follows the last line break was not said whole
    store = opened()

    async def keys() -> set[str]:
        return {item.key async for item in store.all("/k/")}

    there = await keys()
    assert len(answered) >= 3
    assert answered <= there
    assert {key + "/twin" for key in there if not key.endswith("/twin")} == {
        key for key in there if key.endswith("/twin")
    }


def test_errors_are_sentences(opened: Callable[..., Any], path: Path) -> None:
    """Whatever SQLite says, an administrator reads a sentence with the file's name."""
    from teleconch.backend.sqlite_file import unusable

    names = [name for name in dir(sqlite3) if name.startswith("SQLITE_") and isinstance(getattr(sqlite3, name), int)]
    for name in [*names, ""]:
        text = unusable(name, path)
        assert str(path) in text
        assert text.endswith(".")
    assert issubclass(Unavailable, TeleconchError)
