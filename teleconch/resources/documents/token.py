"""Documents of tokens. A token's value is its name: a document of a token holds a secret."""

from __future__ import annotations

from teleconch.resources.documents.reading import (
    BOOKKEEPING,
    Fields,
    Reader,
    check_host_roles,
    checked,
    host_roles,
    plain,
)
from teleconch.resources.marked import is_null
from teleconch.resources.names import check_user_name
from teleconch.resources.secret import Secret
from teleconch.resources.times import rfc3339
from teleconch.resources.token import HOST_ROLES, SIGNUP, Token


def token_document(token: Token) -> dict[str, object]:
    """The plain data of one document. It shows the token's value."""
    metadata: dict[str, object] = {"name": token.value.reveal()}
    if token.expires is not None:
        metadata["expires"] = rfc3339(token.expires)
    spec: dict[str, object] = {"roles": list(token.roles)}
    if token.user is not None:
        spec["user"] = token.user
    return plain("token", metadata, spec)


def load_token(reader: Reader, top: Fields, before: int) -> Token | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name", "expires"), ("name",), BOOKKEEPING)
    reader.leave_out(metadata, "metadata", BOOKKEEPING)
    value = reader.text(metadata.get("name"), "metadata.name")
    if value == "":
        reader.problem(metadata["name"], "metadata.name, the token, is empty.")
    expires = reader.time(metadata.get("expires"), "metadata.expires")
    spec = reader.fields(top["spec"], "spec", ("roles", "user"), ("roles",))
    roles = host_roles(reader.texts(spec.get("roles"), "spec.roles"))
    if "user" in spec and (is_null(spec["user"]) or spec["user"].value == ""):
        del spec["user"]
    user = checked(reader, spec.get("user"), "spec.user", check_user_name)
    check_host_roles(reader, spec.get("roles"), roles, (*HOST_ROLES, SIGNUP))
    if roles == () or (roles and SIGNUP in roles and (len(roles) > 1 or user is None)):
        reader.problem(spec["roles"], f"spec.roles is a list of {', '.join(HOST_ROLES)}, or {SIGNUP} with spec.user.")
    if len(reader.problems) > before or value is None or roles is None:
        return None
    return Token(Secret(value), roles, expires, user, static=expires is None)
