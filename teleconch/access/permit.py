"""Permits: without one, no session is opened and no node is dialled.

They can be made only in this package (``access/decide.py`` decides by roles), so holding one proves that the decision
was made (the identity was checked, and this login on this host was allowed) before any byte flows.
"""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from teleconch.access.kinds import Kind, denied, granted
from teleconch.errors import AccessDenied
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node
from teleconch.resources.role import Options

UNSAID: Final = Options()


class _Sealed:
    """Has no public constructor, so that neither a call nor ``attrs.evolve`` can make or widen a permit."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError("permits are made by teleconch.access only")


@final
@frozen(init=False)
class AccessPermit(_Sealed):
    """``identity`` may ask for ``kinds`` as the OS user ``login`` on the host with the UUID ``node``.

    ``options`` is what its roles say about open sessions.
    """

    identity: SSHIdentity
    login: str
    node: str
    kinds: frozenset[Kind]
    options: Options = UNSAID

    def check(self, kind: Kind) -> None:
        """AccessDenied, with a sentence for the user, unless ``kind`` is granted."""
        if kind not in self.kinds:
            raise denied(kind, self.identity.extensions)


@final
@frozen(init=False)
class DialPermit(_Sealed):
    """``identity`` may have the proxy dial ``node``."""

    identity: SSHIdentity
    node: Node


@final
@frozen(init=False)
class APIPermit(_Sealed):
    """``identity`` may have the proxy connect it to the auth server's API."""

    identity: SSHIdentity


def access_permit(
    identity: SSHIdentity, login: str, node: str, kinds: frozenset[Kind], options: Options
) -> AccessPermit:
    """For this package only, after it has decided; so are the next two."""
    permit = AccessPermit.__new__(AccessPermit)
    permit.__attrs_init__(identity, login, node, kinds, options)
    return permit


def dial_permit(identity: SSHIdentity, node: Node) -> DialPermit:
    permit = DialPermit.__new__(DialPermit)
    permit.__attrs_init__(identity, node)
    return permit


def api_permit(identity: SSHIdentity) -> APIPermit:
    permit = APIPermit.__new__(APIPermit)
    permit.__attrs_init__(identity)
    return permit


def permit_access(identity: SSHIdentity, login: str, node: str, now: float) -> AccessPermit:
    """What ``identity`` may do as ``login`` on the host with the UUID ``node``. AccessDenied, with a sentence, if that
    is nothing."""
    check_alive(identity, now)
    if login not in identity.logins:
        raise AccessDenied(f"{identity.user} may not log in as {login}; allowed: {', '.join(identity.logins)}.")
    return access_permit(identity, login, node, granted(identity.extensions), UNSAID)


def permit_dial(identity: SSHIdentity, node: Node, now: float) -> DialPermit:
    """A permit to have the proxy dial ``node``, for a valid certificate of the node's own cluster. AccessDenied."""
    check_alive(identity, now)
    check_granted(identity, Kind.JUMP)
    if identity.cluster != node.cluster:
        raise AccessDenied(f"{node.nodename} belongs to the cluster {node.cluster}; log in there.")
    return dial_permit(identity, node)


def permit_api(identity: SSHIdentity, now: float) -> APIPermit:
    """A permit to be connected to the auth server's API, for a valid certificate. AccessDenied."""
    check_alive(identity, now)
    check_granted(identity, Kind.AUTH_API)
    return api_permit(identity)


def check_alive(identity: SSHIdentity, now: float) -> None:
    """AccessDenied for an expired certificate."""
    if now >= identity.valid_before:
        raise AccessDenied("The certificate has expired; log in again with `tsh login`.")


def check_granted(identity: SSHIdentity, kind: Kind) -> None:
    """AccessDenied unless the certificate grants ``kind``."""
    if kind not in granted(identity.extensions):
        raise denied(kind, identity.extensions)
