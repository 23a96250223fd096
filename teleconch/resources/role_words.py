"""The words of a role: which there are, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from teleconch.errors import BadParameter, quoted
from teleconch.resources.names import check_login
from teleconch.resources.patterns import ANY, compile_pattern, is_pattern, is_regex
from teleconch.resources.template import parse_template

PortForwarding: TypeAlias = Literal["yes", "no", "local", "remote"]
FileCopy: TypeAlias = Literal["both", "upload", "download", "none"]
CertFormat: TypeAlias = Literal["standard", "oldssh"]
Record: TypeAlias = Literal["strict", "best_effort", "off"]

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "port_forwarding": get_args(PortForwarding),
    "file_copy": get_args(FileCopy),
    "cert_format": get_args(CertFormat),
    "record": get_args(Record),
}
"""The options that are one word of several."""

VERBS: Final = (ANY, "list", "create", "read", "readnosecrets", "update", "delete", "rotate", "connect")
_HERE: Final = (
    "access_request",
    "cert_authority",
    "cluster_auth_preference",
    "event",
    "lock",
    "node",
    "role",
    "session",  # recordings; to list and to replay
    "session_recording_config",
    "ssh_session",  # sessions that are open
    "token",
    "user",
)
_OF_TELEPORT: Final = (
    "auth_connector",
    "auth_server",
    "cluster_config",
    "cluster_name",
    "github",
    "namespace",
    "oidc",
    "proxy",
    "remote_cluster",
    "reverse_tunnel",
    "saml",
    "static_tokens",
    "trusted_cluster",
    "tunnel_connection",
)
RESOURCES: Final = (ANY, *_HERE, *_OF_TELEPORT)
"""What rules may name. Those of Teleport that are not here grant nothing."""

_LABEL_MAX: Final = 255


def check_role_login(text: str) -> str:
    """``text`` itself: a login, or a template. BadParameter."""
    return text if parse_template(text) is not None else check_login(text)


def check_label_name(name: str) -> str:
    """``name`` itself, if a node may have such a label, or ``*``. BadParameter."""
    if not name or len(name) > _LABEL_MAX or not name.isprintable() or any(letter in name for letter in " =,{}"):
        raise BadParameter(
            f"The label name {quoted(name[:_LABEL_MAX])} is not usable: 1 to {_LABEL_MAX} printable characters without"
            " space, comma, equals sign and braces."
        )
    return name


def check_label_value(name: str, value: str) -> str:
    """``value`` itself: a text, ``*``, a text with ``*`` in it, ``^regex$`` or a template. BadParameter."""
    if name == ANY and value != ANY:
        raise BadParameter("the label '*' stands for any node, so its value is '*' too.")
    if not value.isprintable():
        raise BadParameter(f"The value {quoted(value)} of the label {quoted(name)} is not printable: no node has it.")
    if value[:1] == "^" and not is_regex(value):
        raise BadParameter(f"{quoted(value)} is not usable: a regular expression begins with ^ and ends with $.")
    template = parse_template(value)
    if template is not None and (is_pattern(template.before + template.after) or value[:1] == "^"):
        raise BadParameter(f"{quoted(value)} is not usable: a trait's value is taken as it is, so without * and ^...$.")
    if template is None and is_pattern(value) and value != ANY:
        compile_pattern(value)
    return value


def check_resource(resource: str) -> str:
    return _known(resource, RESOURCES, "a resource")


def check_verb(verb: str) -> str:
    return _known(verb, VERBS, "a verb")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """BadParameter unless ``value`` is ``None`` or one of ``choices``."""
    if value is not None and value not in choices:
        raise BadParameter(f"{name} is {', '.join(choices[:-1])} or {choices[-1]}, not {quoted(value)}.")


def check_duration(name: str, seconds: float | None, *, never: bool = False) -> None:
    """BadParameter unless ``seconds`` is ``None`` or a positive number; 0 too with ``never``."""
    if seconds is None or (never and seconds == 0):
        return
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadParameter(f"{name} must be a duration like 30m or 8h{', or never' if never else ''}.")


def check_count(name: str, count: int | None) -> None:
    """BadParameter unless ``count`` is ``None`` or one or more."""
    if count is not None and count < 1:
        raise BadParameter(f"{name} must be 1 or more; leave it out for no limit.")


def _known(word: str, known: tuple[str, ...], what: str) -> str:
    if word not in known:
        raise BadParameter(f"{quoted(word)} is not {what}; known: {', '.join(known)}.")
    return word
