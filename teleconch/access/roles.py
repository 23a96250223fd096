"""What a user's roles, as they are now, add up to.

A role that does not exist is ignored, so that whoever removes one need not look for its holders first; a user left
without any may do nothing. Within a role, a node must fit and the login be named; between roles one is enough, and what
one of them denies no other allows. Names are sorted, so the order of roles has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import is_
from typing import Final, TypeAlias

from teleconch.access.labels import Labels
from teleconch.access.options import grants, merged
from teleconch.access.traits import Traits, logins_of
from teleconch.resources.patterns import ANY
from teleconch.resources.role import Conditions, Role, Rule

_POLICIES_MAX: Final = 1024
_NONE: Final = frozenset[str]()


class Side:
    """One side of a role, compiled for the traits of one user. ``written`` are the logins as the role has them."""

    __slots__ = ("denies", "labels", "logins", "role", "written")

    def __init__(self, role: str, conditions: Conditions, denies: bool, traits: Traits) -> None:
        self.role: Final = role
        self.denies: Final = denies
        self.labels: Final = Labels(conditions.node_labels, traits)
        self.written: Final = {text: logins_of(text, traits) for text in conditions.logins}
        self.logins: Final = frozenset(login for logins in self.written.values() for login in logins)


Step: TypeAlias = tuple[Side, str | None]
"""A side of a role held against the labels of a node, and a label: of a side that allows, the one that keeps it from
doing so; of one that denies, the one by which it does; ``None`` without such."""


class Policy:
    """``roles`` and ``traits`` compiled once; see :func:`policy_of`."""

    def __init__(self, roles: tuple[Role, ...], traits: Traits) -> None:
        self.roles: Final = tuple(sorted(roles, key=lambda role: role.name))
        denying = [Side(role.name, role.deny, True, traits) for role in self.roles]
        allowing = [Side(role.name, role.allow, False, traits) for role in self.roles]
        self._sides = (
            *(side for side in denying if side.labels or side.logins),
            *(side for side in allowing if side.labels and side.logins),
        )
        self.options: Final = merged(role.options for role in self.roles)
        self.grants: Final = grants(self.options)
        self._allowed = _pairs(rule for role in self.roles for rule in role.allow.rules)
        self._denied = _pairs(rule for role in self.roles for rule in role.deny.rules)

    def walk(self, labels: Mapping[str, str]) -> Iterator[Step]:
        """Every side that bears on logins on a node with ``labels``, those that deny first."""
        for side in self._sides:
            yield side, side.labels.hit(labels) if side.denies else side.labels.missing(labels)

    def logins(self, labels: Mapping[str, str]) -> frozenset[str]:
        """The logins that the roles allow on a node with ``labels``. A node without any is not to be seen."""
        denied: set[str] = set()
        allowed: set[str] = set()
        for side, label in self.walk(labels):
            if not side.denies:
                if label is None:
                    allowed |= side.logins
            elif label is not None:
                return _NONE
            else:
                denied |= side.logins
        return frozenset(allowed - denied)

    def may(self, verb: str, resource: str) -> bool:
        """Whether the rules let a user do ``verb`` with the cluster's ``resource``."""
        return _has(self._allowed, verb, resource) and not _has(self._denied, verb, resource)

    @property
    def requestable(self) -> dict[str, frozenset[str]]:
        """The roles that may be asked for, and the roles whose holders may approve each."""
        found: dict[str, frozenset[str]] = {}
        for role in self.roles:
            for name in role.allow.request.roles:
                found[name] = found.get(name, frozenset()) | frozenset(role.allow.request.approvers)
        denied = {name for role in self.roles for name in role.deny.request.roles}
        return {name: approvers for name, approvers in found.items() if name not in denied}


_kept: dict[object, tuple[tuple[Role | None, ...], Policy]] = {}


def policy_of(names: tuple[str, ...], traits: Traits, roles: Mapping[str, Role]) -> Policy:
    """The policy of a user who holds ``names``; ``roles`` are those of the cluster, as they are now.

    It is kept until one of these roles is another value than it was.
    """
    now = tuple(map(roles.get, names))
    key = (names, tuple(traits.items()))
    kept = _kept.get(key)
    if kept is not None and all(map(is_, kept[0], now)):
        return kept[1]
    policy = Policy(tuple({role.name: role for role in now if role is not None}.values()), traits)
    if len(_kept) >= _POLICIES_MAX and key not in _kept:
        del _kept[next(iter(_kept))]
    _kept[key] = now, policy
    return policy


def _pairs(rules: Iterator[Rule]) -> frozenset[tuple[str, str]]:
    return frozenset((verb, resource) for rule in rules for verb in rule.verbs for resource in rule.resources)


def _has(pairs: frozenset[tuple[str, str]], verb: str, resource: str) -> bool:
    return not pairs.isdisjoint(((verb, resource), (ANY, resource), (verb, ANY), (ANY, ANY)))
