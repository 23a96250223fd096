"""What a copy needs of a place with files. Paths are bytes. Every failure is a :class:`CopyProblem`."""

from __future__ import annotations

import stat
from typing import Protocol

from attrs import frozen

from teleconch.errors import TeleconchError


class CopyProblem(TeleconchError):
    """One file or directory could not be copied."""


@frozen
class Status:
    """``mode`` with its type; times in seconds."""

    size: int
    mode: int
    atime: int
    mtime: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class OpenFile(Protocol):
    """A file that is open."""

    async def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes, none at the end."""

    async def write(self, offset: int, data: bytes) -> None: ...

    async def set_status(self, mode: int | None, times: tuple[int, int] | None) -> None: ...

    async def close(self) -> None: ...


class Tree(Protocol):
    """A file system. Links are followed."""

    async def stat(self, path: bytes) -> Status | None:
        """None if there is nothing."""

    async def is_link(self, path: bytes) -> bool:
        """Whether the path itself is a symbolic link."""

    async def real(self, path: bytes) -> bytes:
        """The same place, absolute and without links."""

    async def names(self, path: bytes) -> list[bytes]:
        """What is in a directory, without ``.`` and ``..``."""

    async def make_directory(self, path: bytes, mode: int) -> None: ...

    async def set_status(self, path: bytes, mode: int | None, times: tuple[int, int] | None) -> None: ...

    async def open_source(self, path: bytes) -> OpenFile: ...

    async def open_target(self, path: bytes, mode: int) -> OpenFile:
        """Empty; if need be, made with ``mode`` less the umask."""

    async def expand(self, path: bytes) -> bytes:
        """A path with ``~`` replaced by what it means there."""
