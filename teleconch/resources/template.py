"""``{{internal.logins}}`` and ``{{external.x}}``: the places of a role that a user's traits fill in."""

from __future__ import annotations

import re

from attrs import frozen

from teleconch.errors import BadParameter, quoted

_TEMPLATE = re.compile(
    r"(?P<before>[^{}]*)\{\{\s*(?:internal|external)(?:\.(?P<dotted>[A-Za-z0-9_-]+)|\[\"(?P<listed>[^\"{}]+)\"\])\s*\}\}"
    r"(?P<after>[^{}]*)"
)


@frozen
class Template:
    """The values of ``trait``, each between ``before`` and ``after``."""

    before: str
    trait: str
    after: str


def parse_template(text: str) -> Template | None:
    """``None`` for a text that is no template. BadParameter for one that is neither."""
    if "{{" not in text and "}}" not in text:
        return None
    match = _TEMPLATE.fullmatch(text)
    if match is None:
        raise BadParameter(
            f"{quoted(text)} is not usable: write {{{{internal.NAME}}}}, {{{{external.NAME}}}} or"
            ' {{external["NAME"]}}, once, with plain text before and after it.'
        )
    return Template(match["before"], match["dotted"] or match["listed"], match["after"])
