"""Keys that Teleport does not have: what was probably meant."""

from __future__ import annotations

import difflib

from teleconch.config.document import Findings
from teleconch.config.section import Section


def report_unknown(root: Section, findings: Findings) -> None:
    """An error for each key that nobody asked for, below ``root``: what was probably meant, or where it belongs."""
    sections = [root]
    for section in sections:
        sections.extend(section.children)
    for section in sections:
        for key, (line, _) in section.entries.items():
            if key in section.known:
                continue
            homes = [other.path for other in sections if key in other.known]
            close = difflib.get_close_matches(key, section.known, 1)
            if homes:
                hint = f"It belongs {' or '.join(f'in {path}' if path else 'at the left margin' for path in homes)}."
            elif close:
                hint = f"Did you mean {close[0]!r}?"
            else:
                hint = f"Known here: {', '.join(sorted(section.known))}."
            findings.refuse(line, f"There is no key {key[:80]!r}{section._inside()}. {hint}")
