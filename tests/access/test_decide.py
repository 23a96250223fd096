"""Decisions by certificate and roles."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from teleconch.access.decide import permit_access, permit_api, permit_dial
from teleconch.access.kinds import Kind
from teleconch.access.options import grants, merged
from teleconch.access.roles import Policy, policy_of
from teleconch.errors import AccessDenied
from teleconch.resources.documents import load_documents
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node
from teleconch.resources.role import BUILT_IN, Conditions, Options, Requests, Role, Rule
from teleconch.resources.role_words import RESOURCES, VERBS
from tests.resources.test_role_documents import ADMIN
from tests.worlds.roles import IDENTITIES, LABELS, LOGINS, NOW, OPTIONS, ROLE_SETS, ROLES

JOE = SSHIdentity(
    user="joe",
    logins=("joe", "root"),
    roles=("dev",),
    traits={"logins": ("joe",), "team": ("db",)},
    cluster="main",
    extensions=frozenset({"permit-pty", "permit-port-forwarding", "permit-agent-forwarding"}),
    valid_before=NOW + 1,
    serial=1,
    certificate=b"",
)
ANY = {"*": ("*",)}


def roles_of(*roles: Role) -> dict[str, Role]:
    return {**BUILT_IN, **{role.name: role for role in roles}}


def holding(*names: str, **changes: Any) -> SSHIdentity:
    return attrs.evolve(JOE, roles=names, **changes)


def allowed(identity: SSHIdentity, login: str, labels: dict[str, str], *roles: Role) -> frozenset[Kind]:
    """What is granted; nothing for a refusal."""
    try:
        return permit_access(identity, login, "uuid", labels, roles_of(*roles), NOW).kinds
    except AccessDenied:
        return frozenset()


EXAMPLE = """\
kind: role
version: v3
metadata:
  name: example-role
spec:
  allow:
    logins: [joe]
    node_labels:
      'env': 'stage'
  deny:
    node_labels:
      # multiple labels are interpreted as an "or" operation.  in this case
      # Teleport will deny access to any node labeled as 'database' or 'backup'
      'workload': ['database', 'backup']
"""


@pytest.mark.parametrize(
    ("labels", "may"),
    [
        ({"env": "stage"}, True),
        ({"env": "stage", "workload": "web"}, True),
        ({"env": "stage", "workload": "database"}, False),
        ({"env": "stage", "workload": "backup"}, False),
        ({"env": "prod"}, False),
        ({}, False),
    ],
)
def test_the_documents_example(labels: dict[str, str], may: bool) -> None:
    """The role of Teleport's documents: all nodes with env=stage but those with the workload database or backup."""
    (role,) = load_documents(EXAMPLE, "f")
    assert isinstance(role, Role)
    assert bool(allowed(holding("example-role"), "joe", labels, role)) == may


def test_the_documents_admin() -> None:
    """Of the documents' admin: its logins, its regular expression, its rules."""
    (role,) = load_documents(ADMIN, "f")
    assert isinstance(role, Role)
    for environment in ("test", "staging"):
        for login in ("root", "joe"):
            assert allowed(holding("admin"), login, {"environment": environment}, role)
    for environment in ("testing", "prod", "prestaging"):
        assert not allowed(holding("admin"), "root", {"environment": environment}, role)
    policy = Policy((role,), {})
    assert policy.may("read", "session")
    assert policy.may("list", "session")
    assert not policy.may("delete", "session")
    assert policy.may("update", "role")
    assert not policy.may("read", "user")
    permit = permit_access(holding("admin"), "root", "uuid", {"environment": "test"}, roles_of(role), NOW)
    assert permit.options.max_session_ttl == 8 * 3600
    assert permit.options.disconnect_expired_cert is False
    assert permit.options.client_idle_timeout == 0
    assert {Kind.AGENT, Kind.DIRECT_TCPIP, Kind.TCPIP_FORWARD} <= permit.kinds


INTERN = Role("intern", allow=Conditions(("joe",), {"env": ("stage",)}))


def test_within_a_role_and_between_roles() -> None:
    """A role's login goes with its own nodes only."""
    ops = Role("ops", allow=Conditions(("root",), {"env": ("prod",)}))
    both = holding("intern", "ops")
    assert allowed(both, "joe", {"env": "stage"}, INTERN, ops)
    assert allowed(both, "root", {"env": "prod"}, INTERN, ops)
    assert not allowed(both, "joe", {"env": "prod"}, INTERN, ops)
    assert not allowed(both, "root", {"env": "stage"}, INTERN, ops)


