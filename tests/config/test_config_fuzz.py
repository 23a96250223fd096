"""Files that nobody meant to write."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teleconch.config.labels import check_label, parse_labels
from teleconch.config.load import load_config
from teleconch.config.sample import SAMPLE
from teleconch.config.values import CommandLabel
from teleconch.errors import BadParameter, ConfigError

KEYS = sorted({word.strip("#: ") for line in SAMPLE.splitlines() for word in line.split() if word.endswith(":")})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.sampled_from(["0.0.0.0:3025", "never", "off", "/nowhere", "node:x", "5m", "[::1]", "sha256:", "1:2:3"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), inner, max_size=6),
    ),
    max_leaves=25,
)
SECTIONS = st.dictionaries(
    st.sampled_from(["teleport", "auth_service", "ssh_service", "proxy_service"]),
    st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), VALUES, max_size=10),
)


def refused_or_loaded(text: str) -> None:
    with contextlib.suppress(ConfigError):
        load_config(text, "/nowhere/teleport.yaml", hostname=lambda: "h")


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(st.one_of(VALUES, SECTIONS))
def test_any_yaml_loads_or_is_a_config_error(value: Any) -> None:
    """Whatever is in a YAML file, its owner reads sentences with lines, never a traceback."""
    refused_or_loaded(yaml.safe_dump(value, allow_unicode=True))


@settings(max_examples=300)
@given(
    st.text(
        alphabet=st.one_of(st.sampled_from(list(":-[]{}\"'#&*!|>%@`,?~ \n\tab0\\<=")), st.characters()), max_size=60
    )
)
def test_any_text_loads_or_is_a_config_error(text: str) -> None:
    """A file that is no YAML at all is refused in words as well."""
    refused_or_loaded(text)


@settings(max_examples=100)
@given(
    st.integers(0, len(SAMPLE)),
    st.sampled_from(["", "\t", ":", '"', "\x00", "&a ", "*a ", "- ", "\n", "{", "!!str "]),
    st.integers(0, 9),
)
def test_a_damaged_sample(at: int, inserted: str, removed: int) -> None:
    """One slip of the hand in the sample never gives a traceback."""
    refused_or_loaded(SAMPLE[:at] + inserted + SAMPLE[at + removed :])


LABEL_KEYS = st.from_regex(r"[A-Za-z0-9/._:*-]{1,10}", fullmatch=True)
LABEL_VALUES = st.text(st.characters(exclude_characters='"', exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.just(" "))


@given(st.dictionaries(LABEL_KEYS, LABEL_VALUES, max_size=6))
def test_labels_round_trip(labels: dict[str, str]) -> None:
    """Labels typed as --labels arrive as they were meant."""
    assert parse_labels(",".join(f'{key}="{value}"' for key, value in labels.items()))[0] == labels


@given(st.text(max_size=40))
def test_any_labels_are_usable_or_refused(text: str) -> None:
    """Whatever follows --labels, no label arrives that breaks the rules."""
    with contextlib.suppress(BadParameter):
        for key, value in parse_labels(text)[0].items():
            check_label(key, value)


def test_label_commands() -> None:
    """`--labels up=[1m:"uptime -p"],env=prod` gives the static label and the command, split as a shell would."""
    assert parse_labels('up=[1m:"uptime -p \'a b\'"],env=prod, os="Debian, 12"') == (
        {"env": "prod", "os": "Debian, 12"},
        (CommandLabel("up", ("uptime", "-p", "a b"), 60),),
    )
    for bad in ("a=[1m:]", "a=[x:true]", "a=[100ms:true]", 'a=[1m:"it\'s"]', "a=b,a=[1m:true]"):
        with pytest.raises(BadParameter):
            parse_labels(bad)
