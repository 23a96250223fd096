"""Records in a backend: read with their revision, written by a commit, and retried when somebody else was faster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Generic, TypeVar

from attrs import frozen

from teleconch.auth.records import decode, encode
from teleconch.backend.interface import Backend, Change, Item, Put, Watch
from teleconch.errors import CompareFailed, LimitExceeded

Record = TypeVar("Record")
Result = TypeVar("Result")

_ATTEMPTS: Final = 100


@frozen
class Found(Generic[Record]):
    """A stored record, as it was at ``revision``."""

    key: str
    record: Record
    revision: int


class State:
    """The records of one cluster."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def find(self, key: str, kind: type[Record]) -> Found[Record] | None:
        """One record, or ``None``."""
        item = await self._backend.find(key)
        return None if item is None else found(item, kind)

    async def all(self, prefix: str, kind: type[Record]) -> AsyncIterator[Found[Record]]:
        """All records below ``prefix``, in order of key."""
        async for item in self._backend.all(prefix):
            yield found(item, kind)

    async def range(self, prefix: str, after: str, limit: int, kind: type[Record]) -> list[Found[Record]]:
        """At most ``limit`` records below ``prefix`` with a key after ``after`` ("": from the start), by key."""
        return [found(item, kind) for item in await self._backend.range(prefix, after, limit)]

    async def watch(self, prefix: str) -> Watch:
        """Watch the changes below ``prefix`` from now on; read them with :func:`found`."""
        return await self._backend.watch(prefix)

    async def items(self, prefix: str) -> list[Item]:
        """Everything below ``prefix`` as it is stored, for a reader that goes on past a damaged record."""
        return [item async for item in self._backend.all(prefix)]

    async def commit(self, *changes: Change) -> int:
        """All the changes or none. CompareFailed."""
        return await self._backend.commit(*changes)


def found(item: Item, kind: type[Record]) -> Found[Record]:
    """The record in an item."""
    return Found(item.key, decode(item.key, item.value, kind), item.revision)


def put(key: str, record: object, *, expires: float | None = None, expect: int | None = None) -> Put:
    """The change that writes a record."""
    return Put(key, encode(record), expires, expect)


async def decided(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """The result of ``attempt``, which reads, decides and commits. It is called again on CompareFailed."""
    for _ in range(_ATTEMPTS):
        try:
            return await attempt()
        except CompareFailed:
            continue
    raise LimitExceeded("Too many changes of the same thing at once; try again in a moment.")
