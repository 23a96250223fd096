"""The table of conformance: what a run on one release of OpenSSH writes, and what it makes fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import conformance_table
from tests.interop.conformance import Behaviour, Row, Settings, Side


async def _nothing(side: Side) -> str:
    return ""


EQUAL = Behaviour("Group", "equal", _nothing, "", Settings())
OTHER = Behaviour("Group", "other", _nothing, "It is better.", Settings())
NEW = Behaviour("Group", "new", _nothing, {"10.0": "It is older."}, Settings())


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of the test's own."""
    monkeypatch.setattr(conformance_table, "BEHAVIOURS", [EQUAL, OTHER, NEW])
    monkeypatch.setattr(conformance_table, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setattr(conformance_table, "TABLE", tmp_path / "table.rst")
    conformance_table.write([Row(EQUAL, "a", "a"), Row(OTHER, "b", "c"), Row(NEW, "d", "d")], "9.2")
    conformance_table.write([Row(EQUAL, "a", "a"), Row(OTHER, "b", "c"), Row(NEW, "e", "d")], "10.0")


def _cells(name: str) -> list[str]:
    rows = conformance_table.TABLE.read_text().split("\n   * - ")
    (row,) = [row for row in rows if row.startswith(f"{name}\n")]
    return [" ".join(cell.split()) for cell in row.split("\n     -")[1:]]


def test_values_of_both_releases() -> None:
    """What both releases do is said once; what they do differently, after each one's number."""
    assert _cells("equal") == ["a", "the same", ""]
    assert _cells("other") == ["b", "c", "It is better."]
    assert _cells("new") == ["**9.2** d **10.0** e", "**9.2** the same **10.0** d", "**10.0** It is older."]


def test_a_run_keeps_what_it_does_not_measure() -> None:
    """A run on one release writes its own values of the rows that it measured, and keeps all others."""
    conformance_table.write([Row(EQUAL, "z", "z")], "9.2")
    assert _cells("equal") == ["**9.2** z **10.0** a", "the same", ""]
    assert _cells("other") == ["b", "c", "It is better."]


def test_a_row_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody measures any more leaves the table with the next writing."""
    monkeypatch.setattr(conformance_table, "BEHAVIOURS", [EQUAL])
    conformance_table.write([], "9.2")
    assert list(conformance_table.read()["Group"]) == ["equal"]


@pytest.mark.parametrize(
    ("row", "release", "fails"),
    [
        (Row(EQUAL, "a", "a"), "9.2", False),
        (Row(EQUAL, "a", "b"), "9.2", True),  # a difference without a reason
        (Row(OTHER, "b", "b"), "9.2", True),  # a reason without a difference
        (Row(NEW, "e", "d"), "10.0", False),
        (Row(NEW, "e", "d"), "9.2", True),  # the reason is not for this release
        (Row(NEW, "d", "d"), "10.0", True),
        (Row(NEW, "d", "d"), "9.2", False),
    ],
)
def test_reasons(row: Row, release: str, fails: bool) -> None:
    """A difference needs a reason for the release on which it is seen, and a reason a difference."""
    assert (row.problem(release) is not None) == fails


def test_changes() -> None:
    """A row that is not as the table has it for this release fails, however equal both sides are."""
    measured = conformance_table.read()
    assert conformance_table.change(Row(EQUAL, "a", "a"), measured, "9.2") is None
    assert conformance_table.change(Row(NEW, "d", "d"), measured, "9.2") is None
    assert "kept" in (conformance_table.change(Row(NEW, "d", "d"), measured, "10.0") or "")
    assert "kept" in (conformance_table.change(Row(EQUAL, "y", "y"), measured, "9.2") or "")
    assert conformance_table.change(Row(EQUAL, "y", "y"), measured, "9.9") is None
