"""Documents of users. What Teleport 4.2 says of a user beyond this is left out, with a note."""

from __future__ import annotations

from typing import Final

from teleconch.resources.documents.reading import BOOKKEEPING, Fields, Reader, check_each, checked, plain
from teleconch.resources.marked import is_null
from teleconch.resources.names import check_login, check_name, check_user_name
from teleconch.resources.times import rfc3339
from teleconch.resources.user import DEFAULT_ROLE, User

_IDENTITIES: Final = ("oidc_identities", "saml_identities", "github_identities")


def user_document(user: User) -> dict[str, object]:
    """The plain data of one document."""
    traits = {name: list(values) for name, values in user.traits.items()}
    return plain("user", {"name": user.name}, {"roles": list(user.roles), "traits": traits})


def load_user(reader: Reader, top: Fields, before: int) -> User | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name",), ("name",), (*BOOKKEEPING, "expires"))
    name = checked(reader, metadata.get("name"), "metadata.name", check_user_name)
    spec = {}
    if not is_null(top["spec"]):
        also = (*_IDENTITIES, "created_by", "expires", "local_auth", "status")
        spec = reader.fields(top["spec"], "spec", ("roles", "traits"), also=also)
    roles = None if "roles" not in spec or is_null(spec["roles"]) else reader.texts(spec["roles"], "spec.roles")
    check_each(reader, spec.get("roles"), roles, lambda role: check_name(role, "Role"))
    traits: dict[str, tuple[str, ...]] = {}
    if "traits" in spec and not is_null(spec["traits"]):
        for trait, values_node in reader.mapping(spec["traits"], "spec.traits").items():
            values = reader.texts(values_node, f"spec.traits.{trait}")
            if trait == "logins":
                check_each(reader, values_node, values, check_login)
            traits[trait] = values or ()
    ended = _leave_out_of_user(reader, metadata, spec, name)
    if len(reader.problems) > before or name is None or ended:
        return None
    return User(name, (DEFAULT_ROLE,) if roles is None else roles, traits)


def _leave_out_of_user(reader: Reader, metadata: Fields, spec: Fields, name: str | None) -> bool:
    """Note what is not taken over. Returns whether the user has expired."""
    reader.leave_out(metadata, "metadata", BOOKKEEPING)
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
