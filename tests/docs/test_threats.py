"""docs/threats.rst: what it says is tested is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = sorted(set(re.findall(r"``(tests/[a-z0-9_/]+\.py(?:::\w+)?)``", (ROOT / "docs/threats.rst").read_text())))


def test_tests_are_named() -> None:
    """The table names its tests, in the form that this file looks for."""
    assert len(NAMED) > 40


@pytest.mark.parametrize("name", NAMED)
def test_named_test_is_there(name: str) -> None:
    """A row of the table stands on a test that exists."""
    path, _, function = name.partition("::")
    assert re.search(rf"^\s*(?:async )?def {function or 'test_'}", (ROOT / path).read_text(), re.MULTILINE)
