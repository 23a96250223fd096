"""What was measured on each release of OpenSSH, and docs/conformance.rst made of it.

``conformance.json`` keeps the values: by group, behaviour and release, what sshd did, and what the node did where that
was something else. A run writes the rows that it measured, for the release that it found, and keeps the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tests.interop.conformance import BEHAVIOURS, Behaviour, Row

RELEASES = {"9.2": "Debian 12", "10.0": "Debian 13"}  # of OpenSSH; each has its values
MEASURED = Path(__file__).with_name("conformance.json")
TABLE = Path(__file__).resolve().parents[2] / "docs" / "conformance.rst"

Values = dict[str, str]  # by "sshd", and "node" where it differs
Measured = dict[str, dict[str, dict[str, Values]]]

_HEAD = """Conformance with OpenSSH's sshd
===============================

Made by test runs, and not by hand: each behaviour was measured on sshd and on the node, on one machine, with the same
client, certificate and kind of account; with {releases}.
What differs between these releases stands after the release's number. To measure again, on each of them::

    CONFORMANCE=write .venv/bin/python -m pytest tests/interop/test_conformance.py

Rows without a reason are equal. The tests fail when a row differs without a reason, or from what stands here.
"""


def read() -> Measured:
    """What was measured so far."""
    measured: Measured = json.loads(MEASURED.read_text())
    return measured


def values(row: Row) -> Values:
    """What is kept of a row."""
    return {"sshd": _line(row.sshd)} | ({"node": _line(row.node)} if row.node != row.sshd else {})


def change(row: Row, measured: Measured, release: str) -> str | None:
    """What is not as it was measured before; ``None`` where it is, or where that release has no values at all."""
    if release not in RELEASES:
        return None
    name = f"{row.behaviour.group}: {row.behaviour.name}"
    kept, seen = measured.get(row.behaviour.group, {}).get(row.behaviour.name, {}).get(release), values(row)
    if kept == seen:
        return None
    return f"{name}\n    not as docs/conformance.rst has it for OpenSSH {release}\n    kept: {kept}\n    seen: {seen}"


def write(rows: Iterable[Row], release: str) -> None:
    """Keep the rows for that release, and write the table."""
    assert release in RELEASES, f"the table has no values for OpenSSH {release}"
    old = read() if MEASURED.exists() else {}
    new: Measured = {}
    now = {row.behaviour: row for row in rows}
    for each in BEHAVIOURS:
        kept = dict(old.get(each.group, {}).get(each.name, {}))
        if each in now:
            kept[release] = values(now[each])
        new.setdefault(each.group, {})[each.name] = {name: kept[name] for name in RELEASES if name in kept}
    MEASURED.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n")
    TABLE.write_text(table(new))


# --- the table -------------------------------------------------------------------------------------------------------


def table(measured: Measured) -> str:
    """The text of docs/conformance.rst."""
    releases = " and ".join(f"OpenSSH {number} ({name})" for number, name in RELEASES.items())
    lines = [_HEAD.format(releases=releases)]
    for group in dict.fromkeys(each.group for each in BEHAVIOURS):
        lines += [group, "-" * len(group), "", ".. list-table::", "   :header-rows: 1", "   :widths: 28 24 24 24", ""]
        lines += ["   * - Behaviour", "     - sshd", "     - node", "     - Reason"]
        for each in BEHAVIOURS:
            if each.group == group:
                lines += _row(each, measured[group][each.name])
        lines.append("")
    return "\n".join(lines)


def _row(behaviour: Behaviour, kept: dict[str, Values]) -> list[str]:
    sshd = {release: _text(found["sshd"]) for release, found in kept.items()}
    node = {release: _text(found["node"]) if "node" in found else "the same" for release, found in kept.items()}
    reasons = behaviour.reasons if isinstance(behaviour.reasons, dict) else dict.fromkeys(kept, behaviour.reasons)
    lines = [f"   * - {_text(behaviour.name)}"]
    for cell in (sshd, node, {release: reasons.get(release, "") for release in kept}):
        first, *rest = _by_release(cell)
        lines.append(f"     - {first}".rstrip())
        for each in rest:
            lines += ["", f"       {each}"]
    return lines


def _by_release(cell: dict[str, str]) -> list[str]:
    """Once where all releases agree, else a paragraph for each that has something to say."""
    if len(cell) == len(RELEASES) and len(set(cell.values())) == 1:
        return [*set(cell.values())]
    return [f"**{release}** {text}" for release, text in cell.items() if text] or [""]


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """On one line, with nothing that is markup."""
    return re.sub(r"([\\*`|_]|:$)", r"\\\1", _line(text))
