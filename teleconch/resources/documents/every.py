"""Every kind of document: which there are, and how a file of several is read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import yaml

from teleconch.errors import BadParameter, quoted
from teleconch.resources.documents.node import load_node, node_document
from teleconch.resources.documents.reading import VERSION, Fields, Reader
from teleconch.resources.documents.role import ROLE_VERSION, load_role, role_document
from teleconch.resources.documents.token import load_token, token_document
from teleconch.resources.documents.user import load_user, user_document
from teleconch.resources.marked import suggestion
from teleconch.resources.node import NodeStatus
from teleconch.resources.role import Role
from teleconch.resources.text import yaml_text
from teleconch.resources.token import Token
from teleconch.resources.user import User

Resource: TypeAlias = User | NodeStatus | Token | Role


def document(resource: Resource) -> dict[str, object]:
    """The plain data of one document. A token's document shows its value."""
    if isinstance(resource, User):
        return user_document(resource)
    if isinstance(resource, Token):
        return token_document(resource)
    if isinstance(resource, Role):
        return role_document(resource)
    return node_document(resource)


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
    reader = Reader(filename, now)
    documents: list[yaml.Node] = []
    for node in reader.compose(text):
        documents += node.value if isinstance(node, yaml.SequenceNode) else [node]
    loaded = [_load(reader, node) for node in documents]
    reader.finish()
    if left_out is not None:
        left_out += [f"{file}:{line}: {sentence}" for file, line, sentence in sorted(reader.notes)]
    return tuple(resource for resource in loaded if resource is not None)


def _load(reader: Reader, node: yaml.Node) -> Resource | None:
    """Read one document. ``None`` if it has problems, which ``reader`` then holds."""
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return None  # nothing between two `---` lines
    before = len(reader.problems)
    top = reader.fields(node, "the document", _TOP, ("kind", "version", "metadata", "spec"))
    kind = reader.text(top.get("kind"), "kind")
    version = reader.text(top.get("version"), "version")
    right = ROLE_VERSION if kind == "role" else VERSION
    if version not in (None, right) and kind not in _OF_TELEPORT:
        reader.problem(top["version"], f"version {quoted(version)} is not known; this is {right}.")
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


_TOP: Final = ("kind", "version", "metadata", "spec", "status")
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
    "saml",
    "trusted_cluster",
)
_LOADERS: Final[dict[str, Callable[[Reader, Fields, int], Resource | None]]] = {
    "user": load_user,
    "node": load_node,
    "token": load_token,
    "role": load_role,
}
