"""A sign-up: whoever holds the token sets the password and the second factor, which uses up the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve

from teleconch.audit.emitter import Emitter
from teleconch.audit.events import UserSignup
from teleconch.auth.otp import otp_url, step_of_code
from teleconch.auth.passwords import Passwords
from teleconch.auth.records import SignupIndex, SignupRecord, UserRecord, digest, signup_key
from teleconch.auth.state import Found, State, decided, put
from teleconch.auth.users import Users
from teleconch.backend.interface import Delete
from teleconch.errors import AccessDenied, BadParameter, TeleconchError
from teleconch.resources.login import Signup
from teleconch.resources.secret import Secret
from teleconch.turns import Turns

TRIES_MAX: Final = 5
_SOURCE_MAX: Final = 64
_OVER: Final = (
    "This sign-up link is not valid: it was used, has expired, or was replaced; ask the administrator for a new one"
    " (`tctl users reset NAME`)."
)
_VOID: Final = (
    "The second factor's code was wrong too often, so this sign-up link is void; ask the administrator for a new one"
    " (`tctl users reset NAME`)."
)


class Signups:
    """Shows and finishes sign-ups."""

    def __init__(
        self,
        state: State,
        users: Users,
        passwords: Passwords,
        turns: Turns,
        cluster: str,
        now: Callable[[], float],
        emitter: Emitter,
    ) -> None:
        self._state = state
        self._users = users
        self._passwords = passwords
        self._turns = turns
        self._cluster = cluster
        self._now = now
        self._emitter = emitter

    async def start_signup(self, token: Secret, source: str = "") -> Signup:
        """Whose sign-up this is, and the second factor's secret, which stays the same until the token is used.
        AccessDenied."""
        try:
            user, signup = await self._not_void(token)
        except TeleconchError as error:
            self._emitter.emit(UserSignup(addr_remote=source[:_SOURCE_MAX], error=str(error)))
            raise
        name = user.record.user.name
        secret = signup.otp_secret
        return Signup(name, self._cluster, None if secret is None else otp_url(secret, name, self._cluster), secret)

    async def finish_signup(self, token: Secret, password: Secret, otp: str, source: str = "") -> str:
        """Set the password and second factor, and use up the token. Returns the user's name.

        BadParameter (the token stays usable): password too short or long; wrong code, up to five times in all.
        AccessDenied: the token is not valid, or no longer.
        """
        user = ""
        try:
            user = (await self._not_void(token))[0].record.user.name
            user = await self._finish(token, password, otp)
        except TeleconchError as error:
            self._emitter.emit(UserSignup(user=user, addr_remote=source[:_SOURCE_MAX], error=str(error)))
            raise
        self._emitter.emit(UserSignup(user=user, addr_remote=source[:_SOURCE_MAX]))
        return user

    async def _finish(self, token: Secret, password: Secret, otp: str) -> str:
        async with self._turns.turn(f"sign-up {digest(token)}", ""):  # only an administrator makes such sources
            hashed = await self._passwords.hash(password)
        user, signup = await decided(lambda: self._count_try(token))
        step = -1
        if signup.otp_secret is not None:
            accepted = step_of_code(signup.otp_secret, otp, self._now(), -1)
            if accepted is None:
                raise _wrong_code(signup)
            step = accepted
        record = UserRecord(user.record.user, password=hashed, otp_secret=signup.otp_secret, otp_used=step)

        async def attempt() -> str:
            # The user may have changed meanwhile; only this very sign-up may still be finished.
            now, open_signup = await self._open(token)
            if open_signup.otp_secret != signup.otp_secret:
                raise AccessDenied(_OVER)
            await self._state.commit(
                put(now.key, evolve(record, user=now.record.user), expect=now.revision),
                Delete(signup_key(signup.token)),
            )
            return now.record.user.name

        return await decided(attempt)

    async def _open(self, token: Secret) -> tuple[Found[UserRecord], SignupRecord]:
        """The user whose sign-up this token opens. AccessDenied."""
        hashed = digest(token)
        index = await self._state.find(signup_key(hashed), SignupIndex)
        user = None if index is None else await self._users.find(index.record.user)
        signup = None if user is None else user.record.signup
        if user is None or signup is None or signup.token != hashed or signup.expires <= self._now():
            raise AccessDenied(_OVER)
        return user, signup

    async def _not_void(self, token: Secret) -> tuple[Found[UserRecord], SignupRecord]:
        """:meth:`_open`, and AccessDenied too when too many codes were tried."""
        user, signup = await self._open(token)
        if signup.tries >= TRIES_MAX:
            raise AccessDenied(_VOID)
        return user, signup

    async def _count_try(self, token: Secret) -> tuple[Found[UserRecord], SignupRecord]:
        """Count a code before it is checked, so that many at once get no more guesses. The fifth is the last."""
        user, signup = await self._not_void(token)
        if signup.otp_secret is None:
            return user, signup
        signup = evolve(signup, tries=signup.tries + 1)
        revision = await self._state.commit(put(user.key, evolve(user.record, signup=signup), expect=user.revision))
        return evolve(user, record=evolve(user.record, signup=signup), revision=revision), signup


def _wrong_code(signup: SignupRecord) -> AccessDenied | BadParameter:
    left = TRIES_MAX - signup.tries
    if left <= 0:
        return AccessDenied(_VOID)
    return BadParameter(
        "The second factor's code is wrong: check that the app shows this cluster's entry and that the phone's"
        f" clock is right, then try the next code ({left} more {'try' if left == 1 else 'tries'})."
    )
