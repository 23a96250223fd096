"""A local user: a name in the cluster and the OS logins that it may use."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from teleconch.resources.names import check_login, check_name, check_user_name

DEFAULT_ROLE = "user"


def _traits(value: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    return {str(key): tuple(str(v) for v in values) for key, values in value.items()}  # type: ignore[attr-defined]


@frozen
class User:
    """``traits["logins"]`` are the OS logins; they become the principals of the user's SSH certificates."""

    name: str
    roles: tuple[str, ...] = (DEFAULT_ROLE,)
    traits: Mapping[str, tuple[str, ...]] = field(factory=dict, converter=_traits)

    def __attrs_post_init__(self) -> None:
        check_user_name(self.name)
        for role in self.roles:
            check_name(role, "Role")
        for login in self.logins:
            check_login(login)

    @property
    def logins(self) -> tuple[str, ...]:
        return self.traits.get("logins", ())
