"""Users, nodes and tokens as YAML or JSON documents, in the form of Teleport's ``tctl get`` and ``tctl create``.

::

    kind: user                      kind: node                            kind: token
    version: v2                     version: v2                           version: v2
    metadata:                       metadata:                             metadata:
      name: joe                       name: 52e3e46a-...  (UUID)            name: <the token>
    spec:                             labels: {os: linux}                   expires: '2026-11-22T20:55:07Z'
      roles: [user]                   expires: '...'                      spec:
      traits:                       spec:                                   roles: [node]
        logins: [joe, root]           hostname: web-1                       user: joe   (sign-up tokens only)
                                      cluster: main
                                      addr: 10.1.0.5:3022
                                      public_addr: [web-1.example.com]
                                      version: 0.1.0
                                      roles: [node]
                                    status:
                                      state: online   (or offline)
                                      last_seen: '...'

A token's value is its name: a document of a token holds a secret. Times are RFC 3339, written in UTC.

Documents printed by Teleport 4.2 are read as well. Keys that have no meaning here are left out, each with a note;
``null`` is an empty list; a host's roles may be in any case (``Node``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import yaml

from teleconch.errors import BadParameter, quoted
from teleconch.resources.marked import MarkedReader, is_null, suggestion
from teleconch.resources.names import check_login, check_name, check_user_name, check_uuid
from teleconch.resources.node import Node, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.text import yaml_text
from teleconch.resources.times import rfc3339
from teleconch.resources.token import HOST_ROLES, SIGNUP, Token
from teleconch.resources.user import DEFAULT_ROLE, User

Resource: TypeAlias = User | NodeStatus | Token
VERSION: Final = "v2"


def document(resource: Resource) -> dict[str, object]:
    """The plain data of one document. A token's document shows its value."""
    if isinstance(resource, User):
        traits = {name: list(values) for name, values in resource.traits.items()}
        return _document("user", {"name": resource.name}, {"roles": list(resource.roles), "traits": traits})
    if isinstance(resource, Token):
        metadata: dict[str, object] = {"name": resource.value.reveal()}
        if resource.expires is not None:
            metadata["expires"] = rfc3339(resource.expires)
        spec: dict[str, object] = {"roles": list(resource.roles)}
        if resource.user is not None:
            spec["user"] = resource.user
        return _document("token", metadata, spec)
    node = resource.node
    return {
        **_document(
            "node",
            {"name": node.uuid, "labels": dict(node.labels), "expires": rfc3339(resource.expires)},
            {
                "hostname": node.nodename,
                "cluster": node.cluster,
                **({} if node.addr is None else {"addr": node.addr}),
                "public_addr": list(node.public_addrs),
                "version": node.version,
                "roles": list(node.roles),
            },
        ),
        "status": {
            "state": "online" if resource.online else "offline",
            "last_seen": rfc3339(resource.last_seen),
        },
    }


def dump_documents(resources: Iterable[Resource]) -> str:
    """YAML documents, separated by ``---``."""
    return "---\n".join(yaml_text(document(resource)) for resource in resources)


def load_documents(
    text: str, filename: str, left_out: list[str] | None = None, now: float = 0.0
) -> tuple[Resource, ...]:
    """The resources that YAML documents (or a JSON object, or a list of them) describe.

    ConfigError with every problem and its line; the problems name ``filename``. ``left_out`` gets a line for each thing
    that is not taken over. ``now`` (epoch seconds) decides which users have expired.
    """
    reader = _Reader(filename, now)
    documents: list[yaml.Node] = []
    for node in reader.compose(text):
        documents += node.value if isinstance(node, yaml.SequenceNode) else [node]
    loaded = [_load(reader, node) for node in documents]
    reader.finish()
    if left_out is not None:
        left_out += [f"{file}:{line}: {sentence}" for file, line, sentence in sorted(reader.notes)]
    return tuple(resource for resource in loaded if resource is not None)


class _Reader(MarkedReader):
    def __init__(self, filename: str, now: float) -> None:
        super().__init__(filename)
        self.now = now

    def leave_out(self, found: dict[str, yaml.Node], where: str, reasons: Mapping[str, str]) -> None:
        """Note the keys in ``found`` that ``reasons`` names."""
        for key, reason in reasons.items():
            if key in found:
                self.note(found[key], f"{where}.{key} is left out: {reason}")


def _document(kind: str, metadata: dict[str, object], spec: dict[str, object]) -> dict[str, object]:
    return {"kind": kind, "version": VERSION, "metadata": metadata, "spec": spec}


