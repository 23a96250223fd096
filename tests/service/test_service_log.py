"""The daemons' log lines, where strangers choose some of the words."""

from __future__ import annotations

import shlex

import pytest
from twisted.logger import LogLevel

from teleconch.service.log import FIELD_MAX, SENTENCE_MAX, format_line


def line_of(sentence: str = "access denied: {error}", **fields: object) -> str:
    event = {"log_format": sentence, "log_time": 1_800_000_000.0, "log_level": LogLevel.warn, "event": "auth"}
    return format_line({**event, **fields})


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x9b2J", "\u202e", "\u2028", "\ud800", "\r"])
def test_one_line_that_steers_nothing(text: str) -> None:
    """Whatever a user name holds, the log shows one line of printable text."""
    line = line_of(error=text, user=text)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize(
    "name", ["joe", 'x" user=root', "x user=root", "user=root", "\\", 'a\\" user="root', "", "x' user=root '"]
)
def test_a_name_makes_no_fields(name: str) -> None:
    """Nobody can log in under a name that reads as another user's, or as another event."""
    words = shlex.split(line_of("refused", user=name).partition("refused")[2])
    expected = [f"user={name}"] if name else []
    assert words == ["event=auth", *expected]


def test_lines_are_cut() -> None:
    """A stranger who sends long names does not fill the disk."""
    line = line_of(error="\x01" * 60_000, user="\x01" * 60_000)
    assert len(line) < 4 * (SENTENCE_MAX + FIELD_MAX) + 200
    assert "(60000 characters)" in line
