"""Documents of roles, as Teleport 4.2 writes them (version 3). Durations are as in ``8h`` and ``1h30m``; ``never``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import yaml

from teleconch.errors import BadParameter, quoted
from teleconch.resources.documents.reading import BOOKKEEPING, Fields, Reader, check_each, checked, plain
from teleconch.resources.durations import format_duration, parse_duration
from teleconch.resources.marked import is_null
from teleconch.resources.names import check_name
from teleconch.resources.role import OPTIONS, Conditions, Options, Requests, Role, Rule
from teleconch.resources.role_words import (
    CHOICES,
    check_choice,
    check_count,
    check_duration,
    check_label_name,
    check_label_value,
    check_resource,
    check_role_login,
    check_verb,
)
from teleconch.resources.times import rfc3339

ROLE_VERSION: Final = "v3"

_KUBERNETES: Final = "there is no access to Kubernetes here."
_DATABASES: Final = "there is no access to databases here."
_APPLICATIONS: Final = "there is no access to applications here."
_DESKTOPS: Final = "there is no access to desktops here."
_CONDITIONS_LEFT_OUT: Final = {
    "namespaces": BOOKKEEPING["namespace"],
    "kubernetes_groups": _KUBERNETES,
    "kubernetes_users": _KUBERNETES,
    "kubernetes_labels": _KUBERNETES,
    "kubernetes_resources": _KUBERNETES,
    "db_labels": _DATABASES,
    "db_names": _DATABASES,
    "db_users": _DATABASES,
    "db_roles": _DATABASES,
    "db_service_labels": _DATABASES,
    "app_labels": _APPLICATIONS,
    "aws_role_arns": _APPLICATIONS,
    "azure_identities": _APPLICATIONS,
    "gcp_service_accounts": _APPLICATIONS,
    "windows_desktop_labels": _DESKTOPS,
    "windows_desktop_logins": _DESKTOPS,
    "desktop_groups": _DESKTOPS,
    "cluster_labels": "there are no trusted clusters here.",
}
_OPTIONS_LEFT_OUT: Final = {
    "enhanced_recording": "programs are not traced here; what a session shows is recorded.",
    "max_kubernetes_connections": _KUBERNETES,
    "desktop_clipboard": _DESKTOPS,
    "desktop_directory_sharing": _DESKTOPS,
    "create_desktop_user": _DESKTOPS,
    "create_db_user": _DATABASES,
    "create_db_user_mode": _DATABASES,
}
_CONDITIONS: Final = ("logins", "node_labels", "rules", "request")
_NOT_BUILT: Final = ("where", "actions")
_WORDS: Final = {True: "yes", False: "no"}


def role_document(role: Role) -> dict[str, object]:
    """The plain data of one document."""
    spec: dict[str, object] = {
        "options": _plain_options(role.options),
        "allow": _plain_conditions(role.allow),
        "deny": _plain_conditions(role.deny),
    }
    return plain("role", {"name": role.name}, spec, ROLE_VERSION)


def _plain_options(options: Options) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in OPTIONS:
        value = getattr(options, name)
        if value is None:
            continue
        if name == "client_idle_timeout":
            value = format_duration(value) if value else "never"
        elif name == "max_session_ttl":
            value = format_duration(value)
        elif name == "port_forwarding" and value in _WORDS.values():
            value = value == "yes"
        elif name == "require_session_mfa" and options.session_mfa_window is not None:
            value = format_duration(options.session_mfa_window)
        found[name] = value
    return found


def _plain_conditions(conditions: Conditions) -> dict[str, object]:
    found: dict[str, object] = {}
    if conditions.logins:
        found["logins"] = list(conditions.logins)
    if conditions.node_labels:
        found["node_labels"] = {
            name: values[0] if len(values) == 1 else list(values) for name, values in conditions.node_labels.items()
        }
    if conditions.rules:
        found["rules"] = [{"resources": list(rule.resources), "verbs": list(rule.verbs)} for rule in conditions.rules]
    request = {"roles": list(conditions.request.roles), "approvers": list(conditions.request.approvers)}
    if request["roles"]:
        found["request"] = {name: names for name, names in request.items() if names}
    return found


def load_role(reader: Reader, top: Fields, before: int) -> Role | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name",), ("name",), (*BOOKKEEPING, "expires"))
    reader.leave_out(metadata, "metadata", BOOKKEEPING)
    name = checked(reader, metadata.get("name"), "metadata.name", lambda text: check_name(text, "Role"))
    end = reader.time(metadata.get("expires"), "metadata.expires")
    if end is not None:
        reader.note(
            metadata["expires"],
            f"metadata.expires is left out, so the role does not end {rfc3339(end)}: roles have no end here; remove it"
            f" then with `tctl rm role/{name}`.",
        )
    spec = {} if is_null(top["spec"]) else reader.fields(top["spec"], "spec", ("options", "allow", "deny"))
    options = _load_options(reader, _some(spec.get("options")))
    allow = _load_conditions(reader, _some(spec.get("allow")), "spec.allow")
    deny = _load_conditions(reader, _some(spec.get("deny")), "spec.deny")
    if len(reader.problems) > before or name is None or options is None or allow is None or deny is None:
        return None
    if allow.logins and not allow.node_labels:
        reader.note(
            top["spec"],
            f"role {name} allows logins on no node: spec.allow.node_labels names none. Write '*': '*' for any node,"
            " which Teleport took this for.",
        )
    return Role(name, options, allow, deny)


def _some(node: yaml.Node | None) -> yaml.Node | None:
    return None if node is None or is_null(node) else node


def _load_options(reader: Reader, node: yaml.Node | None) -> Options | None:
    if node is None:
        return Options()
    before = len(reader.problems)
    found = reader.fields(node, "spec.options", OPTIONS, also=tuple(_OPTIONS_LEFT_OUT))
    reader.leave_out(found, "spec.options", _OPTIONS_LEFT_OUT)
    given: dict[str, Any] = {}
    for name, value in found.items():
        if name in OPTIONS and not is_null(value):
            given |= _load_option(reader, name, value, f"spec.options.{name}")
    return None if len(reader.problems) > before else Options(**given)


def _load_option(reader: Reader, name: str, node: yaml.Node, where: str) -> dict[str, object]:
    if name in CHOICES:
        return {name: _word(reader, name, node, where)}
    if name in ("max_sessions", "max_connections"):
        count = reader.count(node, where)
        _tell(reader, node, lambda: check_count(where, count))
        return {name: count}
    if name in ("max_session_ttl", "client_idle_timeout"):
        return {name: _seconds(reader, node, where, never=name == "client_idle_timeout")}
    if name != "require_session_mfa" or _is_bool(node):
        return {name: reader.flag(node, where)}
    window = _seconds(reader, node, where, also="yes, no, or ")
    return {name: window is not None, "session_mfa_window": window}


def _is_bool(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":bool")


def _word(reader: Reader, name: str, node: yaml.Node, where: str) -> str | None:
    """One of the words of an option. YAML takes ``yes``, ``no`` and ``off`` for truths."""
    word: str | None
    if _is_bool(node):
        truth = reader.flag(node, where)
        word = "off" if name == "record" and not truth else _WORDS[bool(truth)]
    else:
        word = reader.text(node, where)
    _tell(reader, node, lambda: check_choice(where, word, CHOICES[name]))
    return word


def _seconds(reader: Reader, node: yaml.Node, where: str, *, never: bool = False, also: str = "") -> float | None:
    if not isinstance(node, yaml.ScalarNode):
        reader.problem(node, f"{where} must be {also}a duration like 30m or 8h.")
        return None
    if never and node.value == "never":
        return 0.0
    try:
        seconds = parse_duration(node.value)
    except BadParameter as e:
        more = " To set no limit, write never." if never else ""
        reader.problem(node, f"{where} must be {also}a duration: {e}{more}")
        return None
    _tell(reader, node, lambda: check_duration(where, seconds, never=never))
    return seconds


def _load_conditions(reader: Reader, node: yaml.Node | None, where: str) -> Conditions | None:
    if node is None:
        return Conditions()
    before = len(reader.problems)
    found = reader.fields(node, where, _CONDITIONS, also=tuple(_CONDITIONS_LEFT_OUT))
    reader.leave_out(found, where, _CONDITIONS_LEFT_OUT)
    logins = reader.texts(found.get("logins"), f"{where}.logins") or ()
    check_each(reader, found.get("logins"), logins, check_role_login)
    labels = _load_labels(reader, _some(found.get("node_labels")), f"{where}.node_labels")
    rules = _load_rules(reader, _some(found.get("rules")), f"{where}.rules")
    request = _load_request(reader, _some(found.get("request")), f"{where}.request")
    if len(reader.problems) > before:
        return None
    return Conditions(logins, labels, rules, request)


def _load_labels(reader: Reader, node: yaml.Node | None, where: str) -> dict[str, tuple[str, ...]]:
    if node is None:
        return {}
    labels: dict[str, tuple[str, ...]] = {}
    for name, values_node in reader.mapping(node, where).items():
        _tell(reader, values_node, partial(check_label_name, name))
        values = reader.texts(values_node, f"{where}.{name}")
        if values == ():
            reader.problem(values_node, f"{where}.{name} needs a value, or '*' for any.")
        check_each(reader, values_node, values, partial(check_label_value, name))
        labels[name] = values or ()
    return labels


def _load_rules(reader: Reader, node: yaml.Node | None, where: str) -> tuple[Rule, ...]:
    if node is None:
        return ()
    if not isinstance(node, yaml.SequenceNode):
        reader.problem(node, f"{where} must be a list of rules (lines like '- resources: [session]').")
        return ()
    rules = []
    for item in node.value:
        before = len(reader.problems)
        keys = ("resources", "verbs")
        found = reader.fields(item, f"a rule of {where}", keys, keys, _NOT_BUILT)
        for key in _NOT_BUILT:
            if key in found:
                reader.problem(found[key], f"{quoted(key)} of a rule is not built yet; take it out, or the whole rule.")
        resources = reader.texts(found.get("resources"), "resources")
        verbs = reader.texts(found.get("verbs"), "verbs")
        for key, values, check in (("resources", resources, check_resource), ("verbs", verbs, check_verb)):
            if values == ():
                reader.problem(found[key], f"{key} of a rule names none; write '*' for all.")
            check_each(reader, found.get(key), values, check)
        if len(reader.problems) == before:
            rules.append(Rule(resources or (), verbs or ()))
    return tuple(rules)


def _load_request(reader: Reader, node: yaml.Node | None, where: str) -> Requests:
    if node is None:
        return Requests()
    before = len(reader.problems)
    known = ("roles", "approvers") if where.startswith("spec.allow") else ("roles",)
    found = reader.fields(node, where, known, ("roles",))
    names = {key: reader.texts(found.get(key), f"{where}.{key}") or () for key in known}
    for key, values in names.items():
        check_each(reader, found.get(key), values, lambda name: check_name(name, "Role"))
    if names.get("approvers") and not names["roles"]:
        reader.problem(found["approvers"], f"{where}.approvers needs {where}.roles: name what may be asked for.")
    return Requests() if len(reader.problems) > before else Requests(**names)


def _tell(reader: Reader, node: yaml.Node, check: Callable[[], object]) -> None:
    try:
        check()
    except BadParameter as e:
        reader.problem(node, str(e))
