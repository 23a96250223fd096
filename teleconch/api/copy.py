"""A member's own copy of all values of one kind, kept up to date by a watch (``watcher.py``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from teleconch.resources.kind import Change

T = TypeVar("T")


class Copy(Generic[T]):
    """``values`` by key, as last reported. ``complete`` is set once a watch has reported everything. From then on the
    values stay usable, however old they grow while no watch runs."""

    def __init__(self) -> None:
        self.values: dict[str, T] = {}
        self.complete = False
        self._untold: set[str] = set()  # keys from an earlier watch that a new, beginning one has not reported yet

    def __len__(self) -> int:
        return len(self.values)

    def begin(self) -> None:
        """A new watch begins, and will report everything again."""
        self._untold = set(self.values)

    def apply(self, changes: Iterable[Change[T]]) -> None:
        """Apply some changes, oldest first."""
        for change in changes:
            self._untold.discard(change.key)
            self._put(change.key, change.value)

    def whole(self) -> None:
        """The watch has reported everything; what it did not report is gone."""
        for key in self._untold:
            self._put(key, None)
        self._untold.clear()
        self.complete = True

    def lost(self) -> None:
        """The watch has ended; nothing is reported until the next one begins."""

    def _put(self, key: str, value: T | None) -> None:
        """Store one value as it is now; ``None`` if it is gone."""
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
