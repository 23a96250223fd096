"""utmp, wtmp and wtmp.db: what is recorded of a session, and that nobody can hold up or hide a login by them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.node.launch import records
from tests.worlds.node import World


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A utmp and a wtmp of the test's own."""
    paths = tmp_path / "utmp", tmp_path / "wtmp"
    for name, path in zip(("UTMP", "WTMP"), paths, strict=True):
        path.touch()
        monkeypatch.setattr(records, name, str(path))
    monkeypatch.setattr(records, "_lib", None)
    return paths


def _who(utmp: Path) -> list[str]:
    said = subprocess.run(["who", utmp], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
    return [f"{line.split()[0]} {line.split()[1]} {line.split()[-1]}" for line in said.splitlines()]


def test_who_is_on_which_terminal(files: tuple[Path, Path]) -> None:
    """utmp has one record for a terminal, whoever comes and goes; wtmp has each event; `who` reads both."""
    utmp, wtmp = files
    records.login("pts/3", 100, "alice", "192.0.2.1")
    records.login("pts/14", 101, "bob", "2001:db8::1")
    assert _who(utmp) == ["alice pts/3 (192.0.2.1)", "bob pts/14 (2001:db8::1)"]
    records.logout("pts/3", 100)
    assert _who(utmp) == ["bob pts/14 (2001:db8::1)"]
    records.login("pts/3", 102, "carol", "192.0.2.3")
    assert _who(utmp) == ["carol pts/3 (192.0.2.3)", "bob pts/14 (2001:db8::1)"]
    size = utmp.stat().st_size // 2
    assert wtmp.stat().st_size == 4 * size


def test_a_late_logout(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A logout that had to wait does not take away who is on the same terminal by then."""
    times = iter((1000.0, 1001.0, 1000.5))
    monkeypatch.setattr(time, "time", lambda: next(times))
    records.login("pts/3", 100, "alice", "192.0.2.1")
    records.login("pts/3", 102, "carol", "192.0.2.3")
    records.logout("pts/3", 100)
    assert _who(files[0]) == ["carol pts/3 (192.0.2.3)"]


def test_long_texts(files: tuple[Path, Path]) -> None:
    """A name or host that is too long for the record is cut, and the record stays one."""
    records.login("pts/3", 100, "u" * 300, "h" * 3000)
    assert _who(files[0]) == [f"{'u' * 32} pts/3 ({'h' * 256})"]


def test_without_files(files: tuple[Path, Path]) -> None:
    """No file is made where the machine has none."""
    for path in files:
        path.unlink()
    records.login("pts/3", 100, "alice", "192.0.2.1")
    assert not any(path.exists() for path in files)


def test_links_are_not_followed(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A link in a record's place leads nowhere."""
    victim = tmp_path / "victim"
    victim.touch()
    for path in files:
        path.unlink()
        path.symlink_to(victim)
    records.login("pts/3", 100, "alice", "192.0.2.1")
    assert victim.read_bytes() == b""


def test_part_of_a_record(files: tuple[Path, Path]) -> None:
    """What a full disk has left of a record does not make the next ones unreadable."""
    records.login("pts/3", 100, "alice", "192.0.2.1")
    for path in files:
        with path.open("ab") as file:
            file.write(b"x" * 100)
    records.login("pts/4", 101, "bob", "192.0.2.2")
    assert [line.split()[0] for path in files for line in _who(path)] == ["alice", "bob"] * 2


@pytest.fixture
def held(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another process reads both files, and locks them for that, for good."""
    monkeypatch.setattr(records, "PATIENCE", 0.0)
    code = "import fcntl, sys\nfiles = [open(path, 'rb') for path in sys.argv[1:]]\n"
    code += "for file in files:\n    fcntl.lockf(file, fcntl.LOCK_SH)\nprint('held', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, *map(str, files)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    yield
    assert holder.poll() is None
    holder.communicate()


def test_locks_hide_no_login(files: tuple[Path, Path], held: None) -> None:
    """A user who holds a lock on utmp and wtmp, which anyone can, keeps no login out of them."""
    records.login("pts/3", 100, "alice", "192.0.2.1")
    records.login("pts/4", 101, "bob", "192.0.2.2")
    records.logout("pts/3", 100)
    assert _who(files[0]) == ["bob pts/4 (192.0.2.2)"]
    assert _who(files[1]) == ["alice pts/3 (192.0.2.1)", "bob pts/4 (192.0.2.2)"]


def test_locks_of_others_are_kept(files: tuple[Path, Path]) -> None:
    """A lock that is held for a moment only is waited for; and none is left."""
    with files[1].open("r+b") as file:
        records.login("pts/3", 100, "alice", "192.0.2.1")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_database_that_is_locked(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds wtmp.db keeps nobody's login waiting: the child that waits is ended, and the rest is recorded."""
    children = Path("/proc/thread-self/children")
    before = children.read_text()
    monkeypatch.setattr(records, "_lib", object())
    monkeypatch.setattr(records, "DATABASE_PATIENCE", 0.01)
    monkeypatch.setattr(records, "_database_login", lambda *facts: time.sleep(1000))
    records.login("pts/3", 100, "alice", "192.0.2.1")
    assert _who(files[0]) == ["alice pts/3 (192.0.2.1)"]
    assert children.read_text() == before


def test_a_database_without_a_process(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no process left for wtmp.db, the rest is recorded, and the login goes on."""

    def none_left() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(records, "_lib", object())
    monkeypatch.setattr(os, "fork", none_left)
    records.login("pts/3", 100, "alice", "192.0.2.1")
    assert _who(files[0]) == ["alice pts/3 (192.0.2.1)"]


def test_layout() -> None:
    """The records have the size that libc's have."""
    wide = struct.calcsize("l") == 8 and os.uname().machine == "aarch64"
    assert records._RECORD.size == (400 if wide else 384)


@pytest.fixture
def utmp() -> Iterator[Path]:
    """The machine's own, made where it has none."""
    path = Path("/run/utmp")
    made = not path.exists()
    path.touch(0o664)
    yield path
    if made:
        path.unlink()


@pytest.mark.root
@pytest.mark.program("ssh")
@pytest.mark.parametrize("pty", [True, False])
@pytest_twisted.ensureDeferred
async def test_commands(world: World, other_user: str, utmp: Path, pty: bool) -> None:
    """Who runs a command on a terminal is listed, `ssh -t node bash` above all; without a terminal they are not."""
    world.allow(other_user)
    client = world.start("tty; cat", options=("-tt" if pty else "-T",), login=other_user, pty=pty, stdin=None)
    await client.until(b"/dev/pts" if pty else b"not a tty")
    assert (other_user in [line.split()[0] for line in _who(utmp)]) == pty
    client.transport.closeStdin()
    if pty:
        client.kill()
    await client.done
