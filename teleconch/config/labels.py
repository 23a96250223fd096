"""Static labels of a node: the rules for names and values, and the form ``a=b,c=d`` of ``--labels``."""

from __future__ import annotations

import re

from teleconch.errors import BadParameter

_KEY = re.compile(r"[A-Za-z0-9/._:*-]{1,255}", re.ASCII)
_VALUE_MAX = 1024
_PAIR = re.compile(r'\s*(?P<key>"[^"]*"|[^=,"]*?)\s*=\s*(?P<value>\[[^\]]*\]|"[^"]*"|[^,]*?)\s*(?:,|\Z)')


def check_label(key: str, value: str) -> None:
    """:class:`BadParameter` where a label breaks Teleport's rules: a key of ``[A-Za-z0-9/._:*-]``, a one-line value."""
    if _KEY.fullmatch(key) is None:
        raise BadParameter(f"The label name {key!r} is not usable: take letters, digits and / . _ : * - only.")
    if not value.isprintable() or len(value) > _VALUE_MAX:
        raise BadParameter(f"The value of label {key!r} is not usable: at most {_VALUE_MAX} characters, on one line.")


def parse_labels(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Labels in ``env=prod,os="Debian 12"``, and the names of those that are commands (``up=[1m:"uptime -p"]``)."""
    labels: dict[str, str] = {}
    commands: list[str] = []
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise BadParameter(f"{text[position:]!r} is not a label: write name=value, and a comma between two labels.")
        key, value = pair["key"].strip('"'), pair["value"]
        position = pair.end()
        if value.startswith("["):
            check_label(key, "")
            commands.append(key)
            continue
        check_label(key, value.strip('"'))
        if key in labels:
            raise BadParameter(f"The label {key!r} is given twice.")
        labels[key] = value.strip('"')
    return labels, tuple(commands)
