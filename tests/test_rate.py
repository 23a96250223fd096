"""How often something may happen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from teleconch.rate import Bucket, Buckets, Rate

STEPS = st.lists(st.floats(0, 5), max_size=60)


@given(st.integers(1, 5), st.floats(0.5, 4), STEPS)
def test_never_more_than_the_rate(most: int, refill: float, steps: list[float]) -> None:
    """In no span of time there is room for more than a burst and what the pace gives."""
    rate, bucket, now, granted = Rate(most, refill), Bucket(), 1000.0, []
    for step in steps:
        now += step
        bucket, room = rate.spend(bucket, now)
        if room:
            granted.append(now)
    for first, begin in enumerate(granted):
        for last, end in enumerate(granted[first:], 1):
            assert last <= most + (end - begin) / refill + 1e-6, (begin, end)


@given(st.integers(1, 5), st.floats(0.5, 4), STEPS)
def test_reserved_begin_at_the_pace(most: int, refill: float, steps: list[float]) -> None:
    """Whoever waits as long as they are told is never faster than the rate; what did not begin is given back."""
    rate, bucket, now, begins = Rate(most, refill), Bucket(), 1000.0, []
    for number, step in enumerate(steps):
        now += step
        before = rate.at(bucket, now)
        bucket, seconds = rate.reserve(bucket, now)
        if number % 3 == 2:
            bucket = rate.give_back(bucket)
            assert abs(bucket.spent - before.spent) < 1e-6
        else:
            begins.append(now + seconds)
    for first, begin in enumerate(begins):
        for last, end in enumerate(begins[first:], 1):
            assert last <= most + (end - begin) / refill + 1e-6


def test_refills_by_the_clock() -> None:
    """A full burst, then one more after each while; a clock that goes back gives nothing."""
    rate, bucket = Rate(3, 2.0), Bucket()
    for expected in (True, True, True, False):
        bucket, room = rate.spend(bucket, 100.0)
        assert room is expected
    assert not rate.spend(bucket, 101.9)[1]
    assert not rate.spend(bucket, 50.0)[1]
    assert rate.spend(bucket, 102.0)[1]
    assert rate.at(bucket, 106.0).spent == 0


def test_the_table_is_bounded() -> None:
    """Of more keys than are kept, those that were used last are known."""
    buckets = Buckets(Rate(1, 10.0), 3)
    for key in range(100):
        assert buckets.spend(key, 0.0)
    assert len(buckets) == 3
    assert not buckets.spend(97, 0.0)
    assert buckets.spend(100, 0.0)
    assert not buckets.spend(97, 0.0)
    assert buckets.spend(98, 0.0)
