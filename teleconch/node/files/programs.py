"""What the node prepares so that a user's shell finds our ``scp``: a folder for the front of ``PATH``.

The folder and the few lines of sh in it are the daemon's, and everyone may read and run them; the package itself may
lie where users cannot look. The folder is made when it is first asked for, and again if a cleaner of temporary files
took it away. The node holds a lock on it as long as it lives, so that the next one to start can tell what a killed node
has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from teleconch.node.files.lend import NAMES, STUB

PARENTS: Final = ("/run", "/var/lib", "/var/tmp", "/tmp")  # noqa: S108 - made by mkdtemp
_FAR_END: Final = b"scp "
_PREFIX: Final = "teleconch-programs-"
_ATTEMPTS: Final = 3  # each lost to another node that starts at the same moment

log = Logger()


def is_scp(command: bytes) -> bool:
    """Whether a command may be the far end of an scp."""
    return command.startswith(_FAR_END)


class Programs:
    """The folder. :meth:`remove` it when the node stops."""

    def __init__(self, parents: Iterable[str] = PARENTS) -> None:
        self._parents = tuple(parents)
        self._folder: Path | None = None
        self._lock = -1

    def sweep(self) -> None:
        """Remove the folders of nodes that were killed. Those of living ones are locked, other users' are not ours.

        Root looks only where nobody else can put anything: a user's folder of that name may be a file system of theirs,
        which never answers, or one of a million. A node that runs as root has its own elsewhere, too.
        """
        for parent in self._parents:
            if os.geteuid() == 0 and _everybodys(parent):
                continue
            for left in Path(parent).glob(f"{_PREFIX}*"):
                with contextlib.suppress(OSError):
                    _take_away(left)

    def folder(self) -> str | None:
        """Its path; ``None`` (and a warning) if none can be made: the system's scp serves then, without records."""
        if self._folder is not None and _is_ours(self._folder):
            return str(self._folder)
        self._let_go()
        for parent in self._parents:
            try:
                self._folder, self._lock = _make(parent)
            except OSError:
                continue
            return str(self._folder)
        log.warn(
            "no folder for the node's scp can be made in {parents}: moved files are not recorded", parents=self._parents
        )
        return None

    def remove(self) -> None:
        """Idempotent."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._let_go()

    def _let_go(self) -> None:
        self._folder = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _everybodys(parent: str) -> bool:
    try:
        return bool(os.stat(parent).st_mode & stat.S_IWOTH)
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    """Whether the folder is complete, and not what somebody else put in its place after a cleaner took it away."""
    try:
        info = folder.lstat()
        whole = all((folder / name).lstat() for name in NAMES)
    except OSError:
        return False
    return whole and stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def _open(folder: Path) -> int:
    """The folder itself, locked. OSError: it is gone, not a folder, or another user's."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(f"{folder} is another user's")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink == 0:
            raise FileNotFoundError(f"{folder} was removed")
    except OSError:
        os.close(fd)
        raise
    return fd


def _take_away(folder: Path) -> None:
    """Remove a folder that nobody holds. OSError if somebody does, or if anything else is in it."""
    fd = _open(folder)
    try:
        names = os.listdir(fd)
        if set(names) <= set(NAMES):
            for name in names:
                os.unlink(name, dir_fd=fd)
            folder.rmdir()
            log.info("removed {folder}, left by a node that was killed", folder=str(folder))
    finally:
        os.close(fd)


def _new(parent: str) -> tuple[Path, int]:
    """An empty folder, and its lock. OSError."""
    for _ in range(_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            return folder, _open(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # a starting node has swept it away before there was a lock
    raise BlockingIOError(f"no folder can be kept in {parent}")


def _make(parent: str) -> tuple[Path, int]:
    """A new folder with the programs, and its lock. OSError, also if programs may not be run there."""
    if os.statvfs(parent).f_flag & os.ST_NOEXEC:
        raise PermissionError(f"{parent} is mounted noexec")
    folder, lock = _new(parent)
    try:
        for name in NAMES:
            program = folder / name
            program.write_text(STUB)
            program.chmod(0o755)
        folder.chmod(0o755)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        raise
    return folder, lock
