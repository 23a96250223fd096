"""A node's labels held against those of a role."""

from __future__ import annotations

import time

import pytest

from teleconch.access.labels import Labels
from teleconch.errors import BadParameter
from teleconch.resources.patterns import compile_pattern, literal
from teleconch.resources.role import Conditions

NODE = {"env": "stage", "workload": "database", "team": "a*c"}


@pytest.mark.parametrize(
    ("written", "fits"),
    [
        ({"env": ("stage",)}, True),
        ({"env": ("prod", "stage")}, True),
        ({"env": ("prod",)}, False),
        ({"env": ("*",)}, True),
        ({"region": ("*",)}, False),
        ({"env": ("st*",)}, True),
        ({"env": ("*ag*",)}, True),
        ({"env": ("st",)}, False),
        ({"env": ("s.age",)}, False),
        ({"env": ("s.ag*",)}, False),
        ({"env": ("^s.age$",)}, True),
        ({"env": ("^test|stage$",)}, True),
        ({"env": ("^tag$",)}, False),
        ({"env": ("^sta|age$",)}, False),
        ({"*": ("*",)}, True),
        ({"*": ("*",), "env": ("prod",)}, False),
        ({"env": ("stage",), "workload": ("database",)}, True),
        ({"env": ("stage",), "workload": ("backup",)}, False),
        ({"team": ("a*c",)}, True),
        ({}, False),
    ],
)
def test_allow(written: dict[str, tuple[str, ...]], fits: bool) -> None:
    """Every label must be there, with one of its values; no labels are no node."""
    assert (Labels(written, {}).missing(NODE) is None) == fits


@pytest.mark.parametrize(
    ("written", "by"),
    [
        ({"workload": ("database", "backup")}, "workload"),
        ({"env": ("prod",), "workload": ("database",)}, "workload"),
        ({"env": ("prod",)}, None),
        ({"region": ("*",)}, None),
        ({"*": ("*",)}, "*"),
        ({}, None),
    ],
)
def test_deny(written: dict[str, tuple[str, ...]], by: str | None) -> None:
    """Any label that matches denies."""
    assert Labels(written, {}).hit(NODE) == by


def test_which_label() -> None:
    """The label that does not fit is told."""
    assert Labels({"env": ("stage",), "workload": ("backup",)}, {}).missing(NODE) == "workload"
    assert Labels({"region": ("*",)}, {}).missing(NODE) == "region"


@pytest.mark.parametrize("value", ["a", "*", "a*", "^x$", "{{internal.logins}}", "^", "$", "", "a.b(c)[d]\\"])
def test_literal(value: str) -> None:
    """A label's value can be written so that it stands for itself alone."""
    labels = Labels({"env": (literal(value),)}, {"logins": ("x",)})
    assert Conditions(node_labels={"env": (literal(value),)})
    assert labels.missing({"env": value}) is None
    for other in ("x", "ab", value + "a", "a" + value):
        assert (labels.missing({"env": other}) is None) == (other == value)


STALLING = (
    r"^(a+)+$",
    r"^(a|a)*$",
    r"^(a|aa)+$",
    r"^([a-zA-Z]+)*$",
    r"^(.*a){20}$",
    r"^(((a*)*)*)*b$",
    r"^((a{30}){30})*$",
    "a*" * 500,
)


@pytest.mark.parametrize("pattern", STALLING)
def test_no_pattern_stalls(pattern: str) -> None:
    """Patterns that take others years take milliseconds, for the longest value that a label may have."""
    began = time.process_time()
    fits = compile_pattern(pattern)
    for value in ("a" * 255, "a" * 254 + "!"):
        fits(value)
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("pattern", [r"^(.{0,60}){0,60}b$", r"^(\pL{100}\pN{100})$"])
def test_patterns_that_are_too_large(pattern: str) -> None:
    """What would need much memory is refused when the role is written."""
    with pytest.raises(BadParameter, match="is not a regular expression"):
        compile_pattern(pattern)
