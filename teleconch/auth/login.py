"""A login: checks the password, second factor and lock-out, with one sentence for every refusal, then issues
certificates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from teleconch import defaults
from teleconch.admission import source_of
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import UserLogin
from teleconch.auth.certificates import Certificates
from teleconch.auth.lockout import Lockouts, is_known, remembered
from teleconch.auth.otp import step_of_code
from teleconch.auth.passwords import Passwords
from teleconch.auth.records import UserRecord
from teleconch.auth.state import Found, State, decided, put
from teleconch.auth.users import Users
from teleconch.backend.interface import Check
from teleconch.errors import AccessDenied, BadParameter, TeleconchError
from teleconch.resources.login import LoginRequest, UserCertificates
from teleconch.turns import Turns

DENIED: Final = (
    "The login was refused: the user name, the password or the second factor's code is wrong, the code was used before"
    " (each works once), or there were too many wrong answers; wait for the next code and try again, or ask the"
    " administrator."
)
LOGIN_PATIENCE: Final = 20.0  # seconds that a login waits for others; its caller waits 30
_LOGGED_MAX: Final = 64  # characters of a name that anyone may have sent
_SOURCE_MAX: Final = 64


class _Refused(AccessDenied):
    """A login was refused for a ``reason`` that the event records and the user is not told."""

    def __init__(self, reason: str) -> None:
        super().__init__(DENIED)
        self.reason = reason


@frozen
class _Answer:
    """What is ``wrong`` with an answer ("" for nothing), whether the password alone was right (``near``), and the TOTP
    ``step`` to store."""

    wrong: str = ""
    near: bool = False
    step: int | None = None


class Logins:
    """Answers logins."""

    def __init__(
        self,
        state: State,
        users: Users,
        passwords: Passwords,
        turns: Turns,
        lockouts: Lockouts,
        certificates: Certificates,
        second_factor: str,
        now: Callable[[], float],
        emitter: Emitter,
    ) -> None:
        self._state = state
        self._users = users
        self._passwords = passwords
        self._turns = turns
        self._lockouts = lockouts
        self._certificates = certificates
        self._second_factor = second_factor
        self._now = now
        self._emitter = emitter

    async def login(self, request: LoginRequest) -> UserCertificates:
        """Certificates for anyone who knows the password and has the second factor. AccessDenied, with the same
        sentence for every reason; only a user who has proved both is told that they have no logins."""
        told = UserLogin(user=request.user[:_LOGGED_MAX], addr_remote=request.source[:_SOURCE_MAX])
        try:
            certificates = await self._login(request)
        except TeleconchError as error:
            self._emitter.emit(evolve(told, error=error.reason if isinstance(error, _Refused) else str(error)))
            raise
        self._emitter.emit(told)
        return certificates

    async def _login(self, request: LoginRequest) -> UserCertificates:
        ttl = _login_ttl(request.ttl)
        name, source = request.user, source_of(request.source) or request.source[:_SOURCE_MAX]
        user = await self._users.find(name)
        known = user is not None and is_known(user.record.known, source, self._now())
        async with self._turns.turn(source, name, known):
            user = await self._users.find(name)
            known = user is not None and is_known(user.record.known, source, self._now())
            allowed = await self._lockouts.begin(name, source, known)
            answer = await self._verify(user, request)
            if user is None or not allowed or answer.wrong:
                await self._lockouts.refused(name, source, near=allowed and answer.near)
                raise _Refused(answer.wrong if allowed else "too many wrong answers were given")
            user = await self._accept(user, source, answer, request)
        return self._certificates.user(user.record.user, request.ssh_public_key, request.tls_public_key, ttl)

    async def _verify(self, user: Found[UserRecord] | None, request: LoginRequest) -> _Answer:
        """Judge an answer. The password is hashed in any case, so that every answer takes the same time."""
        record = None if user is None else user.record
        right = await self._passwords.check(request.password, None if record is None else record.password)
        if record is None:
            return _Answer("no such user")
        if record.password is None:
            return _Answer("the user has not signed up")
        if self._second_factor == "off":
            return _Answer() if right else _Answer("wrong password")
        if record.otp_secret is None:
            return _Answer("the user has no second factor")
        step = step_of_code(record.otp_secret, request.otp, self._now(), record.otp_used)
        if not right:
            return _Answer("wrong password")
        return _Answer("wrong or used code", near=True) if step is None else _Answer(step=step)

    async def _accept(
        self, user: Found[UserRecord], source: str, answer: _Answer, request: LoginRequest
    ) -> Found[UserRecord]:
        """The answer was right: use up the code and clear the count, both or neither. AccessDenied if the user's
        password, secret or used step has changed in the meantime."""
        checked = user.record

        async def attempt() -> Found[UserRecord]:
            now = await self._users.find(request.user)
            if (
                now is None
                or (now.record.password, now.record.otp_secret) != (checked.password, checked.otp_secret)
                or (answer.step is not None and answer.step <= now.record.otp_used)
            ):
                raise _Refused("the user was changed meanwhile")
            record = evolve(
                now.record,
                otp_used=now.record.otp_used if answer.step is None else answer.step,
                known=remembered(now.record.known, source, self._now()),
            )
            forgiven = await self._lockouts.forgiven(request.user, source)
            same = record == now.record
            await self._state.commit(
                Check(now.key, now.revision) if same else put(now.key, record, expect=now.revision), forgiven
            )
            return now

        return await decided(attempt)


def _login_ttl(ttl: float | None) -> float:
    if ttl is None:
        return defaults.USER_CERT_TTL
    if math.isnan(ttl):
        raise BadParameter("The certificate's life (--ttl) must be a time such as 8h.")
    return min(max(ttl, defaults.USER_CERT_TTL_MIN), defaults.USER_CERT_TTL_MAX)
