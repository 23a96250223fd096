"""A member's own copy of everything of one kind, kept in step by a watch (``watcher.py``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from teleconch.resources.kind import Change

T = TypeVar("T")


class Copy(Generic[T]):
    """``values`` by key, as they were told last. ``complete`` once a watch has told everything; from then on what there
    is stays usable, however old it grows while nothing is told."""

    def __init__(self) -> None:
        self.values: dict[str, T] = {}
        self.complete = False
        self._untold: set[str] = set()  # of an earlier watch, while a new one begins

    def __len__(self) -> int:
        return len(self.values)

    def begin(self) -> None:
        """A new watch tells everything anew."""
        self._untold = set(self.values)

    def apply(self, changes: Iterable[Change[T]]) -> None:
        """Take over some changes, oldest first."""
        for change in changes:
            self._untold.discard(change.key)
            self._put(change.key, change.value)

    def whole(self) -> None:
        """The watch has told everything: what it did not tell is gone."""
        for key in self._untold:
            self._put(key, None)
        self._untold.clear()
        self.complete = True

    def lost(self) -> None:
        """Nothing is told any more, from now on."""

    def _put(self, key: str, value: T | None) -> None:
        """One value as it is now; ``None`` for one that is gone."""
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
