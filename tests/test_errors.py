"""How sentences show what people typed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import teleconch
from teleconch.errors import BadParameter, quoted
from teleconch.resources.names import check_login


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("kim", "'kim'"),
        ("CORP\\kim,", "'CORP\\kim,'"),
        ("C:\\new", "'C:\\new'"),
        ("it's", '"it\'s"'),
        ("a\nb\x1b[31m\u202e\x00\ud800\xa0é", "'a\\nb\\x1b[31m\\u202e\\x00\\ud800\\xa0é'"),
        ("", "''"),
        (7, "7"),
        (b"a\\", "b'a\\\\'"),
    ],
)
def test_text_as_it_was_typed(typed: object, shown: str) -> None:
    """A backslash stays one, and nothing steers a terminal."""
    assert quoted(typed) == shown


@given(st.text())
def test_one_line(text: str) -> None:
    """No text breaks a line of the log or steers a terminal."""
    assert quoted(text).isprintable()


def test_a_windows_login() -> None:
    """A mistyped `CORP\\kim` is shown with one backslash."""
    with pytest.raises(BadParameter) as caught:
        check_login("CORP\\kim lee")
    assert "Login 'CORP\\kim lee' is not usable" in str(caught.value)


def test_no_sentence_shows_text_as_python_does() -> None:
    """Each f-string of the program uses `quoted`: `!r` doubles what people typed of backslashes."""
    folder = Path(teleconch.__file__).parent
    found = [
        f"{path.relative_to(folder)}:{node.lineno}"
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
    ]
    assert not found
