"""Files that hold keys: private to their owner, and whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

from teleconch.errors import TeleconchError


def make_directory(path: Path) -> None:
    """``path`` and what is missing above it, open to the owner only. An existing directory is left as it is."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise TeleconchError(f"{path} is in the way: a directory is needed there; move that file.") from None


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put ``data`` at ``path`` with ``mode`` from its first moment, in one step for whoever reads it, and durably."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_link(path: Path, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, in one step; what was there before is replaced."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    temporary.symlink_to(target)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
