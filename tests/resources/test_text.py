"""YAML and JSON text."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from teleconch.resources.text import json_text, yaml_text

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(DATA)
def test_reads_back_and_cannot_steer_a_terminal(value: Any) -> None:
    """Whatever stands in a label or name: a program reads it back the same, a terminal shows plain lines."""
    assert json.loads(json_text(value)) == value
    assert yaml.safe_load(yaml_text(value)) == value
    for text in (json_text(value), yaml_text(value)):
        assert all(line.isprintable() for line in text.split("\n"))


def test_readable_where_it_can_be() -> None:
    """Letters of every language are shown as they are."""
    assert yaml_text({"team": "Größe 東京"}) == "team: Größe 東京\n"
    assert json_text({"team": "Größe"}) == '{\n  "team": "Größe"\n}\n'
