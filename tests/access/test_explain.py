"""Why something is allowed or refused, and what would have to change."""

from __future__ import annotations

import copy
from typing import Any

import attrs
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from teleconch.access.decide import permit_access
from teleconch.access.explain import Explanation, explain
from teleconch.access.kinds import Kind
from teleconch.access.labels import Labels
from teleconch.access.mend import Change
from teleconch.errors import AccessDenied, BadParameter
from teleconch.resources.documents import document, load_documents
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.role import BUILT_IN, Conditions, Options, Role
from teleconch.resources.text import yaml_text
from tests.worlds.roles import IDENTITIES, LABELS, LOGINS, NOW, ROLE_SETS, VALUES

JOE = SSHIdentity(
    user="joe",
    logins=("joe",),
    roles=("dev",),
    traits={"logins": ("joe",)},
    cluster="main",
    extensions=frozenset({"permit-pty", "permit-port-forwarding", "permit-agent-forwarding"}),
    valid_before=NOW + 1,
    serial=1,
    certificate=b"",
)
ANY = {"*": ("*",)}
STAGE = {"env": ("stage",)}


def explained(
    role: Role, login: str = "joe", labels: dict[str, str] | None = None, kind: Kind = Kind.SHELL, **of: Any
) -> Explanation:
    identity = attrs.evolve(JOE, **of)
    return explain(identity, login, "web1", labels or {}, kind, {**BUILT_IN, role.name: role}, NOW)


@pytest.mark.parametrize(
    ("role", "how", "line", "changes"),
    [
        (
            Role("dev", allow=Conditions(("joe",), STAGE)),
            {"labels": {"env": "prod"}},
            "role dev does not allow it, allow.node_labels.env: the node has env='prod'.",
            ["Add 'prod' to allow.node_labels.env of role dev."],
        ),
        (
            Role("dev", allow=Conditions(("joe",), STAGE)),
            {},
            "role dev does not allow it, allow.node_labels.env: the node has no label env.",
            ["Set labels.env of node web1 to 'stage'."],
        ),
        (
            Role("dev", allow=Conditions(("joe",), {"env": ("^s.*$",)})),
            {},
            "role dev does not allow it, allow.node_labels.env: the node has no label env.",
            ["Set labels.env of node web1 to a value that matches '^s.*$'."],
        ),
        (
            Role("dev", allow=Conditions(("root",), ANY)),
            {},
            "role dev does not allow it, allow.logins: the login joe is not among them.",
            ["Add 'joe' to allow.logins of role dev."],
        ),
        (
            Role("dev", allow=Conditions(("{{internal.logins}}",), ANY)),
            {"login": "root"},
            "certificate joe does not allow it, logins: the login root is not among them.",
            [
                "Add 'root' to traits.logins of user joe.",
                "joe logs in again for a certificate with root among its logins.",
            ],
        ),
        (
            Role("dev", allow=Conditions(("joe",), ANY), deny=Conditions(("joe",), {"env": ("pr*", "prod", "x")})),
            {"labels": {"env": "prod"}},
            "role dev denies it, deny.node_labels.env: the node has env='prod'.",
            [
                "Remove 'pr*' from deny.node_labels.env of role dev.",
                "Remove 'prod' from deny.node_labels.env of role dev.",
                "Remove 'joe' from deny.logins of role dev.",
            ],
        ),
        (
            Role("dev", allow=Conditions(("joe",), ANY)),
            {"roles": ("gone",)},
            "user joe does not allow it, roles: there is no role gone.",
            ["Add 'access' to roles of user joe."],
        ),
        (
            Role("dev", allow=Conditions(("joe",))),
            {},
            "role dev does not allow it, allow.node_labels: it names none for this user.",
            ["Add 'access' to roles of user joe."],
        ),
        (
            Role("dev", allow=Conditions(("joe",))),
            {"labels": {"env": "^a$"}},
            "role dev does not allow it, allow.node_labels: it names none for this user.",
            [r"Add '^\^a\$$' to allow.node_labels.env of role dev."],
        ),
        (
            Role("dev", Options(port_forwarding="local"), Conditions(("joe",), ANY)),
            {"kind": Kind.TCPIP_FORWARD},
            "role dev does not allow it, options.port_forwarding: local.",
            ["Set options.port_forwarding of role dev to 'yes'."],
        ),
        (
            Role("dev", allow=Conditions(("joe",), ANY)),
            {"kind": Kind.AGENT},
            "role dev does not allow it, options.forward_agent: it is not set.",
            ["Set options.forward_agent of role dev to 'yes'."],
        ),
        (
            Role("dev", allow=Conditions(("joe",), ANY)),
            {"kind": Kind.USER_RC},
            "certificate joe does not allow it, extensions: permit-user-rc is not among them.",
            ["joe logs in again for a certificate with permit-user-rc among its extensions."],
        ),
        (
            Role("dev", allow=Conditions(("joe",), ANY)),
            {"valid_before": NOW},
            "certificate joe denies it, valid_before: it has expired.",
            ["joe logs in again with `tsh login`."],
        ),
    ],
)
def test_what_is_told(role: Role, how: dict[str, Any], line: str, changes: list[str]) -> None:
    """Each reason names its line, and each change is a sentence."""
    found = explained(role, **how)
    assert not found.allowed
    assert found.sentence
    assert line in map(str, found.lines)
    assert list(map(str, found.changes)) == changes


