"""What a user's traits make of ``{{internal.logins}}`` and ``{{external.x}}`` in a role.

A trait's value is taken as it is: one login, or one value of a label. It never becomes a pattern, another template, or
two of anything. Both kinds of template read the same traits: of a user here, or of whoever vouched for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from teleconch.resources.names import is_login
from teleconch.resources.template import parse_template

Traits: TypeAlias = Mapping[str, tuple[str, ...]]


def expanded(text: str, traits: Traits) -> tuple[str, ...] | None:
    """The texts that a template stands for, which may be none; ``None`` if ``text`` is no template."""
    template = parse_template(text)
    if template is None:
        return None
    return tuple(f"{template.before}{value}{template.after}" for value in traits.get(template.trait, ()) if value)


def logins_of(text: str, traits: Traits) -> tuple[str, ...]:
    """The logins that one of a role's ``logins`` stands for. What may not be a login is dropped."""
    values = expanded(text, traits)
    return tuple(value for value in ((text,) if values is None else values) if is_login(value))
