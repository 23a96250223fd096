"""A store in memory: for tests, and the model that the others are compared with."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

from teleconch.backend.interface import (
    ABSENT,
    RANGE_MAX,
    Change,
    Delete,
    Event,
    Item,
    Put,
    Watch,
    check_changes,
    check_key,
    check_prefix,
    is_met,
)
from teleconch.backend.store import Store, changed
from teleconch.backend.watch import Watches
from teleconch.errors import Unavailable


class MemoryBackend(Store):
    """A dictionary and its keys in order. ``now`` returns epoch seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []
        self._revision = 0
        self._watches = Watches()
        self._closed = False

    async def commit(self, *changes: Change) -> int:
        self._check_open()
        check_changes(changes)
        for change in changes:
            item = self._alive(change.key)
            if not is_met(change.expect, ABSENT if item is None else item.revision):
                raise changed(change.key)
        self._revision += 1
        events = []
        for change in changes:
            if isinstance(change, Put):
                item = Item(change.key, bytes(change.value), change.expires, self._revision)
                if change.key not in self._items:
                    insort(self._keys, change.key)
                self._items[change.key] = item
                events.append(Event(change.key, item, self._revision))
            elif isinstance(change, Delete) and change.key in self._items:
                self._remove(change.key)
                events.append(Event(change.key, None, self._revision))
        self._watches.tell(events)
        return self._revision

    async def find(self, key: str) -> Item | None:
        self._check_open()
        check_key(key)
        return self._alive(key)

    async def range(self, prefix: str, after: str = "", limit: int = RANGE_MAX) -> tuple[Item, ...]:
        self._check_open()
        check_prefix(prefix)
        first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        found: list[Item] = []
        for index in range(first, len(self._keys)):
            key = self._keys[index]
            if len(found) >= min(limit, RANGE_MAX) or not key.startswith(prefix):
                break
            item = self._alive(key)
            if item is not None:
                found.append(item)
        return tuple(found)

    async def watch(self, prefix: str, limit: int = 4096) -> Watch:
        self._check_open()
        return self._watches.add(prefix, limit)

    async def sweep(self) -> int:
        self._check_open()
        gone = [key for key in self._keys if self._alive(key) is None]
        if gone:
            self._revision += 1
            for key in gone:
                self._remove(key)
            self._watches.tell(Event(key, None, self._revision) for key in gone)
        return len(gone)

    async def close(self) -> None:
        self._closed = True
        self._watches.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store was closed; start the auth server again.")

    def _alive(self, key: str) -> Item | None:
        item = self._items.get(key)
        if item is not None and item.expires is not None and item.expires <= self._now():
            return None
        return item

    def _remove(self, key: str) -> None:
        del self._items[key]
        del self._keys[bisect_left(self._keys, key)]
