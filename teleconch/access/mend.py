"""What would have to change so that something refused is allowed.

Changes are found by making them, one after the other, until nothing refuses. Each is one line of a role, a user, a node
or a certificate. Of the user's roles the one that needs the least is mended. That is the least, not what is wise:
whoever reads it decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from attrs import evolve, frozen

from teleconch.access.kinds import NEEDS, Kind
from teleconch.access.labels import Values
from teleconch.access.options import option_for, widened
from teleconch.access.roles import Policy, Side, policy_of
from teleconch.errors import quoted
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.patterns import ANY, is_regex, literal
from teleconch.resources.role import BUILT_IN, Conditions, Role

Where: TypeAlias = Literal["certificate", "node", "role", "user"]
Do: TypeAlias = Literal["add", "remove", "renew", "set"]

GIVES_ALL: Final = "access"
"""The built-in role that is named where none of the user's can be mended."""
_OWN_LOGINS: Final = "{{internal.logins}}"


@frozen
class Change:
    """``do`` it with ``value`` in the ``line`` of what ``where`` and ``name`` name.

    To set a label of a node to ``^regex$`` is to give it a value that matches, which the reader chooses: what other
    roles deny of it is told when they ask again.
    """

    where: Where
    name: str
    line: str
    do: Do
    value: str = ""

    def __str__(self) -> str:
        if self.do == "renew":
            return f"{self.name} logs in again with `tsh login`."
        if self.where == "certificate":
            return f"{self.name} logs in again for a certificate with {self.value} among its {self.line}."
        if self.do == "set":
            matching = "a value that matches " if is_regex(self.value) else ""
            return f"Set {self.line} of {self.where} {self.name} to {matching}{quoted(self.value)}."
        doing, link = ("Add", "to") if self.do == "add" else ("Remove", "from")
        return f"{doing} {quoted(self.value)} {link} {self.line} of {self.where} {self.name}."


@frozen
class Asked:
    """What is asked, and all that the answer depends on."""

    identity: SSHIdentity
    login: str
    node: str
    labels: Mapping[str, str]
    kind: Kind
    roles: Mapping[str, Role]
    now: float

    @property
    def policy(self) -> Policy:
        return policy_of(self.identity.roles, self.identity.traits, self.roles)


def changes_for(asked: Asked) -> tuple[Change, ...]:
    """The changes that, made together, allow it; none if it is allowed."""
    user = asked.identity.user
    found: list[Change] = []
    if asked.now >= asked.identity.valid_before:
        found.append(Change("certificate", user, "valid_before", "renew"))
    while (change := _of_login(asked)) is not None:
        found.append(change)
        if change.where == "node" and is_regex(change.value):
            break
        asked = _made(asked, change)
    if asked.login not in asked.identity.logins:
        found.append(Change("certificate", user, "logins", "add", asked.login))
    need = NEEDS[asked.kind]
    if need.extension is not None and need.extension not in asked.identity.extensions:
        found.append(Change("certificate", user, "extensions", "add", need.extension))
    if not need.grants <= asked.policy.grants:
        found.append(_of_options(asked))
    return tuple(found)


def _of_login(asked: Asked) -> Change | None:
    """The next change without which the roles do not allow the login on the node."""
    if asked.login in asked.policy.logins(asked.labels):
        return None
    for side, label in asked.policy.walk(asked.labels):
        if side.denies and label is not None:
            written = ANY
            if label != ANY:
                value = asked.labels[label]
                written = next(each.written for each in side.labels.by_name[label].each if each.matches(value))
            return Change("role", side.role, f"deny.node_labels.{label}", "remove", written)
        if side.denies and asked.login in side.logins:
            written = next(text for text, logins in side.written.items() if asked.login in logins)
            return Change("role", side.role, "deny.logins", "remove", written)
    ways = [way for role in asked.policy.roles if (way := _way(asked, role)) is not None]
    if not ways:
        return Change("user", asked.identity.user, "roles", "add", GIVES_ALL)
    return min(ways, key=lambda way: way[0])[1]


