"""The daemons' log lines, where strangers choose some of the words."""

from __future__ import annotations

import shlex

import pytest
from twisted.logger import LogEvent, LogLevel

from teleconch.audit.events import Peer, SessionStart
from teleconch.service.events import LogEmitter
from teleconch.service.log import FIELD_MAX, SENTENCE_MAX, format_line
from tests.worlds.logs import add_observer, remove_observer

WHEN = {"log_time": 1_800_000_000.0, "log_level": LogLevel.warn}


def line_of(user: str, error: str = "no") -> str:
    """The line of an audit event."""
    events: list[LogEvent] = []
    add_observer(events.append)
    try:
        LogEmitter().emit(SessionStart(peer=Peer(user=user), error=error))
    finally:
        remove_observer(events.append)
    return format_line(events[0] | WHEN)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x9b2J", "\u202e", "\u2028", "\ud800", "\r"])
def test_one_line_that_steers_nothing(text: str) -> None:
    """Whatever a user name holds, the log shows one line of printable text."""
    line = line_of(text, text)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize(
    "name", ["joe", 'x" user=root', "x user=root", "user=root", "\\", 'a\\" user="root', "", "x' user=root '"]
)
def test_a_name_makes_no_fields(name: str) -> None:
    """Nobody can log in under a name that reads as another user's, or as another event."""
    words = shlex.split(line_of(name).partition("refused: no")[2])
    expected = [f"user={name}"] if name else []
    assert words == ["event=session.start", *expected, "code=T2000W"]


def test_other_lines() -> None:
    """A line of ours that is no audit event shows who and where, once; one of Twisted's shows no more than it says."""
    event = WHEN | {"log_format": "gone: {error}", "log_namespace": "teleconch.x", "error": "no", "addr_remote": "a:1"}
    assert format_line(event).endswith(" gone: no addr.remote=a:1\n")
    assert format_line(event | {"log_format": "{addr_remote} is gone"}).endswith(" a:1 is gone\n")
    assert format_line(event | {"log_namespace": "twisted.x"}).endswith(" gone: no\n")


def test_lines_are_cut() -> None:
    """A stranger who sends long names does not fill the disk."""
    line = line_of("\x01" * 60_000, "\x01" * 60_000)
    assert len(line) < 4 * (SENTENCE_MAX + FIELD_MAX) + 200
    assert "(60000 characters)" in line
