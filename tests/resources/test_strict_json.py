"""JSON from a peer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.errors import BadParameter
from teleconch.resources.strict_json import DEPTH_MAX, read_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
PLAIN = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    PLAIN | TEXTS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=8
)


@given(VALUES, st.booleans())
def test_what_is_written_is_read(value: Any, ascii_only: bool) -> None:
    """Any value comes through, whether its writer escapes letters beyond ASCII or not."""
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode(), "It") == value


@given(st.binary(max_size=60) | st.text('{}[]",:\\ud8001eE+-.nulNaNInfity', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever a peer sends is a value that can be written again as UTF-8, or a sentence."""
    try:
        value = read_json(data, "It")
    except BadParameter as error:
        said = str(error)
    else:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return
    assert said.startswith("It cannot be read: ")
    assert said.endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[-Infinity]",
        "1e999",
        "9" * 19,
        "-" + "9" * 5000,
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '[{"a\\udbff": 1}]',
        '{"a": 1, "a": 1}',
        "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1),
        "[" * 100_000,
        "\ufeff1",
        "1 2",
        "",
    ],
)
def test_refused(text: str) -> None:
    """What only Python takes is not JSON here."""
    with pytest.raises(BadParameter):
        read_json(text.encode(), "It")


def test_pairs_are_no_halves() -> None:
    """A letter beyond U+FFFF may stand as two escapes."""
    assert read_json(b'"\\ud83d\\ude00"', "It") == "\U0001f600"
