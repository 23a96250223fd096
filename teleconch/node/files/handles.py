"""Open files and directories of one SFTP client, by handle. Each file is reported when it is closed."""

from __future__ import annotations

import os
import resource

from teleconch.node.files import report
from teleconch.sftp.packets import FAILURE, UINT32, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLES_MAX = 16 * 1024
HANDLE_SIZE = 4  # bytes
_SPARE = 5  # descriptors for what is not a handle


def limit() -> int:
    """How many handles a client may have open: each is a descriptor, and the user has only so many."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return HANDLES_MAX if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE)


class OpenFile:
    """A file that a client has open, what was moved through it so far, and its first error."""

    __slots__ = ("appending", "error", "fd", "flags", "path", "read", "written")

    def __init__(self, fd: int, path: bytes, flags: int) -> None:
        self.fd = fd
        self.path = path
        self.flags = flags
        self.appending = bool(flags & os.O_APPEND)
        self.read = 0
        self.written = 0
        self.error: str | None = None

    def tell(self, to: report.Report) -> None:
        """Report this file, which is closed now: what it was opened for, and what was done beyond that."""
        writable = self.flags & (os.O_WRONLY | os.O_RDWR)
        if self.read or not writable:
            to.moved(self.path, report.READ, self.read, self.error)
        if writable:
            to.moved(self.path, report.WRITE, self.written, self.error)


class OpenDirectory:
    """A directory that a client reads."""

    __slots__ = ("entries", "left", "path")

    def __init__(self, path: bytes, entries: Iterator[os.DirEntry[bytes]]) -> None:
        self.path = path
        self.entries = entries
        self.left: list[bytes] = [b"..", b"."]  # what readdir(3) gives and Python leaves out


class Handles:
    """All handles of one client. An unknown one is Refused with FAILURE, as OpenSSH's server does."""

    def __init__(self, to: report.Report) -> None:
        self._report = to
        self._limit = limit()
        self._open: dict[bytes, OpenFile | OpenDirectory] = {}
        self._next = 0

    def add(self, opened: OpenFile | OpenDirectory) -> bytes:
        """The new handle. Refused if there are too many; the caller then closes what it opened."""
        if len(self._open) >= self._limit:
            raise Refused(FAILURE, b"Too many open files")
        while (handle := UINT32.pack(self._next)) in self._open:
            self._next = (self._next + 1) & 0xFFFFFFFF
        self._next = (self._next + 1) & 0xFFFFFFFF
        self._open[handle] = opened
        return handle

    def file(self, handle: bytes) -> OpenFile:
        opened = self._open.get(handle)
        if type(opened) is not OpenFile:
            raise Refused(FAILURE, b"There is no such handle")
        return opened

    def directory(self, handle: bytes) -> OpenDirectory:
        opened = self._open.get(handle)
        if type(opened) is not OpenDirectory:
            raise Refused(FAILURE, b"There is no such handle")
        return opened

    def close(self, handle: bytes) -> bool:
        """Whether there was such a handle. OSError if closing shows that something was not written."""
        opened = self._open.pop(handle, None)
        if opened is None:
            return False
        if isinstance(opened, OpenDirectory):
            opened.entries.close()  # type: ignore[attr-defined]
            return True
        try:
            os.close(opened.fd)
        except OSError as error:
            opened.error = opened.error or error.strerror
            raise
        finally:
            opened.tell(self._report)
        return True

    def close_all(self, error: str) -> None:
        """The client is gone: files it left open were not moved whole, as far as anyone can know."""
        for handle, opened in list(self._open.items()):
            if isinstance(opened, OpenFile):
                opened.error = opened.error or error
            try:
                self.close(handle)
            except OSError:
                continue
