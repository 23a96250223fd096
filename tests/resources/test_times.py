"""Times as documents and tables show them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.errors import BadParameter
from teleconch.resources.times import duration_text, from_rfc3339, rfc3339, utc_text


@given(st.integers(-2_000_000_000, 100_000_000_000).map(lambda n: n / 4))
def test_rfc3339_round_trip(epoch: float) -> None:
    """A time in a document that `tctl get` printed is the same time when `tctl create` reads it."""
    assert from_rfc3339(rfc3339(epoch)) == epoch


def test_rfc3339_text() -> None:
    """Times are told in UTC, whole seconds without a fraction."""
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(0.25) == "1970-01-01T00:00:00.250000Z"
    assert from_rfc3339("1970-01-01T01:00:00+01:00") == 0


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2026-11-22", "2026-11-22T20:55:07", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z"]
)
def test_not_a_time(text: str) -> None:
    """A date without a time or an offset is refused with an example, not guessed."""
    with pytest.raises(BadParameter, match="RFC 3339"):
        from_rfc3339(text)


def test_texts() -> None:
    """Tables show times as Teleport's do, and durations in two units."""
    assert utc_text(1537834860) == "25 Sep 18 00:21 UTC"
    assert [duration_text(s) for s in (0, 59.9, 60, 5400, 43200, 3600 * 24 * 90, 90061)] == [
        "0s", "59s", "1m", "1h30m", "12h", "90d", "1d1h",
    ]  # fmt: skip
