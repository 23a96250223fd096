"""Roles, labels and identities for property tests, drawn from few names so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from teleconch.resources.identity import SSHIdentity
from teleconch.resources.role import Conditions, Options, Requests, Role, Rule
from teleconch.resources.role_words import CHOICES, RESOURCES, VERBS

NOW = 1_800_000_000.0
ROLE_NAMES = ("dev", "ops", "db", "intern")
LOGINS = ("joe", "root", "deploy")
LABEL_NAMES = ("env", "team")
VALUES = ("stage", "prod", "prod-1", "a*c", "^x$", "")  # the last three may only be taken as they are
PATTERNS = ("*", "prod*", "^(stage|test)$", "^prod|stage$", "{{external.team}}", "{{external.team}}-1", "stage", "prod")
EXTENSIONS = ("permit-pty", "permit-port-forwarding", "permit-agent-forwarding", "permit-user-rc")


def _some(values: tuple[str, ...], **how: Any) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, **how).map(tuple)


DURATIONS = st.integers(1, 10**6).map(lambda quarter: quarter / 4)
OPTIONS = st.builds(
    lambda window, mfa, **given: Options(require_session_mfa=mfa, session_mfa_window=window if mfa else None, **given),
    window=st.none() | DURATIONS,
    mfa=st.none() | st.booleans(),
    max_session_ttl=st.none() | DURATIONS,
    forward_agent=st.none() | st.booleans(),
    permit_x11=st.none() | st.booleans(),
    client_idle_timeout=st.none() | st.just(0.0) | DURATIONS,
    disconnect_expired_cert=st.none() | st.booleans(),
    max_sessions=st.none() | st.integers(1, 100),
    max_connections=st.none() | st.integers(1, 100),
    **{name: st.none() | st.sampled_from(words) for name, words in CHOICES.items()},
)
RULES = st.builds(Rule, _some(RESOURCES, min_size=1, max_size=2), _some(VERBS, min_size=1, max_size=2))
LABELS = st.dictionaries(st.sampled_from(LABEL_NAMES), st.sampled_from(VALUES), max_size=2)
NODE_LABELS = st.dictionaries(st.sampled_from(LABEL_NAMES), _some(PATTERNS, min_size=1, max_size=3), max_size=2)


def _conditions(requests: st.SearchStrategy[Requests], labels: st.SearchStrategy[Any]) -> st.SearchStrategy[Conditions]:
    return st.builds(
        Conditions, _some((*LOGINS, "{{internal.logins}}"), max_size=3), labels, st.lists(RULES, max_size=2).map(tuple),
        requests,
    )  # fmt: skip


REQUESTS = st.builds(Requests, _some(ROLE_NAMES, min_size=1), _some(ROLE_NAMES)) | st.just(Requests())
ROLES = st.builds(
    Role,
    st.sampled_from(ROLE_NAMES),
    OPTIONS,
    _conditions(REQUESTS, st.just({"*": ("*",)}) | NODE_LABELS),
    st.just(Conditions()) | _conditions(st.builds(Requests, _some(ROLE_NAMES)), NODE_LABELS),
)
ROLE_SETS = st.lists(ROLES, max_size=4, unique_by=lambda role: role.name).map(tuple)
IDENTITIES = st.builds(
    SSHIdentity,
    user=st.just("joe"),
    logins=_some(LOGINS),
    roles=_some((*ROLE_NAMES, "gone")),
    traits=st.fixed_dictionaries(
        {},
        optional={"logins": _some(LOGINS), "team": _some((*VALUES, "*", "^.*$", "{{external.x}}"))},
    ),
    cluster=st.just("main"),
    extensions=_some(EXTENSIONS).map(frozenset),
    valid_before=st.sampled_from((NOW + 1, NOW)),
    serial=st.just(1),
    certificate=st.just(b""),
)
