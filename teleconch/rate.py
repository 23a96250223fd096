"""Limits how often something may happen: a number of times at once, and one more per period. The clock is passed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from attrs import frozen

_ROUNDING: Final = 1e-9


@frozen
class Bucket:
    """How much was spent at ``when`` (seconds); it refills with time."""

    spent: float = 0.0
    when: float = 0.0


@frozen
class Rate:
    """``most`` at once, and one more every ``refill`` seconds."""

    most: int
    refill: float

    def at(self, bucket: Bucket, now: float) -> Bucket:
        """``bucket`` as it is at ``now``. A clock that goes back refills nothing."""
        return Bucket(max(0.0, bucket.spent - max(0.0, now - bucket.when) / self.refill), now)

    def spend(self, bucket: Bucket, now: float) -> tuple[Bucket, bool]:
        """The bucket after spending one, and whether there was room; if not, nothing is spent."""
        bucket = self.at(bucket, now)
        room = bucket.spent + 1 <= self.most + _ROUNDING
        return (Bucket(bucket.spent + 1, now) if room else bucket), room

    def reserve(self, bucket: Bucket, now: float) -> tuple[Bucket, float]:
        """The bucket after reserving one, and the seconds after which that one may begin."""
        bucket = Bucket(self.at(bucket, now).spent + 1, now)
        return bucket, max(0.0, (bucket.spent - self.most) * self.refill)

    def give_back(self, bucket: Bucket) -> Bucket:
        """The bucket after a reserved one did not begin."""
        return Bucket(max(0.0, bucket.spent - 1), bucket.when)


class Buckets:
    """One bucket for each key, all with the same rate. Only the ``kept`` buckets that were used last are kept."""

    def __init__(self, rate: Rate, kept: int) -> None:
        self._rate = rate
        self._kept = kept
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def spend(self, key: Hashable, now: float) -> bool:
        """Spend one for ``key``. Returns whether there was room."""
        bucket, room = self._rate.spend(self._buckets.pop(key, Bucket(0.0, now)), now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._kept:
            self._buckets.popitem(last=False)
        return room
