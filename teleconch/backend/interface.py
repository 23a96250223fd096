"""What every store offers: keys such as ``/users/alice``, each with bytes, an optional expiry and a revision."""

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
    """``expires`` is in epoch seconds: from then on the item does not exist. ``revision`` grows with each commit."""

    key: str
    value: bytes = field(repr=False)
    expires: float | None
    revision: int


@frozen
class Event:
    """One change: ``item`` as it is now, or ``None`` if it is gone (deleted or expired)."""

    key: str
    item: Item | None
    revision: int


@frozen
class Put:
    """Write an item as a whole. ``expect``: ``None`` for any state, :data:`ABSENT`, :data:`EXISTS`, or a revision."""

    key: str
    value: bytes = field(repr=False)
    expires: float | None = None
    expect: int | None = None


@frozen
class Delete:
    """Remove an item. It is not an error if there is none, unless ``expect`` says so."""

    key: str
    expect: int | None = None


@frozen
class Check:
    """Change nothing, but make the commit fail unless the item is as expected."""

    key: str
    expect: int


Change = Put | Delete | Check


class Watch(Protocol):
    """Changes below a prefix, in order, from the moment the watch was made."""

    async def events(self) -> tuple[Event, ...]:
        """Wait for at least one change. Unavailable if the watch has ended: this watcher was too slow and missed
        something, or the store was closed. Only one caller at a time."""

    def stop(self) -> None:
        """End the watch; a waiting :meth:`events` raises Unavailable. Idempotent."""


class Backend(Protocol):
    """A store. Any method raises Unavailable (with a sentence) when the store cannot do its work.

    A change whose method has returned survives ``kill -9``. A change whose method raised did not happen, except that
    after Unavailable it may have.
    """

    async def commit(self, *changes: Change) -> int:
        """Make all the changes or none. Returns their one revision. CompareFailed if an ``expect`` is not met."""

    async def create(self, key: str, value: bytes, expires: float | None = None) -> int:
        """Write a new item. Returns its revision. AlreadyExists."""

    async def put(self, key: str, value: bytes, expires: float | None = None) -> int:
        """Write an item, new or not. Returns its revision."""

    async def update(self, key: str, value: bytes, expires: float | None = None) -> int:
        """Write an item that exists. Returns its revision. NotFound."""

    async def compare_and_swap(self, key: str, revision: int, value: bytes, expires: float | None = None) -> int:
        """Write an item if it is still at ``revision``, as it was read. Returns the new revision. CompareFailed."""

    async def get(self, key: str) -> Item:
        """One item. NotFound."""

    async def find(self, key: str) -> Item | None:
        """One item, or ``None``."""

    async def range(self, prefix: str, after: str = "", limit: int = RANGE_MAX) -> tuple[Item, ...]:
        """Items below ``prefix`` (which ends in ``/``) and after the key ``after``, in order of key; at most ``limit``,
        and never more than :data:`RANGE_MAX`."""

    def all(self, prefix: str) -> AsyncIterator[Item]:
        """Every item below ``prefix``, read in several ranges. Each range is current; together they are not a
        snapshot."""

    async def delete(self, key: str) -> None:
        """Remove an item. NotFound."""

    async def watch(self, prefix: str, limit: int = 4096) -> Watch:
        """Watch the changes below ``prefix`` from now on. When more than ``limit`` changes wait, the watch ends."""

    async def sweep(self) -> int:
        """Remove what has expired, and tell the watchers. Returns how many items that were."""

    async def close(self) -> None:
        """Finish what has begun, and refuse what comes later. Idempotent."""


def check_changes(changes: tuple[Change, ...]) -> None:
    """BadParameter for changes that no store accepts."""
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
    """Whether an expectation holds for the revision found (:data:`ABSENT` if there is no item)."""
    if expect is None:
        return True
    if expect == EXISTS:
        return revision != ABSENT
    return revision == expect
