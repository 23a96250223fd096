"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from teleconch import atomic

PATH = "secret"


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("write", [atomic.write_file, atomic.write_first])
@pytest.mark.parametrize(
    ("mask", "asked", "got"),
    [(0o022, 0o600, 0o600), (0, 0o600, 0o600), (0, 0o644, 0o644), (0o077, 0o644, 0o600), (0o777, 0o600, 0)],
)
def test_mode(tmp_path: Path, umask: Any, write: Any, mask: int, asked: int, got: int) -> None:
    """No umask opens a key to others, and a strict one is kept to."""
    umask(mask)
    write(tmp_path / PATH, b"key", asked)
    assert mode(tmp_path / PATH) == got
    assert left(tmp_path) == [PATH]


def test_old_mode_goes(tmp_path: Path) -> None:
    """A file that others could read is replaced by one that they cannot; whoever has it open has the old one."""
    path = tmp_path / PATH
    path.write_bytes(b"old")
    path.chmod(0o666)
    with path.open("rb") as open_before:
        atomic.write_file(path, b"new")
        assert open_before.read() == b"old"
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


@pytest.mark.parametrize("target", ["other", "missing", "/dev/full", "."])
def test_link_at_the_target(tmp_path: Path, target: str) -> None:
    """A link that waits at the target is replaced: nothing is written where it leads."""
    (tmp_path / "other").write_bytes(b"untouched")
    path = tmp_path / PATH
    path.symlink_to(target)
    atomic.write_file(path, b"key")
    assert not path.is_symlink()
    assert path.read_bytes() == b"key"
    assert (tmp_path / "other").read_bytes() == b"untouched"
    assert not (tmp_path / "missing").exists()


def test_link_where_it_is_written_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one followed that stands at the name aside, should anyone guess it."""
    monkeypatch.setattr(os, "urandom", lambda count: b"\0" * count)
    victim = tmp_path / "victim"
    aside = tmp_path / (atomic.ASIDE + "00" * 8)
    for make in (lambda: aside.symlink_to(victim), lambda: aside.write_bytes(b"theirs")):
        make()
        with pytest.raises(FileExistsError, match=PATH):
            atomic.write_file(tmp_path / PATH, b"key")
        assert left(tmp_path) == [aside.name]
        aside.unlink()


def test_only_the_first(tmp_path: Path) -> None:
    """Of two that make a file at once, one does; a link that waits there counts as a file."""
    path = tmp_path / PATH
    atomic.write_first(path, b"first")
    with pytest.raises(FileExistsError):
        atomic.write_first(path, b"second")
    assert path.read_bytes() == b"first"
    path.unlink()
    path.symlink_to("missing")
    with pytest.raises(FileExistsError):
        atomic.write_first(path, b"second")
    assert left(tmp_path) == [PATH]


def test_links(tmp_path: Path) -> None:
    """A link takes the place of a file or a link, and says what it is asked to, whether that is there or not."""
    path = tmp_path / "profile"
    for target in ("a.yaml", "b.yaml"):
        atomic.write_link(path, target)
        assert os.readlink(path) == target
    path.unlink()
    path.write_bytes(b"file")
    atomic.write_link(path, "c.yaml")
    assert os.readlink(path) == "c.yaml"
    assert left(tmp_path) == ["profile"]


@pytest.mark.parametrize(
    "write", [lambda path: atomic.write_file(path, b"x"), lambda path: atomic.write_link(path, "x")]
)
def test_what_cannot_be_written(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """A folder in the way, or none to write in, is an error about the path that was asked for; nothing is left."""
    folder = tmp_path / PATH
    folder.mkdir()
    (folder / "inside").touch()
    with pytest.raises(OSError, match=PATH) as caught:
        write(folder)
    assert caught.value.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
    assert (left(tmp_path), left(folder)) == ([PATH], ["inside"])
    with pytest.raises(FileNotFoundError, match="none/file"):
        write(tmp_path / "none" / "file")


def test_full_disk(tmp_path: Path) -> None:
    """Where the disk takes a part alone, the old file stays, and nothing beside it."""
    path = tmp_path / PATH
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # a file may grow no further, as on a full disk
    try:
        with pytest.raises(OSError, match=PATH) as caught:
            atomic.write_file(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert (path.read_bytes(), left(tmp_path)) == (b"old", [PATH])


def test_disk_that_fails_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be on disk is not put in place."""
    (tmp_path / PATH).write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    for write in (atomic.write_file, atomic.write_first):
        with pytest.raises(OSError, match="Input/output error"):
            write(tmp_path / PATH, b"new")
    assert ((tmp_path / PATH).read_bytes(), left(tmp_path)) == (b"old", [PATH])


@pytest.mark.parametrize(("write", "name"), [("write_file", "replace"), ("write_first", "link")])
def test_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, name: str) -> None:
    """The file is on disk before it has its name, and its name is before the caller goes on."""
    did: list[str] = []
    sync, put = os.fsync, getattr(os, name)

    def synced(descriptor: int) -> None:
        did.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def named(*arguments: Any, **how: Any) -> None:
        did.append(name)
        put(*arguments, **how)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, name, named)
    getattr(atomic, write)(tmp_path / PATH, b"key")
    assert did == ["file", name, "folder"]


@pytest.mark.parametrize(("code", "told"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folders_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool) -> None:
    """A file system that does not sync folders will do; a disk that fails is told."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    if told:
        with pytest.raises(OSError, match=PATH):
            atomic.write_file(tmp_path / PATH, b"key")
    else:
        atomic.write_file(tmp_path / PATH, b"key")
    assert (tmp_path / PATH).read_bytes() == b"key"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_killed(tmp_path: Path, call: str) -> None:
    """Killed at any point before the name is given, the old file is there; what is left aside is its owner's alone."""
    path = tmp_path / PATH
    path.write_bytes(b"old")
    code = (
        "import io, os, signal, sys; from pathlib import Path; from teleconch import atomic\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "class Dies(io.FileIO):\n"
        "    write = die\n"
        "if sys.argv[2] == 'write': atomic.open = lambda fd, mode: Dies(fd, mode)\n"
        "else: setattr(os, sys.argv[2], die)\n"
        "os.umask(0)\n"
        "atomic.write_file(Path(sys.argv[1]), b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, call], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (aside,) = (name for name in left(tmp_path) if name != PATH)
    assert mode(tmp_path / aside) == 0o600
    atomic.clear(tmp_path)
    assert left(tmp_path) == [PATH]


def test_folders(tmp_path: Path) -> None:
    """What is missing is made for its owner alone; what is there stays as it is; a file in the way is named."""
    tmp_path.chmod(0o755)
    atomic.make_directory(tmp_path / "a" / "b")
    atomic.make_directory(tmp_path / "a" / "b")
    assert [mode(tmp_path), mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o755, 0o700, 0o700]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as caught:
        atomic.make_directory(tmp_path / "file" / "c")
    assert Path(caught.value.filename) == tmp_path / "file"
