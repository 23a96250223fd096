"""What an administrator has decided about the auth server."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from teleconch.auth.passwords import ROUNDS
from teleconch.errors import BadParameter, quoted
from teleconch.resources.names import check_name
from teleconch.resources.token import Token

SECOND_FACTORS: Final = ("otp", "off")


@frozen
class AuthSettings:
    """``cluster`` is its name; ``second_factor`` is ``otp`` or ``off``; ``static_tokens`` stand in the configuration;
    ``password_rounds`` is the logarithm of bcrypt's cost. BadParameter."""

    cluster: str
    second_factor: str
    static_tokens: tuple[Token, ...] = ()
    password_rounds: int = ROUNDS

    def __attrs_post_init__(self) -> None:
        check_name(self.cluster, "Cluster name")
        if self.second_factor not in SECOND_FACTORS:
            raise BadParameter(f"second_factor is {' or '.join(SECOND_FACTORS)}, not {quoted(self.second_factor)}.")
