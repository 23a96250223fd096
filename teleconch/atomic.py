"""Files that are complete or not there at all: written under another name, synced, and renamed into place.

``kill -9``, a full disk or a lost machine leave either the old file or the new one. The file in progress may be left as
``.aside-*`` in the same folder, readable to no more people than the file would be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ASIDE: Final = ".aside-"


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` with a new file, which has ``mode``, less the umask, from the start. It is on disk when this
    returns.

    A link at ``path`` is replaced, not followed. OSError, with ``path``: then the old file is still there.
    """
    with _about(path):
        _replace(path, _write_aside(path, data, mode))


def write_first(path: Path, data: bytes, mode: int = 0o600) -> None:
    """The same if there is no file yet. FileExistsError if somebody else was first; a rename would replace their
    file."""
    with _about(path):
        aside = _write_aside(path, data, mode)
        try:
            os.link(aside, path, follow_symlinks=False)
        finally:
            _remove(aside)
        _sync_directory(path.parent)


def write_link(path: Path, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, in one step, replacing what was there. OSError."""
    with _about(path):
        aside = _aside(path)
        os.symlink(target, aside)
        _replace(path, aside)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make ``path`` and any missing parents. A folder that is already there stays as it is. FileExistsError if a file
    is there."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    _sync_directory(path.parent)


def clear(directory: Path) -> None:
    """Remove what killed writers have left behind. Call it only when nobody else is writing. OSError."""
    for left in directory.glob(f"{ASIDE}*"):
        left.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(ASIDE + os.urandom(8).hex())


def _write_aside(path: Path, data: bytes, mode: int) -> Path:
    aside = _aside(path)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        _remove(aside)
        raise
    return aside


def _replace(path: Path, aside: Path) -> None:
    try:
        os.replace(aside, path)
    except BaseException:
        _remove(aside)
        raise
    _sync_directory(path.parent)


def _remove(aside: Path) -> None:
    with suppress(OSError):  # the first error is the one to report
        os.unlink(aside)


def _sync_directory(path: Path) -> None:
    """Make sure that the new name is on disk, too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a file system that does not sync folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Make errors name ``path``: nobody knows the temporary name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
