"""As root with unprivileged logins: what a user tries against the processes that move his files (issue 4, point 5)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.node import process
from teleconch.node.files.programs import Programs
from tests.worlds.files import FilesWorld
from tests.worlds.node import running_node
from tests.worlds.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.program("sftp", "scp", "ssh", "useradd", "runuser")]

# As on a system with fs.suid_dumpable=1: a change of ids hides no memory.
DUMPABLE = """
import ctypes, sys
sys.path.append(sys.argv[1])
from teleconch.node import launched
from teleconch.node.launch import accounts
real = accounts.become
def become(account):
    real(account)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
accounts.become = become
launched.main()
"""


@pytest_twisted.async_yield_fixture
async def debugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FilesWorld]:
    """A node on such a system."""
    monkeypatch.setattr(process, "_CODE", DUMPABLE)
    (tmp_path / "world").mkdir()
    world = FilesWorld(await running_node(tmp_path / "world"))
    yield world
    await world.close()


def _interpreters(user: str) -> list[int]:
    """The user's processes that run the node's Python."""
    uid = pwd.getpwnam(user).pw_uid
    found = []
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "status").read_text() if entry.name.isdigit() else ""
            if f"Uid:\t{uid}\t" in status and "python" in os.readlink(entry / "exe"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest_twisted.ensureDeferred
async def test_memory_of_the_children(debugged: FilesWorld, other_user: str) -> None:
    """What serves a user's files and forwardings, and was root before, cannot be looked into by him."""
    debugged.world.allow(other_user)
    clients = [
        debugged.start("sftp", *debugged.options(), f"{other_user}@127.0.0.1", stdin=None),
        debugged.start("ssh", *debugged.options(), "-l", other_user, "127.0.0.1", "scp -t .", stdin=None),
        debugged.start(
            "ssh", *debugged.options(), "-l", other_user, "-NR", f"/tmp/{other_user}.s:127.0.0.1:1", "127.0.0.1",
            stdin=None,
        ),
    ]  # fmt: skip
    await until(lambda: len(_interpreters(other_user)) == 4 and os.path.exists(f"/tmp/{other_user}.s"))
    for _ in range(20):  # one may be on its way to become the user's shell, which they may look into
        for pid in _interpreters(other_user):
            for name in ("mem", "environ", "fd/0", "fd/4"):
                line = ["runuser", "-u", other_user, "--", "/usr/bin/head", "-c", "1", f"/proc/{pid}/{name}"]
                result = subprocess.run(line, capture_output=True, check=False)
                assert b"Permission denied" in result.stderr or pid not in _interpreters(other_user), (name, result)
        if len(_interpreters(other_user)) == 4:
            break
    else:
        raise AssertionError("the children did not stay")
    for client in clients:
        client.kill()
        await client.done
    await until(lambda: not _interpreters(other_user))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["mem", "environ", "fd/0", "maps"])
async def test_memory_by_sftp(debugged: FilesWorld, other_user: str, tmp_path: Path, name: str) -> None:
    """A client cannot read, or write, the memory of the very process that serves it (as sftp-server forbids)."""
    debugged.world.allow(other_user)
    got = tmp_path / "got"
    await debugged.sftp(f"-get /proc/self/{name} {got}", f"-put /etc/hostname /proc/self/{name}", login=other_user)
    moved = {(action, ok) for _, action, _, ok in debugged.moved("sftp")}
    assert ("upload", False) in moved
    assert ("upload", True) not in moved
    if name != "maps":  # addresses of his own process, which he may know
        assert ("download", True) not in moved
        assert not got.exists() or not got.read_bytes()


def test_folder_in_the_place_of_ours(tmp_path: Path, other_user: str) -> None:
    """Where a cleaner took the folder of scp away and a user put his own there, no other user's shell finds that."""
    programs = Programs([str(tmp_path)])
    first = Path(programs.folder() or "")
    assert programs.folder() == str(first)
    assert Programs([str(tmp_path)]).folder() != str(first)
    entry = pwd.getpwnam(other_user)
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    for change in ("owner", "mode", "link"):
        before = programs.folder()
        assert before is not None
        folder = Path(before)
        shutil.rmtree(folder)
        if change == "link":
            folder.symlink_to(copy)
        else:
            shutil.copytree(copy, folder)
            if change == "owner":
                os.chown(folder, entry.pw_uid, entry.pw_gid)
            else:
                folder.chmod(0o777)
        assert programs.folder() != before
    programs.remove()
