"""Keys that Teleport 4.2 does not have: which release they are from, where they belong, or what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from teleconch.config.document import Findings
from teleconch.config.later import LATER, says_nothing
from teleconch.config.section import Section
from teleconch.errors import quoted

_DISTANCE = 2  # edits between a typo and the key that was meant


def report_unknown(root: Section, findings: Findings) -> None:
    """Note each key below ``root`` that nobody asked for. All are errors, except keys of later releases that ask for
    nothing or are in a section without effect."""
    sections = [root]
    for section in sections:
        sections.extend(section.children)
    for section in sections:
        for key, (line, node) in section.entries.items():
            if key in section.known:
                continue
            if key in LATER.get(section.path, ()):
                _report_later(section, key, line, node)
                continue
            hint = _where(key, sections) or _near(key, section.known)
            hint = hint or f"Known here: {', '.join(sorted(section.known))}."
            findings.refuse(line, f"There is no key {quoted(key[:80])}{inside(section)}. {hint}")


def inside(section: Section) -> str:
    """`` in teleport.log``; an empty string for the whole file."""
    return f" in {section.path}" if section.path else ""


def _report_later(section: Section, key: str, line: int, node: yaml.Node) -> None:
    later = LATER[section.path][key]
    whose = f"{quoted(key)}{inside(section)} is from Teleport {later.since} and later"
    if says_nothing(key, later, node):
        section.findings.warn(line, f"{whose}, and has no effect here.")
    else:
        section.findings.error(line, f"{whose}. {later.here}")


def _where(key: str, sections: Iterable[Section]) -> str | None:
    homes = [other.path for other in sections if key in other.known]
    if homes:
        return f"It belongs {' or '.join(f'in {path}' if path else 'at the left margin' for path in homes)}."
    for path, keys in LATER.items():
        if key in keys:
            return f"It is from Teleport {keys[key].since} and later{f', in {path}' if path else ''}. {keys[key].here}"
    return None


def _near(key: str, known: Iterable[str]) -> str | None:
    """A question with the known key that a typo could have turned into ``key``; ``None`` if there is none. The shorter
    the key, the fewer edits count."""
    near = min(((_distance(key, name), name) for name in known), default=(_DISTANCE + 1, ""))
    allowed = min(_DISTANCE, len(near[1]) // 3)
    return f"Did you mean {quoted(near[1])}?" if near[0] <= allowed else None


def _distance(a: str, b: str) -> int:
    """The number of edits (one character added, removed or changed, or two swapped) from ``a`` to ``b``, as far as it
    matters."""
    if abs(len(a) - len(b)) > _DISTANCE:
        return _DISTANCE + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row, before = before, [i], row
        for j, y in enumerate(b, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]
