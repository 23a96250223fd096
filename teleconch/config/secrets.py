"""Tokens in the configuration: a value, or the path of a file that holds it."""

from __future__ import annotations

import difflib
import os
import stat

from teleconch.config.document import Findings
from teleconch.config.values import StaticToken
from teleconch.errors import BadParameter, quoted
from teleconch.resources.secret import Secret
from teleconch.resources.token import HOST_ROLES

_TOKEN_MAX = 1024
# Roles that 4.2's tokens have for other clusters, and roles of later services.
_NO_EFFECT = ("trusted_cluster", "trustedcluster", "app", "db", "kube", "windowsdesktop", "discovery", "okta", "bot")


class TokenFileProblem(BadParameter):
    """A token file that cannot be read. A host that has joined does not need one: tokens are removed after use."""


def read_token(text: str, findings: Findings, line: int) -> Secret:
    """The token in ``text``, or in the file that it names with a leading ``/``. :class:`BadParameter`, and its subclass
    :class:`TokenFileProblem`.

    If the values have no effect, the file is not read and its name stands for the token."""
    value = _token_file(text, findings, line) if text.startswith("/") and findings.idle is None else text
    if not value:
        raise BadParameter("the token is empty.")
    if len(value) > _TOKEN_MAX or not value.isprintable() or any(c.isspace() for c in value):
        raise BadParameter(f"a token is one word of at most {_TOKEN_MAX} printable characters.")
    return Secret(value)


def static_token(text: str, findings: Findings, line: int) -> StaticToken:
    """``proxy,node:VALUE`` or ``node:/path/to/file``. :class:`BadParameter`, which does not show the value."""
    roles_text, colon, value = text.partition(":")
    if not colon:
        raise BadParameter("a token is written as roles:value, such as 'proxy,node:VALUE' or 'node:/path/to/file'.")
    roles = tuple(role.strip().lower() for role in roles_text.split(","))
    for role in dict.fromkeys(roles):
        if role in _NO_EFFECT:
            findings.warn(line, f"auth_service.tokens: the role {role} has no effect in this version.")
        if roles.count(role) > 1:
            findings.warn(line, "auth_service.tokens: a role is named twice.")
    roles = tuple(role for role in dict.fromkeys(roles) if role not in _NO_EFFECT)
    for role in roles:
        if role not in HOST_ROLES:  # the message does not show it: role and value may have been swapped
            close = difflib.get_close_matches(role, HOST_ROLES, 1)
            hint = f" Did you mean {quoted(close[0])}?" if close else ""
            raise BadParameter(f"the part before the colon must be one of {', '.join(HOST_ROLES)}.{hint}")
    return StaticToken(roles, read_token(value.strip(), findings, line))


def warn_if_public(path: str, mode: int, findings: Findings, line: int, what: str) -> None:
    """Warn if everybody on the machine can read a secret."""
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        findings.warn(line, f"Every user of this machine can read {path}, which holds {what}. Try: chmod o-rwx {path}")


def _token_file(path: str, findings: Findings, line: int) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_TOKEN_MAX + 64)
    except OSError as e:
        raise TokenFileProblem(f"the token file {path} cannot be read: {e.strerror}.") from e
    except ValueError as e:  # not UTF-8, or a NUL in the path
        raise BadParameter(f"the token file {quoted(path)} does not hold text.") from e
    warn_if_public(path, mode, findings, line, "a token")
    if not text.strip():
        raise BadParameter(f"the token file {path} is empty.")
    return text.strip()
