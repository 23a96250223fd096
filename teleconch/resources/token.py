"""Tokens: what a new host shows to join, and what a new user shows to sign up."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from teleconch.resources.secret import Secret

HOST_ROLES: Final = ("auth", "node", "proxy")  # what a host may be
SIGNUP: Final = "signup"


@frozen
class Token:
    """``roles`` is a subset of :data:`HOST_ROLES`, or ``("signup",)`` with ``user`` set.

    ``expires`` is in epoch seconds; ``None`` for a static token from the configuration.
    """

    value: Secret
    roles: tuple[str, ...]
    expires: float | None
    user: str | None = None
    static: bool = False
