"""What traits make of templates: single values, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.access.labels import Labels
from teleconch.access.traits import expanded, logins_of
from teleconch.resources.names import is_login

TRAITS = {"logins": ("joe", "root"), "team": ("db",), "http://a/b": ("first.last",), "none": (), "empty": ("",)}


@pytest.mark.parametrize(
    ("text", "logins"),
    [
        ("root", ("root",)),
        ("{{internal.logins}}", ("joe", "root")),
        ("{{ external.team }}", ("db",)),
        ('{{external["http://a/b"]}}', ("first.last",)),
        ("adm-{{internal.team}}-x", ("adm-db-x",)),
        ("{{internal.none}}", ()),
        ("{{external.empty}}", ()),
        ("{{external.unknown}}", ()),
    ],
)
def test_logins(text: str, logins: tuple[str, ...]) -> None:
    """Each value is one login; without a value there is none."""
    assert logins_of(text, TRAITS) == logins


@pytest.mark.parametrize("value", ["a,b", "a b", "*", "^.*$", "{{internal.logins}}", "root\n", "root\0", "../x", "-x"])
def test_values_that_are_no_logins(value: str) -> None:
    """A trait that an identity provider fills in badly gives nobody a login."""
    assert logins_of("{{external.x}}", {"x": (value,), "logins": ("root",)}) == ()


@given(st.text(max_size=30) | st.sampled_from(("*", "^.*$", "a*", "{{internal.x}}")))
def test_one_value_is_one_login_at_most(value: str) -> None:
    """No value becomes a second login, or one that may not be."""
    logins = logins_of("{{external.x}}", {"x": (value,)})
    assert logins in ((), (value,))
    assert all(map(is_login, logins))


@given(
    st.text(max_size=20) | st.sampled_from(("*", "^.*$", "a*", "{{internal.x}}")),
    st.text(max_size=20) | st.sampled_from(("a", "ab")),
)
def test_a_value_is_no_pattern(value: str, other: str) -> None:
    """A label's value from a trait matches itself alone, and an empty one nothing."""
    labels = Labels({"env": ("{{external.x}}",)}, {"x": (value,)})
    assert (labels.missing({"env": other}) is None) == (other == value != "")
    assert (labels.hit({"env": other}) is None) != (other == value != "")


def test_no_template() -> None:
    """A text without braces is not a template."""
    assert expanded("root", TRAITS) is None
