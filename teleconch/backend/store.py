"""What the stores share: the simple operations, each made of one commit or one read."""

from __future__ import annotations

from collections.abc import AsyncIterator

from teleconch.backend.interface import ABSENT, EXISTS, RANGE_MAX, Change, Delete, Item, Put
from teleconch.errors import AlreadyExists, CompareFailed, NotFound


class Store:
    """The base of the stores. Each store adds ``commit``, ``find``, ``range``, ``watch``, ``sweep`` and ``close``."""

    async def commit(self, *changes: Change) -> int:
        raise NotImplementedError

    async def find(self, key: str) -> Item | None:
        raise NotImplementedError

    async def range(self, prefix: str, after: str = "", limit: int = RANGE_MAX) -> tuple[Item, ...]:
        raise NotImplementedError

    async def create(self, key: str, value: bytes, expires: float | None = None) -> int:
        try:
            return await self.commit(Put(key, value, expires, ABSENT))
        except CompareFailed:
            raise AlreadyExists(f"{key} exists already.") from None

    async def put(self, key: str, value: bytes, expires: float | None = None) -> int:
        return await self.commit(Put(key, value, expires))

    async def update(self, key: str, value: bytes, expires: float | None = None) -> int:
        try:
            return await self.commit(Put(key, value, expires, EXISTS))
        except CompareFailed:
            raise missing(key) from None

    async def compare_and_swap(self, key: str, revision: int, value: bytes, expires: float | None = None) -> int:
        return await self.commit(Put(key, value, expires, revision))

    async def get(self, key: str) -> Item:
        item = await self.find(key)
        if item is None:
            raise missing(key)
        return item

    async def delete(self, key: str) -> None:
        try:
            await self.commit(Delete(key, EXISTS))
        except CompareFailed:
            raise missing(key) from None

    async def all(self, prefix: str) -> AsyncIterator[Item]:
        after = ""
        while True:
            items = await self.range(prefix, after)
            for item in items:
                yield item
            if len(items) < RANGE_MAX:
                return
            after = items[-1].key


def missing(key: str) -> NotFound:
    """The error for a key that is not there."""
    return NotFound(f"There is no {key}.")


def changed(key: str) -> CompareFailed:
    """The error for a key that is not as expected."""
    return CompareFailed(f"{key} is not as it was when it was read; try again.")
