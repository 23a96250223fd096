"""README.rst and docs/: the files that they name exist, and their headings are headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
TOPS = ("teleconch", "tests", "bench", "docs")
FILES = [f"/{path.relative_to(ROOT)}" for top in TOPS for path in (ROOT / top).rglob("*.*")]
NAME = re.compile(r"``([\w/]+\.(?:py|rst))\b")
NAMED = sorted({(path.name, name) for path in DOCUMENTS for name in NAME.findall(path.read_text())})


def test_files_are_named() -> None:
    """The documents name files, in the form that this file looks for."""
    assert len(NAMED) > 80


@pytest.mark.parametrize(("document", "name"), NAMED)
def test_named_file_exists(document: str, name: str) -> None:
    """A reader finds the file that a document sends them to: the name is the end of its path."""
    assert any(path.endswith(f"/{name}") for path in FILES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_headings_stand_over_their_lines(document: Path) -> None:
    """No heading was joined with its underline when the text was wrapped."""
    assert not re.findall(r"^\w.* (?:-{4,}|={4,}|~{4,})$", document.read_text(), re.MULTILINE)
