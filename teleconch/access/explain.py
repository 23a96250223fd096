"""Why a user may or may not do something, for whoever may read roles: each line that bears on it, and what to change.

It goes the way of the decision: the same walk over the same sides of roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from teleconch.access.decide import permit_access
from teleconch.access.kinds import NEEDS, Kind
from teleconch.access.mend import Asked, Change, Where, changes_for
from teleconch.access.options import grants, option_for
from teleconch.access.roles import Policy, policy_of
from teleconch.errors import AccessDenied, quoted
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.names import check_login
from teleconch.resources.patterns import ANY
from teleconch.resources.role import Options, Role


@frozen
class Line:
    """What one ``line`` of what ``where`` and ``name`` name says. ``allows`` is ``None`` where it neither allows nor
    denies."""

    where: Where
    name: str
    line: str
    allows: bool | None
    says: str

    def __str__(self) -> str:
        does = "does not allow" if self.allows is None else "allows" if self.allows else "denies"
        return f"{self.where} {self.name} {does} it, {self.line}: {self.says}"


@frozen
class Explanation:
    """``sentence`` is what a refused user reads, and all that they may know. ``changes``, made together, allow it."""

    allowed: bool
    sentence: str
    lines: tuple[Line, ...]
    changes: tuple[Change, ...]


def explain(
    identity: SSHIdentity,
    login: str,
    node: str,
    labels: Mapping[str, str],
    kind: Kind,
    roles: Mapping[str, Role],
    now: float,
) -> Explanation:
    """Whether ``identity`` may ask for ``kind`` as ``login`` on ``node``, a name for the reader, and why.

    The rest as for ``decide.permit_access``. BadParameter for what cannot be a login.
    """
    check_login(login)
    sentence = ""
    try:
        permit_access(identity, login, node, labels, roles, now).check(kind)
    except AccessDenied as error:
        sentence = str(error)
    policy = policy_of(identity.roles, identity.traits, roles)
    lines = (
        *_of_certificate(identity, login, kind, now),
        *_of_absent(identity, roles),
        *_of_sides(policy, login, labels),
        *_of_options(policy, kind),
    )
    changes = changes_for(Asked(identity, login, node, labels, kind, roles, now)) if sentence else ()
    return Explanation(not sentence, sentence, lines, changes)


def _of_certificate(identity: SSHIdentity, login: str, kind: Kind, now: float) -> Iterator[Line]:
    extension = NEEDS[kind].extension
    if now >= identity.valid_before:
        yield Line("certificate", identity.user, "valid_before", False, "it has expired.")
    if login not in identity.logins:
        yield Line("certificate", identity.user, "logins", None, f"the login {login} is not among them.")
    if extension is not None and extension not in identity.extensions:
        yield Line("certificate", identity.user, "extensions", None, f"{extension} is not among them.")


def _of_absent(identity: SSHIdentity, roles: Mapping[str, Role]) -> Iterator[Line]:
    for name in sorted(set(identity.roles)):
        if name not in roles:
            yield Line("user", identity.user, "roles", None, f"there is no role {name}.")


def _of_sides(policy: Policy, login: str, labels: Mapping[str, str]) -> Iterator[Line]:
    walked = set()
    for side, label in policy.walk(labels):
        named = login in side.logins
        if side.denies:
            if label is not None:
                says = f"the node has {_shown(labels, label)}."
                yield Line("role", side.role, f"deny.node_labels.{label}", False, says)
            if named:
                yield Line("role", side.role, "deny.logins", False, f"the login {login} is among them.")
            continue
        walked.add(side.role)
        if label is not None:
            says = f"the node has {_shown(labels, label)}."
            yield Line("role", side.role, f"allow.node_labels.{label}", None, says)
        if not named:
            yield Line("role", side.role, "allow.logins", None, f"the login {login} is not among them.")
        elif label is None:
            yield Line("role", side.role, "allow", True, f"it names the login {login} and the labels of the node.")
    for role in policy.roles:
        if role.name not in walked:
            line = "node_labels" if not role.allow.node_labels else "logins"
            yield Line("role", role.name, f"allow.{line}", None, "it names none for this user.")


def _shown(labels: Mapping[str, str], label: str) -> str:
    if label == ANY:
        return "any labels"
    return f"{label}={quoted(labels[label])}" if label in labels else f"no label {label}"


def _of_options(policy: Policy, kind: Kind) -> Iterator[Line]:
    """What each role says of the option that ``kind`` needs; where none says anything, that it is not there."""
    needed = NEEDS[kind].grants
    if not needed:
        return
    option = option_for(needed)
    silent = getattr(policy.options, option) is None
    for role in policy.roles:
        said = getattr(role.options, option)
        if said is not None or silent:
            does = needed <= grants(Options(**{option: said}))
            word = "it is not set" if said is None else {True: "yes", False: "no"}.get(said, said)
            yield Line("role", role.name, f"options.{option}", does or None, f"{word}.")
