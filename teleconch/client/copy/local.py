"""Files of this machine."""

from __future__ import annotations

import errno
import os

from teleconch.client.copy.tree import CopyProblem, Status


def _problem(path: bytes, error: OSError) -> CopyProblem:
    return CopyProblem(f"{os.fsdecode(path)}: {error.strerror or error}")


class LocalFile:
    """An open file here."""

    def __init__(self, path: bytes, fd: int) -> None:
        self._path = path
        self._fd = fd

    async def read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise _problem(self._path, error) from None

    async def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise _problem(self._path, error) from None

    async def set_status(self, mode: int | None, times: tuple[int, int] | None) -> None:
        try:
            if mode is not None:
                os.fchmod(self._fd, mode)
            if times is not None:
                os.utime(self._fd, times)
        except OSError as error:
            raise _problem(self._path, error) from None

    async def close(self) -> None:
        try:
            os.close(self._fd)
        except OSError as error:  # only now does a network disk tell that it is full
            raise _problem(self._path, error) from None


class LocalTree:
    """This machine."""

    async def stat(self, path: bytes) -> Status | None:
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise _problem(path, error) from None
        return Status(found.st_size, found.st_mode, int(found.st_atime), int(found.st_mtime))

    async def is_link(self, path: bytes) -> bool:
        return os.path.islink(path)

    async def real(self, path: bytes) -> bytes:
        return os.path.realpath(path)

    async def names(self, path: bytes) -> list[bytes]:
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            raise _problem(path, error) from None

    async def make_directory(self, path: bytes, mode: int) -> None:
        try:
            os.mkdir(path, mode)
        except OSError as error:
            raise _problem(path, error) from None

    async def set_status(self, path: bytes, mode: int | None, times: tuple[int, int] | None) -> None:
        try:
            if mode is not None:
                os.chmod(path, mode)
            if times is not None:
                os.utime(path, times)
        except OSError as error:
            raise _problem(path, error) from None

    async def open_source(self, path: bytes) -> LocalFile:
        return self._open(path, os.O_RDONLY, 0)

    async def open_target(self, path: bytes, mode: int) -> LocalFile:
        return self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)

    @staticmethod
    def _open(path: bytes, flags: int, mode: int) -> LocalFile:
        try:
            return LocalFile(path, os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, mode))
        except OSError as error:
            raise _problem(path, error) from None

    async def expand(self, path: bytes) -> bytes:
        return path
