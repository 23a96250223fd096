"""What the web asks the auth server: limited per source, with answers that reveal little.

The auth server reports what it decides (the audit events ``user.login`` and ``user.signup``, with the source address).
The log here has only what never reached it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from teleconch.admission import source_of
from teleconch.api.interface import Cluster, Logins
from teleconch.defaults import PASSWORD_MAX
from teleconch.errors import AccessDenied, BadParameter, ConnectionProblem, NotFound, TeleconchError, Unavailable
from teleconch.resources.login import ClusterStatus, LoginRequest, Signup, UserCertificates
from teleconch.resources.secret import Secret
from teleconch.turns import Turns
from teleconch.web.attempts import AttemptLimits, TooOften

log = Logger()

_T = TypeVar("_T")

AT_ONCE: Final = 24  # calls in progress to auth; its client has 32, and the proxy's own calls must go on
PATIENCE: Final = 20.0  # seconds that a request waits for others
STATUS_FRESH: Final = 5.0  # seconds for which the cluster's status is not asked again
_NAME_MAX: Final = 256  # characters by which attempts at a name, or a token, are told apart
_KNOWN_MAX: Final = 4096  # pairs of source and name that have logged in
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,256}", re.ASCII)
_NO_INVITE: Final = (
    "This sign-up link does not work: it was used already, or it has expired. "
    "Ask your administrator for a new one (tctl users reset NAME)."
)


class WebApi(Logins, Cluster, Protocol):
    """What the web needs of the auth API."""


class Front:
    """The auth API as the web's routes use it. ``source`` is always the address that a request came from."""

    def __init__(self, api: WebApi, clock: IReactorTime) -> None:
        self._api = api
        self._seconds = clock.seconds
        self._attempts = AttemptLimits(clock.seconds)
        self._turns = Turns(clock, AT_ONCE, PATIENCE)
        self._known: dict[tuple[str, str], None] = {}
        self._status: ClusterStatus | None = None
        self._asked = 0.0

    async def status(self) -> ClusterStatus:
        """The cluster's status, at most a few seconds old; older while auth is unreachable, since users' certificates
        still work then and ``tsh`` has to find the proxy."""
        if self._status is None or self._seconds() - self._asked >= STATUS_FRESH:
            try:
                status = await self._api.status()
            except TeleconchError as error:
                log.warn("the cluster's status cannot be read: {error}", error=str(error))
                if self._status is None:
                    raise
            else:
                self._status = status
            self._asked = self._seconds()
        assert self._status is not None
        return self._status

    async def login(self, source: str, login: LoginRequest) -> UserCertificates:
        """Certificates for a password and second factor."""
        sent = evolve(login, source=source)
        signed = await self._ask(source, login.user, lambda: self._api.login(sent))
        self._remember(source, login.user)
        return signed

    async def start_signup(self, source: str, token: str) -> Signup:
        """What a sign-up shows. AccessDenied, with the same sentence for every token that does not work."""
        try:
            return await self._ask(source, token, lambda: self._api.start_signup(_checked(token), source))
        except TeleconchError as error:
            raise _told(error) from error

    async def finish_signup(self, source: str, token: str, password: str, code: str) -> str:
        """Finish a sign-up; returns the user's name. BadParameter: the token can be used again."""
        try:
            if len(password.encode("utf-8", "replace")) > PASSWORD_MAX:
                raise BadParameter(f"The password is too long: it may have at most {PASSWORD_MAX} bytes.")
            return await self._ask(
                source, token, lambda: self._api.finish_signup(_checked(token), Secret(password), code, source)
            )
        except TeleconchError as error:
            raise _told(error) from error

    def _ask(self, host: str, name: str, call: Callable[[], Awaitable[_T]]) -> Deferred[_T]:
        """The result of ``call()``, counted as one attempt from ``host`` at ``name``. LimitExceeded.

        Auth cannot be told that a client went away, so its turn ends with the call and not with the client.
        """
        source, name = source_of(host), name[:_NAME_MAX]
        try:
            self._attempts.take(source, name)
        except TooOften as error:
            if error.worth_a_line:  # a flood must not fill the log
                log.warn("a login or sign-up from {addr_remote} refused: {error}", addr_remote=host, error=str(error))
            raise
        begun = False

        async def work() -> _T:
            nonlocal begun
            try:
                async with self._turns.turn(source, name, (source, name) in self._known):
                    begun = True
                    return await call()
            except TeleconchError as error:
                if not begun or isinstance(error, ConnectionProblem | Unavailable):
                    log.warn("auth was not asked for {addr_remote}: {error}", addr_remote=host, error=str(error))
                raise

        working = Deferred.fromCoroutine(work())
        asked: Deferred[_T] = Deferred(lambda _: None if begun else working.cancel())
        working.addCallbacks(
            lambda result: None if asked.called else asked.callback(result),
            lambda failure: None if asked.called else asked.errback(failure),
        )
        return asked

    def _remember(self, host: str, name: str) -> None:
        """A login succeeded: from now on this pair goes first in a crowd."""
        pair = (source_of(host), name[:_NAME_MAX])
        self._known.pop(pair, None)
        self._known[pair] = None
        if len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]


def _checked(token: str) -> Secret:
    if not _TOKEN.fullmatch(token):
        raise AccessDenied(_NO_INVITE)
    return Secret(token)


def _told(error: TeleconchError) -> TeleconchError:
    return AccessDenied(_NO_INVITE) if isinstance(error, (AccessDenied, NotFound)) else error
