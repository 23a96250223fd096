"""A log file that can be reopened after logrotate or an administrator has renamed it."""

from __future__ import annotations

import os
import stat
from typing import Final

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY


class LogFile:
    """Text is appended line by line. OSError if the file cannot be opened."""

    encoding = "utf-8"

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.fdopen(os.open(path, _FLAGS, 0o666), "a", encoding=self.encoding, buffering=1)

    def write(self, text: str) -> None:
        self._file.write(text)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def reopen(self) -> None:
        """Go on in the file that the path names now. A new file gets the old one's owner and permissions.

        OSError; then the old file is still written to. Does not wait for a FIFO without a reader.
        """
        old = os.fstat(self._file.fileno())
        fd, made = self._open()
        try:
            if made:
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, old.st_uid, old.st_gid)
                os.fchmod(fd, stat.S_IMODE(old.st_mode))
            os.set_blocking(fd, True)
            new = os.fdopen(fd, "a", encoding=self.encoding, buffering=1)
        except OSError:
            os.close(fd)
            raise
        self._file, before = new, self._file
        try:
            before.close()
        except OSError:  # a full disk: the failure was reported when the text was written
            pass

    def _open(self) -> tuple[int, bool]:
        """Open the file. Returns its descriptor, and whether the file is new."""
        try:
            return os.open(self.path, _FLAGS | os.O_NONBLOCK | os.O_EXCL, 0o600), True
        except FileExistsError:
            return os.open(self.path, _FLAGS | os.O_NONBLOCK, 0o600), False
