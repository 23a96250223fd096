"""What every store offers: keys such as ``/users/alice`` with bytes, an optional end, and a revision."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from typing import Final, Protocol

from attrs import field, frozen

from teleconch.errors import BadParameter, quoted

ABSENT: Final = 0  # expect: the key must not exist
EXISTS: Final = -1  # expect: the key must exist, at whatever revision

KEY_MAX: Final = 512
VALUE_MAX: Final = 1024 * 1024
CHANGES_MAX: Final = 64  # in one commit
RANGE_MAX: Final = 500  # items in one answer

_KEY = re.compile(r"(?:/[A-Za-z0-9._@:+-]+)+", re.ASCII)
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._@:+-]+)*/", re.ASCII)


@frozen
class Item:
    """``expires`` in epoch seconds: from then on the item does not exist. ``revision`` grows with each commit."""

    key: str
    value: bytes = field(repr=False)
    expires: float | None
    revision: int


@frozen
class Event:
    """One change: ``item`` as it is now, or ``None`` when it is gone (deleted or expired)."""

    key: str
    item: Item | None
    revision: int


@frozen
class Put:
    """Write an item whole. ``expect``: ``None`` for any state, :data:`ABSENT`, :data:`EXISTS`, or a revision."""

    key: str
    value: bytes = field(repr=False)
    expires: float | None = None
    expect: int | None = None


@frozen
class Delete:
    """Remove an item; one that is not there is no error unless ``expect`` says so."""

    key: str
    expect: int | None = None


@frozen
class Check:
    """Change nothing, but let the commit fail unless the item is as expected."""

    key: str
    expect: int


Change = Put | Delete | Check


class Watch(Protocol):
    """Changes below a prefix, in order, from the moment it was made."""

    async def events(self) -> tuple[Event, ...]:
        """Waits for at least one change. Unavailable when the watch has ended: this watcher was too slow and missed
        something, or the store was closed. One caller at a time."""

    def stop(self) -> None:
        """Tell nothing more; a waiting :meth:`events` ends with Unavailable. Idempotent."""


class Backend(Protocol):
    """A store. Unavailable (with a sentence) from any method when the store cannot do its work.

    A change that was answered survives ``kill -9``; one that was answered with an error did not happen, except that
    after Unavailable it may have.
    """

    async def commit(self, *changes: Change) -> int:
        """All the changes or none, at one revision, which it gives. CompareFailed where an ``expect`` is not met."""

    async def create(self, key: str, value: bytes, expires: float | None = None) -> int:
        """A new item. Gives its revision. AlreadyExists."""

    async def put(self, key: str, value: bytes, expires: float | None = None) -> int:
        """Write an item, new or not."""

    async def update(self, key: str, value: bytes, expires: float | None = None) -> int:
        """Write an item that exists. NotFound."""

    async def compare_and_swap(self, key: str, revision: int, value: bytes, expires: float | None = None) -> int:
        """Write an item that is still as it was read (``revision``). CompareFailed."""

    async def get(self, key: str) -> Item:
        """One item. NotFound."""

    async def find(self, key: str) -> Item | None:
        """One item, or ``None``."""

    async def range(self, prefix: str, after: str = "", limit: int = RANGE_MAX) -> tuple[Item, ...]:
        """Items in order of key, below ``prefix`` (which ends in ``/``) and behind the key ``after``; at most
        ``limit``, and never more than :data:`RANGE_MAX`."""

    def all(self, prefix: str) -> AsyncIterator[Item]:
        """Every item below ``prefix``, read in several ranges: each is current, all together no snapshot."""

    async def delete(self, key: str) -> None:
        """Remove an item. NotFound."""

    async def watch(self, prefix: str, limit: int = 4096) -> Watch:
        """Changes below ``prefix`` from now on; at most ``limit`` wait, then the watch ends."""

    async def sweep(self) -> int:
        """Remove what has expired, and tell the watchers. Gives how many."""

    async def close(self) -> None:
        """Finish what was begun, refuse what comes later. Idempotent."""


def check_changes(changes: tuple[Change, ...]) -> None:
    """BadParameter for changes that no store takes."""
    if not 0 < len(changes) <= CHANGES_MAX:
        raise BadParameter(f"A commit holds 1 to {CHANGES_MAX} changes, not {len(changes)}.")
    if len({change.key for change in changes}) != len(changes):
        raise BadParameter("A commit names each key once.")
    for change in changes:
        check_key(change.key)
        if isinstance(change, Put) and change.expires is not None and not math.isfinite(change.expires):
            raise BadParameter(f"{change.key} must end at some time, or never (None).")
        if isinstance(change, Put) and len(change.value) > VALUE_MAX:
            raise BadParameter(f"The value of {change.key} has {len(change.value)} bytes; at most {VALUE_MAX} fit.")


def check_key(key: str) -> None:
    """BadParameter for a key that is not like ``/users/alice``."""
    if len(key) > KEY_MAX or _KEY.fullmatch(key) is None:
        raise BadParameter(f"{quoted(key[:KEY_MAX])} is not a key like /users/alice.")


def check_prefix(prefix: str) -> None:
    """BadParameter for a prefix that is not like ``/users/``."""
    if len(prefix) > KEY_MAX or _PREFIX.fullmatch(prefix) is None:
        raise BadParameter(f"{quoted(prefix[:KEY_MAX])} is not a prefix like /users/.")


def is_met(expect: int | None, revision: int) -> bool:
    """Whether an expectation holds for the revision found (:data:`ABSENT` where there is no item)."""
    if expect is None:
        return True
    if expect == EXISTS:
        return revision != ABSENT
    return revision == expect