def test_denied_logins() -> None:
    """A login that one role denies no other allows, on any node."""
    deny = Role("dev", deny=Conditions(("root",)))
    admin = holding("admin", "dev", traits={"logins": ("joe", "root")})
    assert allowed(admin, "joe", {}, deny)
    assert not allowed(admin, "root", {}, deny)


def test_both_certificate_and_roles() -> None:
    """A login is in the certificate and in the roles as they are now; an expired certificate is nothing."""
    dev = Role("dev", allow=Conditions(("joe", "deploy"), ANY))
    assert allowed(JOE, "joe", {}, dev)
    assert not allowed(JOE, "root", {}, dev)
    with pytest.raises(AccessDenied, match="not for the login deploy; log in again"):
        permit_access(JOE, "deploy", "uuid", {}, roles_of(dev), NOW)
    with pytest.raises(AccessDenied, match="expired"):
        permit_access(JOE, "joe", "uuid", {}, roles_of(dev), NOW + 1)


def test_roles_that_are_gone() -> None:
    """A role that was removed gives nothing; without any, the user is told so."""
    gone = holding("gone", "dev")
    assert allowed(gone, "joe", {}, Role("dev", allow=Conditions(("joe",), ANY)))
    for roles in ({}, BUILT_IN):
        with pytest.raises(AccessDenied, match="joe has no role that exists"):
            permit_access(gone, "joe", "uuid", {}, roles, NOW)
        with pytest.raises(AccessDenied, match="no role that exists"):
            permit_api(gone, roles, NOW)
        with pytest.raises(AccessDenied, match="no role that exists"):
            permit_dial(gone, Node("u", "web1", "main", None), roles, NOW)


def test_a_role_that_changes() -> None:
    """The next decision sees a role as it is then, though the last one was kept."""
    before, after = (Role("dev", allow=Conditions((login,), ANY)) for login in ("joe", "root"))
    assert policy_of(("dev",), {}, {"dev": before}) is policy_of(("dev",), {}, {"dev": before})
    assert allowed(JOE, "joe", {}, before)
    assert not allowed(JOE, "joe", {}, after)
    assert allowed(JOE, "root", {}, after)
    with pytest.raises(AccessDenied):
        permit_access(JOE, "root", "uuid", {}, {}, NOW)
    other_traits = attrs.evolve(JOE, traits={"logins": ("root",)})
    own = Role("dev", allow=Conditions(("{{internal.logins}}",), ANY))
    assert allowed(JOE, "joe", {}, own)
    assert not allowed(other_traits, "joe", {}, own)


def test_a_refusal_tells_no_more_than_one_may_know() -> None:
    """The sentence names no role and no label, and is the same for a node that the user may not see."""
    secret = Role("secret", allow=Conditions(("joe",), {"env": ("vault",)}), deny=Conditions(("root",)))
    said = set()
    for labels in ({"env": "vault"}, {"env": "prod"}, {}):
        with pytest.raises(AccessDenied) as caught:
            permit_access(holding("secret"), "root", "uuid", labels, roles_of(secret), NOW)
        said.add(str(caught.value))
    (sentence,) = said
    assert sentence == "joe may not log in as root on this host; ask the administrator of the cluster main."


def test_dial_and_api() -> None:
    """A proxy dials the nodes that the user may see, and no other."""
    stage, prod = (Node("u", "web1", "main", None, labels={"env": env}) for env in ("stage", "prod"))
    joe = holding("intern")
    assert permit_dial(joe, stage, roles_of(INTERN), NOW).node == stage
    with pytest.raises(AccessDenied, match="no such host that joe may log in to") as caught:
        permit_dial(joe, prod, roles_of(INTERN), NOW)
    assert "web1" not in str(caught.value)
    with pytest.raises(AccessDenied, match="no such host"):  # a login of the role's that the certificate lacks
        permit_dial(attrs.evolve(joe, logins=("root",)), stage, roles_of(INTERN), NOW)
    with pytest.raises(AccessDenied, match="belongs to the cluster leaf"):
        permit_dial(joe, attrs.evolve(stage, cluster="leaf"), roles_of(INTERN), NOW)
    assert permit_api(joe, roles_of(INTERN), NOW).identity == joe


