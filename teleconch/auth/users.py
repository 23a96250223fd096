"""Local users: an administrator creates them, and they finish with a sign-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import evolve

from teleconch import defaults
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import UserCreate, UserDelete, UserReset, UserUnlock, UserUpdate
from teleconch.auth.lockout import Lockouts, forget
from teleconch.auth.otp import new_otp_secret
from teleconch.auth.records import USERS, SignupIndex, SignupRecord, UserRecord, digest, signup_key, user_key
from teleconch.auth.state import Found, State, decided, put
from teleconch.backend.interface import ABSENT, Change, Delete, Put
from teleconch.errors import AccessDenied, AlreadyExists, BadParameter, CompareFailed, NotFound, quoted
from teleconch.resources.lockout import Lockout
from teleconch.resources.login import SignupToken
from teleconch.resources.names import is_user_name
from teleconch.resources.secret import Secret
from teleconch.resources.times import duration_text
from teleconch.resources.user import User

NAME_MAX: Final = 64  # what an X.509 common name holds (RFC 5280, ub-common-name)
LOGINS_MAX: Final = 128
_TRAITS_SIZE_MAX: Final = 16 * 1024


class Users:
    """The users' records. ``second_factor`` is ``otp`` or ``off``; ``randomness(n)`` returns n random bytes."""

    def __init__(
        self,
        state: State,
        lockouts: Lockouts,
        second_factor: str,
        now: Callable[[], float],
        randomness: Callable[[int], bytes],
        emitter: Emitter,
    ) -> None:
        self._state = state
        self._lockouts = lockouts
        self._second_factor = second_factor
        self._now = now
        self._randomness = randomness
        self._emitter = emitter

    async def create_user(self, user: User, ttl: float) -> SignupToken:
        """A new user with a sign-up token for ``ttl`` seconds. AlreadyExists; BadParameter."""
        check_user(user)
        token, signup = self._new_signup(user.name, ttl)
        try:
            await self._state.commit(
                put(user_key(user.name), UserRecord(user, signup=signup), expect=ABSENT), _index(user.name, signup)
            )
        except CompareFailed:
            raise AlreadyExists(
                f"The user {user.name} exists already; `tctl users reset {user.name}` makes a new sign-up link."
            ) from None
        self._emitter.emit(UserCreate(user=user.name, logins=user.logins))
        return token

    async def upsert_user(self, user: User, replace: bool) -> None:
        """Write a user as given; password, second factor and sign-up stay. AlreadyExists unless ``replace``."""
        check_user(user)

        async def attempt() -> None:
            before = await self.find(user.name)
            if before is not None and not replace:
                raise AlreadyExists(f"The user {user.name} exists already; `tctl create -f` overwrites it.")
            record = UserRecord(user) if before is None else evolve(before.record, user=user)
            await self._state.commit(
                put(user_key(user.name), record, expect=ABSENT if before is None else before.revision)
            )

        await decided(attempt)
        self._emitter.emit(UserUpdate(user=user.name, logins=user.logins))

    async def reset_user(self, name: str, ttl: float) -> SignupToken:
        """Void the password and second factor at once, end any lock-out, and return a new sign-up token. NotFound."""

        async def attempt() -> SignupToken:
            before = await self._get(name)
            token, signup = self._new_signup(name, ttl)
            await self._state.commit(
                put(before.key, UserRecord(before.record.user, signup=signup), expect=before.revision),
                _index(name, signup),
                *_without_index(before.record),
                forget(name),
            )
            return token

        token = await decided(attempt)
        self._emitter.emit(UserReset(user=name))
        return token

    async def unlock_user(self, name: str) -> bool:
        """Forget the wrong answers held against a user. Returns whether there were any. NotFound."""
        await self._get(name)
        held = await self._lockouts.held(name)
        await self._state.commit(forget(name))
        self._emitter.emit(UserUnlock(user=name))
        return held

    async def get_user(self, name: str) -> User:
        """One user. NotFound."""
        return (await self._get(name)).record.user

    async def list_users(self) -> tuple[User, ...]:
        """All users, by name."""
        return tuple([found.record.user async for found in self._state.all(USERS, UserRecord)])

    async def list_lockouts(self) -> tuple[Lockout, ...]:
        """The lock-outs of all users, by name; not those of names that nobody has."""
        lockouts: list[Lockout] = []
        async for found in self._state.all(USERS, UserRecord):
            lockouts += await self._lockouts.standing(found.record.user.name, found.record.known)
        return tuple(lockouts)

    async def delete_user(self, name: str) -> None:
        """Remove a user with everything that belongs to them. NotFound."""

        async def attempt() -> None:
            before = await self._get(name)
            await self._state.commit(Delete(before.key, before.revision), *_without_index(before.record), forget(name))

        await decided(attempt)
        self._emitter.emit(UserDelete(user=name))

    async def check_exists(self, name: str) -> None:
        """AccessDenied for a user who was removed."""
        if await self.find(name) is None:
            raise AccessDenied(f"The user {name} was removed from the cluster; ask the administrator.")

    async def find(self, name: str) -> Found[UserRecord] | None:
        """A user's record; ``None`` if there is none, also for a string that cannot be a user's name."""
        if not is_user_name(name) or len(name) > NAME_MAX:
            return None
        return await self._state.find(user_key(name), UserRecord)

    async def _get(self, name: str) -> Found[UserRecord]:
        found = await self.find(name)
        if found is None:
            raise NotFound(f"There is no user {quoted(name[:255])}; `tctl users ls` lists the users.")
        return found

    def _new_signup(self, name: str, ttl: float) -> tuple[SignupToken, SignupRecord]:
        if not (math.isfinite(ttl) and 1 <= ttl <= defaults.TOKEN_TTL_MAX):
            raise BadParameter(f"A sign-up token's life (--ttl) is 1s to {duration_text(defaults.TOKEN_TTL_MAX)}.")
        value = Secret(self._randomness(16).hex())
        expires = self._now() + ttl
        secret = new_otp_secret(self._randomness) if self._second_factor == "otp" else None
        return SignupToken(name, value, expires), SignupRecord(digest(value), expires, secret)


def check_user(user: User) -> None:
    """BadParameter for a user that no certificate could hold. (Names were checked when the value was made.)"""
    if len(user.name) > NAME_MAX:
        raise BadParameter(f"A user name has at most {NAME_MAX} characters; choose a shorter one.")
    if len(user.logins) > LOGINS_MAX:
        raise BadParameter(f"A user has at most {LOGINS_MAX} logins; make two users of this one.")
    if sum(len(key) + sum(map(len, values)) for key, values in user.traits.items()) > _TRAITS_SIZE_MAX:
        raise BadParameter(f"A user's traits have at most {_TRAITS_SIZE_MAX} characters in all.")


def _index(name: str, signup: SignupRecord) -> Put:
    return put(signup_key(signup.token), SignupIndex(name), expires=signup.expires)


def _without_index(record: UserRecord) -> tuple[Change, ...]:
    return () if record.signup is None else (Delete(signup_key(record.signup.token)),)
