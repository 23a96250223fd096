"""What the readers of all kinds of documents share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import yaml

from teleconch.errors import BadParameter, quoted
from teleconch.resources.marked import MarkedReader, suggestion

Fields: TypeAlias = dict[str, yaml.Node]
"""Keys of a mapping, and where their values stand."""

VERSION: Final = "v2"
BOOKKEEPING: Final = {
    "namespace": "there are no namespaces here.",
    "id": "it is the other store's own count.",
    "labels": "users and tokens have no labels here.",
    "description": "there are no descriptions here.",
}


class Reader(MarkedReader):
    """``now`` (epoch seconds) decides what has expired."""

    def __init__(self, filename: str, now: float) -> None:
        super().__init__(filename)
        self.now = now

    def leave_out(self, found: Fields, where: str, reasons: Mapping[str, str]) -> None:
        """Note the keys in ``found`` that ``reasons`` names."""
        for key, reason in reasons.items():
            if key in found:
                self.note(found[key], f"{where}.{key} is left out: {reason}")


def plain(kind: str, metadata: dict[str, object], spec: dict[str, object], version: str = VERSION) -> dict[str, object]:
    """The plain data of one document."""
    return {"kind": kind, "version": version, "metadata": metadata, "spec": spec}


def checked(reader: MarkedReader, node: yaml.Node | None, where: str, check: Callable[[str], str]) -> str | None:
    text = reader.text(node, where)
    if text is None or node is None:
        return None
    try:
        return check(text)
    except BadParameter as e:
        reader.problem(node, str(e))
        return None


def check_each(
    reader: MarkedReader, node: yaml.Node | None, values: tuple[str, ...] | None, check: Callable[[str], str]
) -> None:
    for value in values or ():
        try:
            check(value)
        except BadParameter as e:
            assert node is not None
            reader.problem(item(node, value), str(e))


def host_roles(roles: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Roles in lower case: Teleport begins them with a capital."""
    return None if roles is None else tuple(dict.fromkeys(role.lower() for role in roles))


def check_host_roles(
    reader: MarkedReader, node: yaml.Node | None, roles: tuple[str, ...] | None, known: tuple[str, ...]
) -> None:
    for role in roles or ():
        if role not in known:
            assert node is not None
            hint = suggestion(role, known) or f"; known: {', '.join(known)}."
            reader.problem(item(node, role), f"a host has no role {quoted(role)}{hint}")


def item(node: yaml.Node, value: str) -> yaml.Node:
    """The node of ``value`` in a list."""
    items = node.value if isinstance(node, yaml.SequenceNode) else ()
    return next((item for item in items if str(item.value).lower() == value.lower()), node)
