"""Join tokens: static ones from the configuration, and dynamic ones that expire."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Final

from attrs import evolve

from teleconch import defaults
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import JoinTokenCreate, JoinTokenDelete, SignupTokenDelete
from teleconch.auth.records import TOKENS, USERS, JoinToken, UserRecord, digest, signup_key, token_key
from teleconch.auth.state import Found, State, decided, put
from teleconch.backend.interface import ABSENT, Delete
from teleconch.errors import AccessDenied, AlreadyExists, BadParameter, NotFound
from teleconch.resources.secret import Secret
from teleconch.resources.times import duration_text
from teleconch.resources.token import HOST_ROLES, SIGNUP, Token

VALUE_MAX: Final = 255
_VALUE = re.compile(r"[A-Za-z0-9._~+/=-]{1,255}", re.ASCII)
_KEPT_EXPIRED: Final = defaults.DAY  # so that a host is told that its token has expired, not that it is unknown
_MAKE_ONE: Final = "make a new one on the auth server with `tctl nodes add` and put it into auth_token"


class Tokens:
    """What a host shows to join. ``static`` tokens are set in the configuration; ``randomness(n)`` returns n random
    bytes."""

    def __init__(
        self,
        state: State,
        now: Callable[[], float],
        randomness: Callable[[int], bytes],
        emitter: Emitter,
        static: Iterable[Token] = (),
    ) -> None:
        self._state = state
        self._now = now
        self._randomness = randomness
        self._emitter = emitter
        self._static = tuple(Token(each.value, each.roles, None, static=True) for each in static)
        for token in self._static:
            _check_roles(token.roles)

    async def check(self, value: Secret, role: str) -> None:
        """Returns if the token lets a host join as ``role``. AccessDenied, with a sentence for each case: unknown,
        expired, for another role."""
        if len(value.reveal()) > VALUE_MAX or not value.reveal().isprintable():
            raise AccessDenied(f"This join token is not known to the cluster; {_MAKE_ONE}.")
        roles = self._static_roles(value)
        stored = await self._find(value)
        if stored is not None and stored.record.expires > self._now():
            roles.update(stored.record.roles)
        if not roles:
            if stored is None:
                raise AccessDenied(f"This join token is not known to the cluster; {_MAKE_ONE}.")
            ago = duration_text(self._now() - stored.record.expires)
            raise AccessDenied(f"This join token expired {ago} ago; {_MAKE_ONE}.")
        if role not in roles:
            raise AccessDenied(
                f"This join token lets a host join as {' or '.join(sorted(roles))}, not as {role};"
                f" make one with `tctl nodes add --roles={role}`."
            )

    async def create_token(self, roles: tuple[str, ...], ttl: float, value: Secret | None) -> Token:
        """A new dynamic token. ``ttl`` seconds. BadParameter; AlreadyExists."""
        _check_roles(roles)
        if not (math.isfinite(ttl) and 1 <= ttl <= defaults.TOKEN_TTL_MAX):
            raise BadParameter(f"A token's life (--ttl) is 1s to {duration_text(defaults.TOKEN_TTL_MAX)}.")
        if value is None:
            value = Secret(self._randomness(16).hex())
        elif _VALUE.fullmatch(value.reveal()) is None:
            raise BadParameter("A token is 1 to 255 letters, digits and . _ ~ + / = -; leave it out to have one made.")
        if self._static_roles(value):
            raise AlreadyExists("This token is in the auth server's configuration already; choose another.")
        token = JoinToken(value, tuple(dict.fromkeys(roles)), self._now() + ttl)

        async def attempt() -> None:
            stored = await self._find(value)
            if stored is not None and stored.record.expires > self._now():
                raise AlreadyExists("This token exists already; choose another, or remove it with `tctl tokens rm`.")
            await self._state.commit(
                put(
                    token_key(value),
                    token,
                    expires=token.expires + _KEPT_EXPIRED,
                    expect=ABSENT if stored is None else stored.revision,
                )
            )

        await decided(attempt)
        self._emitter.emit(JoinTokenCreate(roles=token.roles, expires=token.expires))
        return Token(value, token.roles, token.expires)

    async def list_tokens(self) -> tuple[Token, ...]:
        """Static tokens, then those that expire, the next to expire first. A sign-up token shows as its hash, by which
        it can be removed: its value is not stored."""
        now = self._now()
        ending = [
            Token(found.record.value, found.record.roles, found.record.expires)
            async for found in self._state.all(TOKENS, JoinToken)
            if found.record.expires > now
        ]
        async for user in self._state.all(USERS, UserRecord):
            signup = user.record.signup
            if signup is not None and signup.expires > now:
                ending.append(Token(Secret(signup.token), (SIGNUP,), signup.expires, user=user.record.user.name))
        return (*self._static, *sorted(ending, key=lambda token: token.expires or 0))

    async def delete_token(self, value: Secret) -> None:
        """Revoke a join token, or a sign-up token by its value or hash. BadParameter for a static one; NotFound."""
        if self._static_roles(value):
            raise BadParameter(
                "This token is in the auth server's configuration: remove it there (auth_service.tokens), then"
                " restart the auth server."
            )
        if not (await self._delete_join_token(value) or await self._delete_signup(value)):
            raise NotFound("There is no such token; `tctl tokens ls` lists the tokens.")

    def _static_roles(self, value: Secret) -> set[str]:
        """The roles that the configuration gives this token. Compares with every token, so that the time reveals
        nothing."""
        roles: set[str] = set()
        for token in self._static:
            if token.value == value:
                roles.update(token.roles)
        return roles

    async def _delete_join_token(self, value: Secret) -> bool:
        async def attempt() -> bool:
            stored = await self._find(value)
            if stored is None or stored.record.expires <= self._now():
                return False
            await self._state.commit(Delete(stored.key, stored.revision))
            return True

        gone = await decided(attempt)
        if gone:
            self._emitter.emit(JoinTokenDelete())
        return gone

    async def _delete_signup(self, value: Secret) -> bool:
        hashes = {digest(value), value.reveal()}

        async def attempt() -> str | None:
            async for user in self._state.all(USERS, UserRecord):
                signup = user.record.signup
                if signup is not None and signup.expires > self._now() and signup.token in hashes:
                    await self._state.commit(
                        put(user.key, evolve(user.record, signup=None), expect=user.revision),
                        Delete(signup_key(signup.token)),
                    )
                    return user.record.user.name
            return None

        name = await decided(attempt)
        if name is not None:
            self._emitter.emit(SignupTokenDelete(user=name))
        return name is not None

    async def _find(self, value: Secret) -> Found[JoinToken] | None:
        return await self._state.find(token_key(value), JoinToken)


def _check_roles(roles: tuple[str, ...]) -> None:
    if not roles or not set(roles) <= set(HOST_ROLES):
        raise BadParameter(f"The roles of a join token (--roles) are one or more of {', '.join(HOST_ROLES)}.")