def test_what_allows() -> None:
    """What is allowed names the line that allows it, and no change."""
    role = Role("dev", Options(port_forwarding="local"), Conditions(("joe",), STAGE))
    found = explained(role, labels={"env": "stage"}, kind=Kind.DIRECT_TCPIP)
    assert (found.allowed, found.sentence, found.changes) == (True, "", ())
    assert list(map(str, found.lines)) == [
        "role dev allows it, allow: it names the login joe and the labels of the node.",
        "role dev allows it, options.port_forwarding: local.",
    ]


def test_what_cannot_be_a_login() -> None:
    """No change lets anyone in as `*`."""
    with pytest.raises(BadParameter, match="Login"):
        explained(Role("dev"), login="*")


class Cluster:
    """What an administrator changes, line by line, in documents: not with the code under test."""

    def __init__(self, identity: SSHIdentity, labels: dict[str, str], roles: tuple[Role, ...], now: float) -> None:
        self.identity = identity
        self.labels = dict(labels)
        self.documents = {role.name: copy.deepcopy(document(role)) for role in (*BUILT_IN.values(), *roles)}
        self.now = now

    @property
    def roles(self) -> dict[str, Role]:
        text = "---\n".join(map(yaml_text, self.documents.values()))
        return {role.name: role for role in load_documents(text, "f") if isinstance(role, Role)}

    def make(self, change: Change) -> None:
        parts = change.line.split(".", 2)
        match change.where, parts[0]:
            case "certificate", "valid_before":
                self.identity = attrs.evolve(self.identity, valid_before=self.now + 3600)
            case "certificate", "logins":
                self.identity = attrs.evolve(self.identity, logins=(*self.identity.logins, change.value))
            case "certificate", "extensions":
                self.identity = attrs.evolve(self.identity, extensions=self.identity.extensions | {change.value})
            case "user", "roles":
                self.identity = attrs.evolve(self.identity, roles=(*self.identity.roles, change.value))
            case "user", "traits":
                traits = {**self.identity.traits}
                traits[parts[1]] = (*traits.get(parts[1], ()), change.value)
                self.identity = attrs.evolve(self.identity, traits=traits)
            case "node", "labels":
                value = change.value
                if value.startswith("^"):
                    value = next(each for each in VALUES if Labels({"x": (value,)}, {}).hit({"x": each}))
                self.labels[parts[1]] = value
            case "role", _:
                self._edit(self.documents[change.name]["spec"], parts, change)  # type: ignore[arg-type]
            case other:
                raise AssertionError(other)

    def _edit(self, spec: dict[str, Any], parts: list[str], change: Change) -> None:
        where = spec
        for part in parts[:-1]:
            where = where.setdefault(part, {})
        if change.do == "set":
            where[parts[-1]] = {"yes": True, "no": False}.get(change.value, change.value)
            return
        values = where.get(parts[-1], [])
        values = [values] if isinstance(values, str) else values
        if change.do == "add":
            where[parts[-1]] = [*values, change.value]
            return
        assert change.value in values
        where[parts[-1]] = [value for value in values if value != change.value]
        if not where[parts[-1]]:
            del where[parts[-1]]


@given(IDENTITIES, ROLE_SETS, LABELS, st.sampled_from(LOGINS), st.sampled_from(Kind))
def test_agrees_with_the_decision_and_the_change_allows(
    identity: SSHIdentity, roles: tuple[Role, ...], labels: dict[str, str], login: str, kind: Kind
) -> None:
    """Whatever is asked, the explanation says what the decision says; and after what it names it is allowed."""
    cluster = Cluster(identity, labels, roles, NOW)
    for _ in range(3):  # one round, but where the reader chooses a value that is denied
        refused, current = "", cluster.roles
        try:
            permit_access(cluster.identity, login, "web1", cluster.labels, current, NOW).check(kind)
        except AccessDenied as error:
            refused = str(error)
        found = explain(cluster.identity, login, "web1", cluster.labels, kind, current, NOW)
        assert (found.allowed, found.sentence) == (not refused, refused)
        assert bool(found.changes) == bool(refused)
        if found.allowed:
            assert any(line.allows and line.where == "role" for line in found.lines)
            assert not any(line.allows is False for line in found.lines)
            return
        assert any(not line.allows for line in found.lines) or not cluster.identity.roles
        event(f"{len(found.changes)} changes")
        for change in found.changes:
            assert str(change)
            cluster.make(change)
        if not any(change.value.startswith("^") and change.where == "node" for change in found.changes):
            permit_access(cluster.identity, login, "web1", cluster.labels, cluster.roles, NOW).check(kind)
    permit_access(cluster.identity, login, "web1", cluster.labels, cluster.roles, NOW).check(kind)


@given(IDENTITIES, ROLE_SETS, LABELS, st.sampled_from(LOGINS), st.sampled_from(Kind))
def test_the_sentence_tells_no_more(
    identity: SSHIdentity, roles: tuple[Role, ...], labels: dict[str, str], login: str, kind: Kind
) -> None:
    """What the refused user reads is the same whatever the node's labels, and names no role."""
    roles = tuple(attrs.evolve(role, name=f"secret-{role.name}") for role in roles)
    identity = attrs.evolve(identity, roles=tuple(f"secret-{name}" for name in identity.roles))
    by_name = {**BUILT_IN, **{role.name: role for role in roles}}
    found = explain(identity, login, "web1", labels, kind, by_name, NOW)
    elsewhere = explain(identity, login, "db1", {"env": "vault"}, kind, by_name, NOW)
    if not found.allowed and not elsewhere.allowed and "may not log in as" in found.sentence:
        assert found.sentence == elsewhere.sentence
    for word in ("secret", "web1", "vault", "stage", "env", "{{"):
        assert word not in found.sentence