def test_built_in() -> None:
    """An admin may do everything, an auditor only read, and `access` is what there was before there were roles."""
    admin, auditor, access = (Policy((BUILT_IN[name],), JOE.traits) for name in ("admin", "auditor", "access"))
    for verb in VERBS:
        for resource in RESOURCES:
            assert admin.may(verb, resource)
            reads = verb in ("list", "read")
            assert auditor.may(verb, resource) == (reads and resource in ("event", "session", "ssh_session"))
            assert access.may(verb, resource) == (reads and resource == "node")
    assert auditor.logins({}) == frozenset()
    assert access.logins({}) == admin.logins({"env": "prod"}) == {"joe"}
    everything = frozenset({"permit-pty", "permit-user-rc", "permit-port-forwarding", "permit-agent-forwarding"})
    assert allowed(holding("access", extensions=everything), "joe", {}) == set(Kind)


def test_rules() -> None:
    """A rule that denies wins over one that allows, stars included."""
    role = Role(
        "dev",
        allow=Conditions(rules=(Rule(("*",), ("list", "read")), Rule(("user",), ("*",)))),
        deny=Conditions(rules=(Rule(("token",), ("*",)), Rule(("*",), ("delete",)))),
    )
    policy = Policy((role, BUILT_IN["admin"]), {})
    assert policy.may("read", "lock")
    assert policy.may("create", "user")
    assert not policy.may("delete", "user")
    assert not policy.may("list", "token")


def test_requests() -> None:
    """What may be asked for, and who approves; a role that is denied may not be asked for."""
    one = Role("a", allow=Conditions(request=Requests(("ops", "db"), ("lead",))))
    two = Role("b", allow=Conditions(request=Requests(("ops",), ("boss",))))
    three = Role("c", deny=Conditions(request=Requests(("db",))))
    assert Policy((one, two), {}).requestable == {"ops": {"lead", "boss"}, "db": {"lead"}}
    assert Policy((one, two, three), {}).requestable == {"ops": {"lead", "boss"}}


@pytest.mark.parametrize(
    ("each", "together"),
    [
        ((Options(max_session_ttl=60), Options(max_session_ttl=30), Options()), Options(max_session_ttl=30)),
        ((Options(client_idle_timeout=0), Options(client_idle_timeout=30)), Options(client_idle_timeout=30)),
        ((Options(client_idle_timeout=0), Options()), Options(client_idle_timeout=0)),
        ((Options(forward_agent=True), Options(forward_agent=False)), Options(forward_agent=True)),
        ((Options(port_forwarding="no"), Options(port_forwarding="yes")), Options(port_forwarding="yes")),
        ((Options(port_forwarding="local"), Options(port_forwarding="remote")), Options(port_forwarding="yes")),
        ((Options(port_forwarding="no"), Options()), Options(port_forwarding="no")),
        ((Options(file_copy="none"), Options(file_copy="upload")), Options(file_copy="upload")),
        ((Options(file_copy="download"), Options(file_copy="upload")), Options(file_copy="both")),
        ((Options(permit_x11=False), Options(permit_x11=True)), Options(permit_x11=True)),
        (
            (Options(disconnect_expired_cert=True), Options(disconnect_expired_cert=False)),
            Options(disconnect_expired_cert=True),
        ),
        ((Options(record="off"), Options(record="best_effort")), Options(record="best_effort")),
        ((Options(record="strict"), Options(record="best_effort")), Options(record="strict")),
        ((Options(max_sessions=3), Options(max_sessions=2)), Options(max_sessions=2)),
        ((Options(max_connections=3), Options(max_connections=10)), Options(max_connections=3)),
        ((Options(cert_format="oldssh"), Options(cert_format="standard")), Options(cert_format="oldssh")),
        (
            (Options(require_session_mfa=True, session_mfa_window=60), Options(require_session_mfa=False)),
            Options(require_session_mfa=True, session_mfa_window=60),
        ),
        (
            (Options(require_session_mfa=True, session_mfa_window=60), Options(require_session_mfa=True)),
            Options(require_session_mfa=True),
        ),
        ((), Options()),
    ],
)
def test_how_options_combine(each: tuple[Options, ...], together: Options) -> None:
    """As Teleport's documents say, in any order."""
    for order in permutations(each):
        assert merged(order) == together


