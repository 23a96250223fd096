"""A role: which logins on which nodes, with what, and which resources of the cluster. Teleport's ``role`` of version 3.

Everything is denied that no role allows, and whatever a role denies is denied. How several roles combine is decided in
``access/roles.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import field, fields, frozen

from teleconch.errors import BadParameter, quoted
from teleconch.resources.names import check_name
from teleconch.resources.patterns import ANY
from teleconch.resources.role_words import (
    CHOICES,
    CertFormat,
    FileCopy,
    PortForwarding,
    Record,
    check_choice,
    check_count,
    check_duration,
    check_label_name,
    check_label_value,
    check_resource,
    check_role_login,
    check_verb,
)


@frozen
class Options:
    """What sessions may do and for how long. ``None``: the role does not say.

    Durations are seconds. A ``client_idle_timeout`` of 0 is never. ``session_mfa_window`` is how long one touch counts,
    where ``require_session_mfa``; without it, each session asks.
    """

    max_session_ttl: float | None = None
    forward_agent: bool | None = None
    port_forwarding: PortForwarding | None = None
    file_copy: FileCopy | None = None
    permit_x11: bool | None = None
    client_idle_timeout: float | None = None
    disconnect_expired_cert: bool | None = None
    cert_format: CertFormat | None = None
    record: Record | None = None
    max_sessions: int | None = None
    max_connections: int | None = None
    require_session_mfa: bool | None = None
    session_mfa_window: float | None = None

    def __attrs_post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("max_session_ttl", "session_mfa_window"):
            check_duration(name, getattr(self, name))
        check_duration("client_idle_timeout", self.client_idle_timeout, never=True)
        for name in ("max_sessions", "max_connections"):
            check_count(name, getattr(self, name))
        if self.session_mfa_window is not None and not self.require_session_mfa:
            raise BadParameter("session_mfa_window needs require_session_mfa.")


OPTIONS: Final = tuple(each.name for each in fields(Options) if each.name != "session_mfa_window")
"""The options by their names in documents, where ``require_session_mfa`` is yes, no or the window."""


@frozen
class Rule:
    """Each of ``verbs`` with each of ``resources``; ``*`` is all of them."""

    resources: tuple[str, ...]
    verbs: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        if not self.resources or not self.verbs:
            raise BadParameter("A rule needs resources and verbs.")
        for resource in self.resources:
            check_resource(resource)
        for verb in self.verbs:
            check_verb(verb)


@frozen
class Requests:
    """``roles`` may be asked for; whoever holds one of ``approvers`` may approve it, beside those whose rules let them
    update access requests."""

    roles: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        for role in (*self.roles, *self.approvers):
            check_name(role, "Role")
        if self.approvers and not self.roles:
            raise BadParameter("request.approvers needs request.roles: name the roles that may be asked for.")


def _labels(value: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(values) for name, values in value.items()}


@frozen
class Conditions:
    """What one side of a role, ``allow`` or ``deny``, names. A label has one of its values; ``'*': '*'`` is any
    node."""

    logins: tuple[str, ...] = ()
    node_labels: Mapping[str, tuple[str, ...]] = field(factory=dict, converter=_labels)
    rules: tuple[Rule, ...] = ()
    request: Requests = Requests()

    def __attrs_post_init__(self) -> None:
        for login in self.logins:
            check_role_login(login)
        for name, values in self.node_labels.items():
            check_label_name(name)
            if not values:
                raise BadParameter(f"The label {quoted(name)} needs a value, or '*' for any.")
            for value in values:
                check_label_value(name, value)


@frozen
class Role:
    """See the module."""

    name: str
    options: Options = Options()
    allow: Conditions = Conditions()
    deny: Conditions = Conditions()

    def __attrs_post_init__(self) -> None:
        check_name(self.name, "Role")
        if self.deny.request.approvers:
            raise BadParameter("deny.request has roles only: approvers stand in allow.request.")


_EVERYTHING: Final = Options(forward_agent=True, port_forwarding="yes", file_copy="both", permit_x11=True)
_OWN_LOGINS: Final = ("{{internal.logins}}",)
_ANY_NODE: Final = {ANY: (ANY,)}

BUILT_IN: Final[Mapping[str, Role]] = {
    each.name: each
    for each in (
        Role("admin", _EVERYTHING, Conditions(_OWN_LOGINS, _ANY_NODE, (Rule((ANY,), (ANY,)),))),
        Role("auditor", allow=Conditions(rules=(Rule(("event", "session", "ssh_session"), ("list", "read")),))),
        Role("access", _EVERYTHING, Conditions(_OWN_LOGINS, _ANY_NODE, (Rule(("node",), ("list", "read")),))),
    )
}
"""The roles that every cluster has. ``access`` is what each user could do before there were roles."""
