"""The auth API as one identity may use it: every call is checked against one table and then passed on.

``auth/server.py`` checks nothing, so every call reaches it through here. A method without a rule cannot be called; a
test walks the API's protocols and fails on one that lacks a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, Protocol

from attrs import frozen

from teleconch.api.codec import Method
from teleconch.api.perspectives import described, perspectives_of
from teleconch.api.stubs import Noun, stub
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import APIDenied
from teleconch.errors import AccessDenied, quoted
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.kind import NODES, Kind
from teleconch.resources.times import utc_text

_ANONYMOUS: Final = frozenset(("anonymous",))
_HOSTS: Final = frozenset(("node", "proxy"))
_PROXY: Final = frozenset(("proxy",))
_MEMBERS: Final = frozenset(("node", "proxy", "user", "admin"))
_ADMIN: Final = frozenset(("admin",))


@frozen
class Rule:
    """``who`` names perspectives. In a call made ``in_person`` a host speaks for itself: the use case gets the caller
    as its last argument and holds it to its own name. The use case also checks, with the change, that the host is a
    member."""

    who: frozenset[str]
    in_person: bool = False


RULES: Final[Mapping[str, Rule]] = {
    "join": Rule(_ANONYMOUS | _HOSTS, in_person=True),  # a host calls it to show who it already is
    "status": Rule(_MEMBERS),
    "authorities": Rule(_MEMBERS),
    "renew": Rule(_HOSTS, in_person=True),
    "heartbeat": Rule(_HOSTS, in_person=True),
    "goodbye": Rule(_HOSTS, in_person=True),
    "list_nodes": Rule(_MEMBERS),
    "get_node": Rule(_MEMBERS),
    "watch": Rule(_HOSTS | _ADMIN),  # WATCHES says which of these may watch each kind
    "delete_node": Rule(_ADMIN),
    "create_token": Rule(_ADMIN),
    "list_tokens": Rule(_ADMIN),
    "delete_token": Rule(_ADMIN),
    "create_user": Rule(_ADMIN),
    "upsert_user": Rule(_ADMIN),
    "reset_user": Rule(_ADMIN),
    "unlock_user": Rule(_ADMIN),
    "get_user": Rule(_ADMIN),
    "list_users": Rule(_ADMIN),
    "list_lockouts": Rule(_ADMIN),
    "delete_user": Rule(_ADMIN),
    "login": Rule(_PROXY),
    "start_signup": Rule(_PROXY),
    "finish_signup": Rule(_PROXY),
    "sign_user": Rule(_ADMIN),
    "sign_host": Rule(_ADMIN),
}
"""Who may call each method. What has no rule is called by nobody."""


WATCHES: Final[Mapping[str, frozenset[str]]] = {
    NODES.name: _HOSTS | _ADMIN,
}
"""Who may watch each kind of resource. What has no row is watched by nobody."""


def tell_denied(emitter: Emitter, identity: ApiIdentity, method: str, sentence: str) -> None:
    """Emit that ``identity`` was refused a call of ``method`` or, if that is "", that a connection's certificate was
    refused. This is called from here, and for the API's server, which hides the methods of other perspectives."""
    emitter.emit(
        APIDenied(
            method=method,
            user=identity.name if identity.kind == "user" else "",
            server_id=identity.name if identity.kind == "host" else "",
            addr_remote=identity.address,
            error=sentence,
        )
    )


class Server(Protocol):
    """What is needed of ``auth.server.AuthServer`` in addition to the methods of the API."""

    async def check_standing(self, identity: ApiIdentity) -> None: ...


def checked(
    noun: type[Noun], server: Server, identity: ApiIdentity, now: Callable[[], float], emitter: Emitter
) -> Noun:
    """``server`` as ``identity`` may use it; ``now`` (epoch seconds) decides whether the identity has expired.

    AccessDenied, also reported to ``emitter``, for anything that :data:`RULES` does not allow, and for users and hosts
    that were removed while their certificates are still valid.
    """
    return stub(noun, _Checks(server, identity, now, emitter).call)


@frozen
class _Checks:
    server: Server
    identity: ApiIdentity
    now: Callable[[], float]
    emitter: Emitter

    async def call(self, method: Method, arguments: tuple[Any, ...]) -> Any:
        rule = self._rule(method.name)
        if method.streams:
            self._check_kind(method.name, arguments[0])
        if rule.in_person:
            return await getattr(self.server, method.name)(*arguments, self.identity)
        try:
            await self.server.check_standing(self.identity)
        except AccessDenied as error:
            self._deny(method.name, str(error))
        return await getattr(self.server, method.name)(*arguments)

    def _rule(self, method: str) -> Rule:
        identity = self.identity
        if identity.kind != "anonymous" and (identity.expires is None or self.now() >= identity.expires):
            when = "it has no end" if identity.expires is None else f"it ended {utc_text(identity.expires)}"
            again = "log in again with `tsh login`" if identity.kind == "user" else "the host must renew or join again"
            self._deny(method, f"The certificate of {described(identity)} is not valid ({when}): {again}.")
        rule = RULES.get(method)
        if rule is None or not rule.who & perspectives_of(identity):
            self._deny(method, f"The auth API's {quoted(method)} is not for {described(identity)}.")
        return rule

    def _check_kind(self, method: str, kind: Kind[Any]) -> None:
        if not WATCHES.get(kind.name, frozenset()) & perspectives_of(self.identity):
            self._deny(method, f"The auth API's {quoted(f'watch {kind.name}')} is not for {described(self.identity)}.")

    def _deny(self, method: str, sentence: str) -> NoReturn:
        tell_denied(self.emitter, self.identity, method, sentence)
        raise AccessDenied(sentence)