@given(st.lists(OPTIONS, max_size=3))
def test_combining_is_the_same_in_any_order(each: list[Options]) -> None:
    """No role comes first; one role is itself."""
    assert len({merged(order) for order in permutations(each)}) == 1
    for options in each:
        assert merged((options,)) == merged((options, options)) == options


def says(written: str, value: str, identity: SSHIdentity) -> bool:
    """Whether a value in a role means the ``value`` of a label, said without the code under test."""
    if "{{external.team}}" in written:
        return value in [written.replace("{{external.team}}", team) for team in identity.traits.get("team", ()) if team]
    return {
        "*": True,
        "prod*": value.startswith("prod"),
        "^(stage|test)$": value in ("stage", "test"),
        "^prod|stage$": value in ("prod", "stage"),
    }.get(written, written == value)


def names(conditions: Conditions, login: str, identity: SSHIdentity) -> bool:
    own = "{{internal.logins}}" in conditions.logins and login in identity.traits.get("logins", ())
    return own or login in conditions.logins


def fits(conditions: Conditions, labels: dict[str, str], identity: SSHIdentity) -> list[bool]:
    """For each label of a side of a role, whether the node has it so."""
    return [
        name == "*" or (name in labels and any(says(written, labels[name], identity) for written in values))
        for name, values in conditions.node_labels.items()
    ]


@given(IDENTITIES, ROLE_SETS, LABELS, st.sampled_from(LOGINS))
def test_deny_wins(identity: SSHIdentity, roles: tuple[Role, ...], labels: dict[str, str], login: str) -> None:
    """A login is allowed if one role names it and the node, unless any role denies the one or the other."""
    held = [role for role in roles if role.name in identity.roles]
    denied = any(names(role.deny, login, identity) or any(fits(role.deny, labels, identity)) for role in held)
    named = any(
        names(role.allow, login, identity) and role.allow.node_labels and all(fits(role.allow, labels, identity))
        for role in held
    )
    policy = policy_of(identity.roles, identity.traits, roles_of(*roles))
    assert (login in policy.logins(labels)) == (named and not denied)
    alive = identity.valid_before > NOW and login in identity.logins
    assert bool(allowed(identity, login, labels, *roles)) == (named and not denied and alive)


@given(IDENTITIES, ROLE_SETS, LABELS, st.sampled_from(LOGINS), ROLES)
def test_a_role_more_takes_nothing_away(
    identity: SSHIdentity, roles: tuple[Role, ...], labels: dict[str, str], login: str, more: Role
) -> None:
    """A user with one role more can do what they could, but for its deny and its stricter options."""
    assume(more.name not in [role.name for role in roles] and more.name not in identity.roles)
    wider = attrs.evolve(identity, roles=(*identity.roles, more.name))
    before = allowed(identity, login, labels, *roles)
    harmless = attrs.evolve(more, deny=Conditions(), options=Options())
    assert before <= allowed(wider, login, labels, *roles, harmless)
    without_deny = attrs.evolve(more, deny=Conditions())
    after = allowed(wider, login, labels, *roles, without_deny)
    assert bool(before) <= bool(after)
    policy = policy_of(identity.roles, identity.traits, roles_of(*roles))
    if before and policy.grants <= grants(merged((policy.options, more.options))):
        assert before <= after
    rules = policy_of(wider.roles, wider.traits, roles_of(*roles, without_deny))
    assert all(rules.may(*each) for each in (("read", "node"), ("list", "user")) if policy.may(*each))


@given(IDENTITIES, ROLE_SETS, LABELS)
def test_order_has_no_effect(identity: SSHIdentity, roles: tuple[Role, ...], labels: dict[str, str]) -> None:
    """Neither in the certificate nor in the cluster."""
    turned = attrs.evolve(identity, roles=identity.roles[::-1])
    for login in LOGINS:
        assert allowed(identity, login, labels, *roles) == allowed(turned, login, labels, *roles[::-1])
    one, other = (Policy(order, identity.traits) for order in (roles, roles[::-1]))
    assert (one.options, one.requestable) == (other.options, other.requestable)
