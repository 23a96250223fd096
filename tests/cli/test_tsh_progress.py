"""The progress of `tsh scp` on terminals of several widths."""

import io

import pytest
from rich.console import Console

from teleconch.cli.tsh_progress import Bar, amount, clock

NAMES = ("short", "a name that is longer than anything that fits into a narrow window, 漢字漢字漢字.tar.gz", "empty")


@pytest.mark.parametrize("width", [20, 36, 48, 78, 120])
def test_columns(width: int) -> None:
    """Whatever the name and the width, each file has one line, and its figures stand under those of the others."""
    out = io.StringIO()
    bar = Bar(Console(file=out, width=width, force_terminal=False))
    for name, size in zip(NAMES, (1000, 5_000_000, 0), strict=True):
        bar.begin(name, size)
        bar.moved(size)
        bar.end()
    bar.stop()
    lines = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert len(lines) == 3
    assert all("100%" in line for line in lines)
    assert ["1.0 kB" in lines[0], "5.0 MB" in lines[1], "0 B" in lines[2]] == [True] * 3
    assert all(("━" in line) == (width >= 78) for line in lines)
    assert "…" in lines[1]
    assert all(line.split()[0] in name for line, name in zip(lines, NAMES, strict=True) if "…" not in line[:6])
    assert (lines[0].endswith("0:00")) == (width >= 48)


def test_many_small_files() -> None:
    """Lines of files that are done come once each, however many there are."""
    out = io.StringIO()
    bar = Bar(Console(file=out, width=60, force_terminal=False))
    for number in range(300):
        bar.begin(f"file{number}", 10)
        bar.moved(10)
        bar.end()
    bar.stop()
    names = [line.split()[0] for line in out.getvalue().splitlines() if line.strip()]
    assert names == [f"file{number}" for number in range(300)]


def test_figures() -> None:
    """Bytes and times are written as people read them, in a width that does not jump."""
    assert [amount(n) for n in (0, 999, 1000, 12_345, 999_499, 999_600, 5e12)] == [
        *("0 B", "999 B", "1.0 kB", "12.3 kB", "999 kB", "1.0 MB", "5.0 TB"),
    ]
    assert [clock(n) for n in (0.2, 7, 750, 11100)] == ["0:00", "0:07", "12:30", "3:05:00"]
    assert all(len(amount(10**n * 9.996)) <= 7 for n in range(16))