def _load(reader: _Reader, node: yaml.Node) -> Resource | None:
    """Read one document. ``None`` if it has problems, which ``reader`` then holds."""
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return None  # nothing between two `---` lines
    before = len(reader.problems)
    top = reader.fields(node, "the document", _TOP, ("kind", "version", "metadata", "spec"))
    kind = reader.text(top.get("kind"), "kind")
    version = reader.text(top.get("version"), "version")
    if version not in (None, VERSION) and kind not in _OF_TELEPORT:
        reader.problem(top["version"], f"version {quoted(version)} is not known; this is {VERSION}.")
    if kind in _OF_TELEPORT:
        reader.problem(
            top["kind"], f"documents of kind {quoted(kind)} are not read here: take this one out of the file."
        )
    elif kind is not None and kind not in _LOADERS:
        known = suggestion(kind, _LOADERS) or f"; known: {', '.join(_LOADERS)}."
        reader.problem(top["kind"], f"there are no documents of kind {quoted(kind)}{known}")
    if kind not in _LOADERS or "metadata" not in top or "spec" not in top:
        return None
    if kind == "node" and "status" not in top:
        reader.note(node, "a node is left out: nodes register themselves when they start. Invite one: tctl nodes add")
        return None
    if kind != "node" and "status" in top:
        reader.problem(top["status"], f"unknown key 'status' in a {kind}.")
    try:
        return _LOADERS[kind](reader, top, before)
    except BadParameter as e:
        reader.problem(top["metadata"] if kind == "node" else node, str(e))
        return None


def _load_user(reader: _Reader, top: dict[str, yaml.Node], before: int) -> User | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name",), ("name",), (*_BOOKKEEPING, "expires"))
    name = _checked(reader, metadata.get("name"), "metadata.name", check_user_name)
    spec = {}
    if not is_null(top["spec"]):
        also = (*_IDENTITIES, "created_by", "expires", "local_auth", "status")
        spec = reader.fields(top["spec"], "spec", ("roles", "traits"), also=also)
    roles = None if "roles" not in spec or is_null(spec["roles"]) else reader.texts(spec["roles"], "spec.roles")
    _check_each(reader, spec.get("roles"), roles, lambda role: check_name(role, "Role"))
    traits: dict[str, tuple[str, ...]] = {}
    if "traits" in spec and not is_null(spec["traits"]):
        for trait, values_node in reader.mapping(spec["traits"], "spec.traits").items():
            values = reader.texts(values_node, f"spec.traits.{trait}")
            if trait == "logins":
                _check_each(reader, values_node, values, check_login)
            traits[trait] = values or ()
    ended = _leave_out_of_user(reader, metadata, spec, name)
    if len(reader.problems) > before or name is None or ended:
        return None
    return User(name, (DEFAULT_ROLE,) if roles is None else roles, traits)


def _leave_out_of_user(
    reader: _Reader, metadata: dict[str, yaml.Node], spec: dict[str, yaml.Node], name: str | None
) -> bool:
    """Note what is not taken over. Returns whether the user has expired."""
    reader.leave_out(metadata, "metadata", _BOOKKEEPING)
    reader.leave_out(spec, "spec", {"created_by": "who made a user is in the log here."})
    reader.leave_out(spec, "spec", dict.fromkeys(_IDENTITIES, "users log in with password and second factor here."))
    reader.leave_out(
        spec,
        "spec",
        {
            "local_auth": f"password and second factor are not taken over; {name or 'the user'} sets new ones with the"
            f" link of `tctl users reset {name or 'NAME'}`."
        },
    )
    if "status" in spec:
        status = {} if is_null(spec["status"]) else reader.mapping(spec["status"], "spec.status")
        locked = "is_locked" in status and getattr(status["is_locked"], "value", "") == "true"
        reason = "lock-outs are not taken over."
        if locked:
            reason = (
                f"the lock of {name or 'the user'} is not taken over; without `tctl users reset` nobody can log in."
            )
        reader.leave_out(spec, "spec", {"status": reason})
    ended = False
    for where, found in (("metadata", metadata), ("spec", spec)):
        end = reader.time(found.get("expires"), f"{where}.expires")
        if end is None:
            reader.leave_out(found, where, {"expires": "it says that the user never expires."})
        elif end <= reader.now:
            ended = True
            reader.note(found["expires"], f"user {name} is left out: {where}.expires says that it has expired.")
        else:
            reader.note(
                found["expires"],
                f"{where}.expires is left out, so user {name} does not expire {rfc3339(end)}: users do not expire here;"
                f" remove it then with `tctl users rm {name}`.",
            )
    return ended


