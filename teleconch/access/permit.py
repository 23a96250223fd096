"""Permits: without one, no session is opened and no node is dialled.

They can be made only here, so holding one proves that the decision was made (the identity was checked, and this login
on this host was allowed) before any byte flows.
"""

from __future__ import annotations

from typing import final

from attrs import frozen

from teleconch.access.kinds import Kind, denied, granted
from teleconch.errors import AccessDenied
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node


class _Sealed:
    """Has no public constructor, so that neither a call nor ``attrs.evolve`` can make or widen a permit."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError("permits are made by teleconch.access only")


@final
@frozen(init=False)
class AccessPermit(_Sealed):
    """``identity`` may ask for ``kinds`` as the OS user ``login`` on the host with the UUID ``node``."""

    identity: SSHIdentity
    login: str
    node: str
    kinds: frozenset[Kind]

    def check(self, kind: Kind) -> None:
        """AccessDenied, with a sentence for the user, unless ``kind`` is granted."""
        if kind not in self.kinds:
            raise denied(kind)


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


def permit_access(identity: SSHIdentity, login: str, node: str, now: float) -> AccessPermit:
    """What ``identity`` may do as ``login`` on the host with the UUID ``node``. AccessDenied, with a sentence, if that
    is nothing."""
    _check_alive(identity, now)
    if login not in identity.logins:
        raise AccessDenied(f"{identity.user} may not log in as {login}; allowed: {', '.join(identity.logins)}.")
    permit = AccessPermit.__new__(AccessPermit)
    permit.__attrs_init__(
        identity=identity,
        login=login,
        node=node,
        kinds=granted(identity.extensions),
    )
    return permit


def permit_dial(identity: SSHIdentity, node: Node, now: float) -> DialPermit:
    """A permit to have the proxy dial ``node``, for a valid certificate of the node's own cluster. AccessDenied."""
    _check_alive(identity, now)
    _check_granted(identity, Kind.JUMP)
    if identity.cluster != node.cluster:
        raise AccessDenied(f"{node.nodename} belongs to the cluster {node.cluster}; log in there.")
    permit = DialPermit.__new__(DialPermit)
    permit.__attrs_init__(identity=identity, node=node)
    return permit


def permit_api(identity: SSHIdentity, now: float) -> APIPermit:
    """A permit to be connected to the auth server's API, for a valid certificate. AccessDenied."""
    _check_alive(identity, now)
    _check_granted(identity, Kind.AUTH_API)
    permit = APIPermit.__new__(APIPermit)
    permit.__attrs_init__(identity=identity)
    return permit


def _check_alive(identity: SSHIdentity, now: float) -> None:
    if now >= identity.valid_before:
        raise AccessDenied("The certificate has expired; log in again with `tsh login`.")


def _check_granted(identity: SSHIdentity, kind: Kind) -> None:
    if kind not in granted(identity.extensions):
        raise denied(kind)
