"""Durations as Teleport's users write them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from teleconch.errors import BadParameter
from teleconch.resources.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("30s", 30),
        ("500ms", 0.5),
        ("1h0m0s", 3600),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("10us", 0.00001),
        ("10µs", 0.00001),
        ("0", 0),
        ("0s", 0),
        (" 12h ", 43200),
    ],
)
def test_reads_go_durations(text: str, seconds: float) -> None:
    """What 4.2's documents show as a duration means the same here."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "-5m", "5 m", "5d", "m", "1h30", "never", "5m\n5m", "٣m", "1e3s", "9" * 70 + "h"]
)
def test_refuses_the_rest(text: str) -> None:
    """A duration that means nothing is told, not guessed."""
    with pytest.raises(BadParameter, match="is not a duration like 30s, 5m or 1h30m"):
        parse_duration(text)


def test_says_what_a_bare_number_lacks() -> None:
    """`ttl: 300` gets the answer that a unit is missing."""
    with pytest.raises(BadParameter, match="300s or 300m"):
        parse_duration("300")


def test_longer_than_go_can_hold() -> None:
    """300 years are refused rather than turned into something else."""
    with pytest.raises(BadParameter, match="longer"):
        parse_duration("3000000h")


@given(st.integers(0, 2**53).map(lambda nanoseconds: nanoseconds / 10**9))
@example(0.000001)
@example(3600.5)
def test_round_trip(seconds: float) -> None:
    """A duration that a program prints is read back as the same, to the nanosecond."""
    assert round(parse_duration(format_duration(seconds)) * 10**9) == round(seconds * 10**9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5400, "1h30m"), (43200, "12h"), (90.5, "1m30.5s"), (0.5, "500ms"), (0, "0s"), (0.0000015, "1.5us")],
)
def test_prints_the_shortest(seconds: float, text: str) -> None:
    """Durations print as people write them."""
    assert format_duration(seconds) == text
