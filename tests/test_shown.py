"""Text of a peer's, on its way to a terminal or a log."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.errors import quoted
from teleconch.text import shown

EVERYTHING = st.text(st.characters(codec=None, categories=None))  # surrogates among them
NASTY = st.text(
    st.sampled_from("a\x00\x07\x08\t\n\r\x1b\x7f\x80\x85\x9b\xad\u061c\u200b\u200e\u202e\u2028\u2029\u2066\ufeff\ud800\udfff\U000e0041"),
    max_size=30,
)  # fmt: skip
STEERS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.one_of(EVERYTHING, NASTY), st.sampled_from(["", "?"]))
def test_steers_nothing(text: str, mark: str) -> None:
    """Nothing that comes out can steer a terminal, break a line, or reorder or hide what follows."""
    out = shown(text, mark=mark)
    assert not [c for c in out if unicodedata.category(c) in STEERS]
    assert len(out.splitlines()) <= 1
    assert out.isprintable()
    out.encode()
    assert quoted(text)[1:-1] == shown(text)
    assert shown(out, mark=mark) == out


@given(st.one_of(EVERYTHING, NASTY), st.integers(0, 20))
def test_bounded(text: str, longest: int) -> None:
    """What is looked at is bounded, and an escape takes ten characters at most."""
    assert len(shown(text, mark="?", longest=longest)) == min(longest, len(text))
    assert len(shown(text, longest=longest)) <= 10 * longest


@given(NASTY)
def test_kept(text: str) -> None:
    """Line ends are kept where they are asked for, and nothing else is."""
    assert shown(text, keep="\n").split("\n") == [shown(line) for line in text.split("\n")]


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u2028b\nc", "a\\u2028b\\nc"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\udc80", "\\udc80"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_examples(text: str, out: str) -> None:
    """Letters of any script stay; what is not printable is readable as what it is."""
    assert shown(text) == out
