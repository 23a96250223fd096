"""Whole trees, up and down, by each way to copy: what arrives is what was sent."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.worlds.files import DEADLINE, FilesWorld
from tests.worlds.node import ME

pytestmark = pytest.mark.program("scp", "sftp", "rsync")

PIECES = [
    b"a",
    b"name",
    b" ",
    b"'",
    b'"',
    b"\\",
    b"\n",
    b"\t",
    b"\xff\xfe",
    "ü".encode(),
    b"*",
    b"?",
    b"[",
    b"-",
    b"$HOME",
    b"\x1b[1m",
]
PAST = 1_000_000_000
WAYS = {"sftp": "leaves out", "scp -O": "follows", "rsync": "keeps"}  # what becomes of symbolic links
BIG = 300  # seconds for a copy of 3 GiB on a busy machine


def plant(random: random.Random, folder: bytes, way: str, deep: int, wide: int) -> None:
    """A tree: deep, wide, with odd names, empty and sparse files, links, and modes that its owner can read."""
    os.mkdir(folder)
    at = folder
    for _ in range(deep):
        at += b"/" + _name(random, way)
        os.mkdir(at)
        _fill(random, at, way, 2)
    _fill(random, folder, way, wide)
    with open(folder + b"/sparse", "wb") as file:
        file.truncate(3_000_000)
        os.pwrite(file.fileno(), b"middle", 1_234_567)
    os.mkdir(folder + b"/nothing in it")
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            if not os.path.islink(path + b"/" + name):
                os.chmod(path + b"/" + name, random.choice((0o644, 0o600, 0o755, 0o444, 0o640)))
        for name in files + folders + [b"."]:
            when = PAST + random.randrange(10**8)
            os.utime(path + b"/" + name, (when, when), follow_symlinks=False)
        os.chmod(path, random.choice((0o755, 0o700, 0o750, 0o555)))


def _name(random: random.Random, way: str) -> bytes:
    while True:
        name = b"".join(random.choices(PIECES, k=random.randrange(1, 6)))[:200]
        if way == "scp -O" and b"\n" in name:  # its protocol has lines; OpenSSH's own changes such names
            continue
        if name.strip() and name not in (b".", b".."):
            return name + b"%d" % random.randrange(1000)


def _fill(random: random.Random, folder: bytes, way: str, count: int) -> None:
    targets = [] if way == "scp -O" else [b"nowhere", b"../x", b"sparse", b"odd\xff", b"."]
    for _ in range(count):
        name = _name(random, way)
        path = folder + b"/" + name
        if targets and random.random() < 0.15:
            os.symlink(random.choice(targets), path)
        else:
            with open(path, "wb") as file:
                file.write(random.randbytes(random.choice((0, 1, 100, 32768, 300_000))))
            targets.append(name)


def seen(folder: bytes, links: str = "keeps") -> dict[bytes, tuple[object, ...]]:
    """What stands for a tree, or for its copy: kinds, modes, times, contents and targets by name."""
    found: dict[bytes, tuple[object, ...]] = {b"": _one(folder, os.lstat)}
    for path, folders, files in os.walk(folder):
        for name in folders + files:
            whole = path + b"/" + name
            if links != "leaves out" or not os.path.islink(whole):
                found[whole[len(folder) + 1 :]] = _one(whole, os.stat if links == "follows" else os.lstat)
    return found


def _one(path: bytes, of: Callable[[bytes], os.stat_result]) -> tuple[object, ...]:
    info = of(path)
    if stat.S_ISLNK(info.st_mode):
        return "link", os.readlink(path)
    contents = b""
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            contents = file.read()
    return oct(info.st_mode), int(info.st_mtime), contents


async def copy(files: FilesWorld, way: str, here: bytes, there: bytes, back: bytes, deadline: float = DEADLINE) -> None:
    """Up and down again."""
    how: dict[str, Any] = {"deadline": deadline}
    if way == "sftp":
        results = [await files.sftp(b"put -rp %s %s" % (here, there), b"get -rp %s %s" % (there, back), **how)]
    elif way == "scp -O":
        results = [
            await files.scp("-O", "-r", "-p", here, f"{ME}@127.0.0.1:".encode() + there, **how),
            await files.scp("-O", "-r", "-p", f"{ME}@127.0.0.1:".encode() + there, back, **how),
        ]
    else:
        results = [
            await files.rsync("-aS", here + b"/", f"{ME}@127.0.0.1:".encode() + there, **how),
            await files.rsync("-aS", f"{ME}@127.0.0.1:".encode() + there + b"/", back, **how),
        ]
    for result in results:
        err = result.err
        if way == "sftp":  # it tells of each link that it leaves out, whatever its name
            err = err.split(b": not a regular file\r\n")[-1]
        assert (result.code, err) == (0, b"")


async def _there_and_back(files: FilesWorld, tmp_path: Path, way: str, seed: int, deep: int, wide: int) -> None:
    base = os.fsencode(tmp_path)
    here, there, back = base + b"/here", base + b"/there", base + b"/back"
    plant(random.Random(seed), here, way, deep, wide)
    await copy(files, way, here, there, back)
    sent = seen(here, WAYS[way])
    assert seen(there) == sent
    assert seen(back) == sent
    if way != "rsync":
        event = way.split()[0]
        written = sorted(size for _, action, size, ok in files.moved(event) if action == "upload" and ok)
        read = sorted(size for _, action, size, ok in files.moved(event) if action == "download" and ok)
        assert written == read == sorted(len(each[2]) for each in sent.values() if str(each[0]).startswith("0o100"))  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(2))
async def test_tree(files: FilesWorld, tmp_path: Path, way: str, seed: int) -> None:
    """A tree with all that file systems allow comes up and down with its contents, modes and times; the log tells of
    each of its files (pain 4)."""
    await _there_and_back(files, tmp_path, way, seed, deep=8, wide=15)


@pytest.mark.soak
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(100, 120))
async def test_many_trees(files: FilesWorld, tmp_path: Path, way: str, seed: int) -> None:
    """The same for many trees."""
    shape = random.Random(seed)
    await _there_and_back(files, tmp_path, way, seed, deep=shape.randrange(40), wide=shape.randrange(200))


@pytest.mark.soak
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", WAYS)
async def test_three_gibibytes(files: FilesWorld, tmp_path: Path, way: str) -> None:
    """A file of 3 GiB comes whole."""
    here = tmp_path / "here"
    here.mkdir()
    with open(here / "big", "wb") as file:
        for _ in range(3 * 64):
            file.write(os.urandom(1 << 20) * 16)
    base = os.fsencode(tmp_path)
    await copy(files, way, base + b"/here", base + b"/there", base + b"/back", BIG)
    for copied in "there", "back":
        assert os.system(f"cmp {here}/big {tmp_path}/{copied}/big") == 0