def _load_node(reader: _Reader, top: dict[str, yaml.Node], before: int) -> NodeStatus | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name", "labels", "expires"), ("name", "expires"))
    uuid = _checked(reader, metadata.get("name"), "metadata.name", check_uuid)
    labels = reader.text_map(metadata.get("labels"), "metadata.labels") or {}
    expires = reader.time(metadata.get("expires"), "metadata.expires")
    known = ("hostname", "cluster", "addr", "public_addr", "version", "roles")
    spec = reader.fields(top["spec"], "spec", known, ("hostname", "cluster", "addr"))
    nodename = _checked(reader, spec.get("hostname"), "spec.hostname", lambda text: check_name(text, "Host name"))
    cluster = _checked(reader, spec.get("cluster"), "spec.cluster", lambda text: check_name(text, "Cluster name"))
    addr = reader.text(spec.get("addr"), "spec.addr")
    public_addrs = reader.texts(spec.get("public_addr"), "spec.public_addr") or ()
    version = reader.text(spec.get("version"), "spec.version") or ""
    roles = _host_roles(reader.texts(spec.get("roles"), "spec.roles"))
    _check_host_roles(reader, spec.get("roles"), roles, HOST_ROLES)
    status = reader.fields(top["status"], "status", ("state", "last_seen"), ("state", "last_seen"))
    state = reader.text(status.get("state"), "status.state")
    if state not in (None, "online", "offline"):
        reader.problem(status["state"], f"status.state is online or offline, not {quoted(state)}.")
    last_seen = reader.time(status.get("last_seen"), "status.last_seen")
    if len(reader.problems) > before or uuid is None or nodename is None or cluster is None:
        return None
    if addr is None or last_seen is None or expires is None:
        return None
    node = Node(uuid, nodename, cluster, addr, public_addrs, labels, version, ("node",) if roles is None else roles)
    return NodeStatus(node, last_seen, state == "online", expires)


def _load_token(reader: _Reader, top: dict[str, yaml.Node], before: int) -> Token | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name", "expires"), ("name",), _BOOKKEEPING)
    reader.leave_out(metadata, "metadata", _BOOKKEEPING)
    value = reader.text(metadata.get("name"), "metadata.name")
    if value == "":
        reader.problem(metadata["name"], "metadata.name, the token, is empty.")
    expires = reader.time(metadata.get("expires"), "metadata.expires")
    spec = reader.fields(top["spec"], "spec", ("roles", "user"), ("roles",))
    roles = _host_roles(reader.texts(spec.get("roles"), "spec.roles"))
    if "user" in spec and (is_null(spec["user"]) or spec["user"].value == ""):
        del spec["user"]
    user = _checked(reader, spec.get("user"), "spec.user", check_user_name)
    _check_host_roles(reader, spec.get("roles"), roles, (*HOST_ROLES, SIGNUP))
    if roles == () or (roles and SIGNUP in roles and (len(roles) > 1 or user is None)):
        reader.problem(spec["roles"], f"spec.roles is a list of {', '.join(HOST_ROLES)}, or {SIGNUP} with spec.user.")
    if len(reader.problems) > before or value is None or roles is None:
        return None
    return Token(Secret(value), roles, expires, user, static=expires is None)


def _checked(reader: MarkedReader, node: yaml.Node | None, where: str, check: Callable[[str], str]) -> str | None:
    text = reader.text(node, where)
    if text is None or node is None:
        return None
    try:
        return check(text)
    except BadParameter as e:
        reader.problem(node, str(e))
        return None


def _check_each(
    reader: MarkedReader, node: yaml.Node | None, values: tuple[str, ...] | None, check: Callable[[str], str]
) -> None:
    for value in values or ():
        try:
            check(value)
        except BadParameter as e:
            assert node is not None
            reader.problem(_item(node, value), str(e))


def _host_roles(roles: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Roles in lower case: Teleport begins them with a capital."""
    return None if roles is None else tuple(dict.fromkeys(role.lower() for role in roles))


def _check_host_roles(
    reader: MarkedReader, node: yaml.Node | None, roles: tuple[str, ...] | None, known: tuple[str, ...]
) -> None:
    for role in roles or ():
        if role not in known:
            assert node is not None
            hint = suggestion(role, known) or f"; known: {', '.join(known)}."
            reader.problem(_item(node, role), f"a host has no role {quoted(role)}{hint}")


def _item(node: yaml.Node, value: str) -> yaml.Node:
    """The node of ``value`` in a list."""
    items = node.value if isinstance(node, yaml.SequenceNode) else ()
    return next((item for item in items if str(item.value).lower() == value.lower()), node)


_TOP = ("kind", "version", "metadata", "spec", "status")
_BOOKKEEPING: Final = {
    "namespace": "there are no namespaces here.",
    "id": "it is the other store's own count.",
    "labels": "users and tokens have no labels here.",
    "description": "there are no descriptions here.",
}
_IDENTITIES: Final = ("oidc_identities", "saml_identities", "github_identities")
_OF_TELEPORT: Final = (
    "auth_server",
    "cert_authority",
    "cluster_auth_preference",
    "cluster_config",
    "github",
    "namespace",
    "oidc",
    "proxy",
    "remote_cluster",
    "reverse_tunnel",
    "role",
    "saml",
    "trusted_cluster",
)
_LOADERS: dict[str, Callable[[_Reader, dict[str, yaml.Node], int], Resource | None]] = {
    "user": _load_user,
    "node": _load_node,
    "token": _load_token,
}