def _way(asked: Asked, role: Role) -> tuple[int, Change] | None:
    """The first of the changes with which ``role`` allows the login on the node, and what all of them cost."""
    side = Side(role.name, role.allow, False, asked.identity.traits)
    changes: list[tuple[int, Change]] = []
    if not side.labels:
        label = next((name for name in sorted(asked.labels) if name != ANY), None)
        if label is None or role.name in BUILT_IN:
            return None
        changes.append((5, _of_label(asked, role, label)))
    for name, values in side.labels.by_name.items():
        if name not in asked.labels:
            value = _fitting(values)
            if value is None:
                return None
            changes.append((10 if is_regex(value) else 3, Change("node", asked.node, f"labels.{name}", "set", value)))
        elif not values.match(asked.labels[name]):
            changes.append((2, _of_label(asked, role, name)))
    if asked.login not in side.logins:
        if _OWN_LOGINS in role.allow.logins:
            changes.append((1, Change("user", asked.identity.user, "traits.logins", "add", asked.login)))
        elif role.name in BUILT_IN:
            return None
        else:
            changes.append((1, Change("role", role.name, "allow.logins", "add", asked.login)))
    return sum(cost for cost, _ in changes), changes[0][1]


def _of_label(asked: Asked, role: Role, label: str) -> Change:
    return Change("role", role.name, f"allow.node_labels.{label}", "add", literal(asked.labels[label]))


def _fitting(values: Values) -> str | None:
    """A value for a label that the node lacks; a regular expression for any that matches it."""
    for each in values.each:
        if each.texts:
            return min(each.texts)
        if each.any:
            return "yes"
        if each.fits is not None and not is_regex(each.written):
            return each.written.replace(ANY, "")
    return next((each.written for each in values.each if each.fits is not None), None)


def _of_options(asked: Asked) -> Change:
    """The option of one role, written so that it lets all be done that it did and what is needed."""
    needed = NEEDS[asked.kind].grants
    option = option_for(needed)
    role = min(
        asked.policy.roles, key=lambda role: (role.name in BUILT_IN, getattr(role.options, option) is None, role.name)
    )
    return Change("role", role.name, f"options.{option}", "set", widened(option, getattr(role.options, option), needed))


def _made(asked: Asked, change: Change) -> Asked:
    """As it is after ``change``, which :func:`_of_login` returned."""
    identity = asked.identity
    if change.where == "node":
        return evolve(asked, labels={**asked.labels, change.line.removeprefix("labels."): change.value})
    if change.where == "user" and change.line == "roles":
        return evolve(
            asked,
            identity=evolve(identity, roles=(*identity.roles, change.value)),
            roles={**BUILT_IN, **asked.roles},
        )
    if change.where == "user":
        logins = (*identity.traits.get("logins", ()), change.value)
        return evolve(asked, identity=evolve(identity, traits={**identity.traits, "logins": logins}))
    role = asked.roles[change.name]
    part, line = change.line.split(".", 1)
    conditions = _edited(role.deny if part == "deny" else role.allow, line, change)
    role = evolve(role, deny=conditions) if part == "deny" else evolve(role, allow=conditions)
    return evolve(asked, roles={**asked.roles, role.name: role})


def _edited(conditions: Conditions, line: str, change: Change) -> Conditions:
    if line == "logins":
        return evolve(conditions, logins=_changed(conditions.logins, change))
    name = line.removeprefix("node_labels.")
    values = _changed(conditions.node_labels.get(name, ()), change)
    labels = {**conditions.node_labels, name: values}
    return evolve(conditions, node_labels={each: values for each, values in labels.items() if values})


def _changed(values: tuple[str, ...], change: Change) -> tuple[str, ...]:
    if change.do == "add":
        return (*values, change.value)
    return tuple(value for value in values if value != change.value)
