"""A login: password, second factor and lock-out, one sentence for every refusal; then certificates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from teleconch import defaults
from teleconch.auth.certificates import SIGNED_TTL_MAX, Certificates, checked_ttl
from teleconch.auth.lockout import Lockouts, counter
from teleconch.auth.otp import step_of_code
from teleconch.auth.passwords import Passwords
from teleconch.auth.records import UserRecord
from teleconch.auth.state import Found, State, put
from teleconch.auth.users import Users
from teleconch.backend.interface import Check
from teleconch.errors import AccessDenied, BadParameter, CompareFailed
from teleconch.resources.login import LoginRequest, UserCertificates

log = Logger()

DENIED: Final = (
    "The login was refused: the user name, the password or the second factor's code is wrong, the code was used before"
    " (each works once), or there were too many wrong answers; wait for the next code and try again, or ask the"
    " administrator."
)
_LOGGED_MAX: Final = 64  # letters of a name that anyone may have sent


class Logins:
    """Answers logins, and makes the certificates that an administrator asks for."""

    def __init__(
        self,
        state: State,
        users: Users,
        passwords: Passwords,
        lockouts: Lockouts,
        certificates: Certificates,
        second_factor: str,
        now: Callable[[], float],
    ) -> None:
        self._state = state
        self._users = users
        self._passwords = passwords
        self._lockouts = lockouts
        self._certificates = certificates
        self._second_factor = second_factor
        self._now = now

    async def login(self, request: LoginRequest) -> UserCertificates:
        """Certificates for who knows the password and has the second factor. AccessDenied, the same for any reason;
        only a user who proved all that is told of missing logins."""
        ttl = _login_ttl(request.ttl)
        async with self._lockouts.turn(request.user):
            count = counter(request.user, await self._users.find(request.user) is not None)
            allowed = await self._lockouts.begin(count)
            user = await self._users.find(request.user)
            used, reason = await self._verify(user, request)
            if not allowed:
                reason = "locked out after too many wrong answers"
            if user is None or reason:
                raise self._refused(request, reason)
            try:
                # The answer was right: the code is used up and the count ends, both or neither.
                await self._state.commit(
                    Check(user.key, user.revision)
                    if used == user.record.otp_used
                    else put(user.key, evolve(user.record, otp_used=used), expect=user.revision),
                    count.forget(),
                )
            except CompareFailed:
                raise self._refused(request, "the user was changed meanwhile") from None
        try:
            certificates = self._certificates.user(
                user.record.user, request.ssh_public_key, request.tls_public_key, ttl
            )
        except (AccessDenied, BadParameter) as error:
            self._log(request, str(error))
            raise
        log.info("{user} logged in", user=request.user, event="user.login", success=True, ttl=ttl)
        return certificates

    async def sign(self, name: str, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        """Certificates of a user for an administrator (``tctl auth sign``). NotFound; BadParameter."""
        checked_ttl(ttl, SIGNED_TTL_MAX)
        certificates = self._certificates.user(await self._users.get(name), ssh_public_key, tls_public_key, ttl)
        log.info("signed certificates of {user}", user=name, ttl=ttl, event="cert.create")
        return certificates

    async def _verify(self, user: Found[UserRecord] | None, request: LoginRequest) -> tuple[int, str]:
        """The TOTP step to store, and what is wrong ("" for nothing). The password is worked on in any case."""
        record = None if user is None else user.record
        right = await self._passwords.check(request.password, None if record is None else record.password)
        if record is None:
            return -1, "no such user"
        if record.password is None:
            return -1, "the user has not signed up"
        if self._second_factor == "off":
            return record.otp_used, "" if right else "wrong password"
        if record.otp_secret is None:
            return -1, "the user has no second factor"
        step = step_of_code(record.otp_secret, request.otp, self._now(), record.otp_used)
        if not right:
            return -1, "wrong password"
        return (-1, "wrong or used code") if step is None else (step, "")

    def _refused(self, request: LoginRequest, reason: str) -> AccessDenied:
        self._log(request, reason)
        return AccessDenied(DENIED)

    def _log(self, request: LoginRequest, reason: str) -> None:
        user = request.user[:_LOGGED_MAX]
        log.warn("login of {user!r} refused: {error}", user=user, error=reason, event="user.login", success=False)


def _login_ttl(ttl: float | None) -> float:
    if ttl is None:
        return defaults.USER_CERT_TTL
    if math.isnan(ttl):
        raise BadParameter("The certificate's life (--ttl) must be a time such as 8h.")
    return min(max(ttl, defaults.USER_CERT_TTL_MIN), defaults.USER_CERT_TTL_MAX)
