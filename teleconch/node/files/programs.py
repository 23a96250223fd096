"""What the node prepares so that a user's shell finds our ``scp``: a folder for the front of ``PATH``.

The folder and the few lines of sh in it are the daemon's, and everyone may read and run them; the package itself may
lie where users cannot look. It is made when the first one asks, and again where a cleaner of temporary files took it
away.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from teleconch.node.files.lend import NAMES, STUB

PARENTS: Final = ("/run", "/var/lib", "/var/tmp", "/tmp")  # noqa: S108 - made by mkdtemp
_FAR_END: Final = b"scp "

log = Logger()


def is_scp(command: bytes) -> bool:
    """Whether a command may be the far end of an scp."""
    return command.startswith(_FAR_END)


class Programs:
    """The folder. :meth:`remove` it when the node stops."""

    def __init__(self, parents: Iterable[str] = PARENTS) -> None:
        self._parents = tuple(parents)
        self._folder: Path | None = None

    def folder(self) -> str | None:
        """Its path; ``None`` (and a warning) where none can be made: the system's scp serves then, without records."""
        if self._folder is not None and all((self._folder / name).exists() for name in NAMES):
            return str(self._folder)
        for parent in self._parents:
            try:
                self._folder = _make(parent)
            except OSError:
                continue
            return str(self._folder)
        log.warn(
            "no folder for the node's scp can be made in {parents}: moved files are not known", parents=self._parents
        )
        return None

    def remove(self) -> None:
        """Idempotent."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _make(parent: str) -> Path:
    """A new folder with the programs. OSError, also where programs may not be run."""
    if os.statvfs(parent).f_flag & os.ST_NOEXEC:
        raise PermissionError(f"{parent} is mounted noexec")
    folder = Path(tempfile.mkdtemp(prefix="teleconch-", dir=parent))
    try:
        for name in NAMES:
            program = folder / name
            program.write_text(STUB)
            program.chmod(0o755)
        folder.chmod(0o755)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
