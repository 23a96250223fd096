"""Permits: the only things with which a session can be opened or a node dialled.

They can be made here alone, so code that holds one proves that the decision was taken (the identity was checked,
this login on this host was allowed) before any byte flows.
"""

from __future__ import annotations

from typing import final

from attrs import frozen

from teleconch.errors import AccessDenied
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node


class _Sealed:
    """No public constructor, so that neither a call nor ``attrs.evolve`` makes or widens a permit."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError("permits are made by teleconch.access only")


@final
@frozen(init=False)
class AccessPermit(_Sealed):
    """``identity`` may open sessions as the OS user ``login``, until ``expires`` (epoch seconds)."""

    identity: SSHIdentity
    login: str
    pty: bool
    port_forwarding: bool
    agent_forwarding: bool
    user_rc: bool
    expires: float


@final
@frozen(init=False)
class DialPermit(_Sealed):
    """``identity`` may have the proxy dial ``node``."""

    identity: SSHIdentity
    node: Node


def permit_session(identity: SSHIdentity, login: str, now: float) -> AccessPermit:
    """What ``identity`` may do as ``login``. AccessDenied with a sentence otherwise."""
    if now >= identity.valid_before:
        raise AccessDenied("The certificate has expired; log in again with `tsh login`.")
    if login not in identity.logins:
        raise AccessDenied(f"{identity.user} may not log in as {login}; allowed: {', '.join(identity.logins)}.")
    permit = AccessPermit.__new__(AccessPermit)
    permit.__attrs_init__(
        identity=identity,
        login=login,
        pty="permit-pty" in identity.extensions,
        port_forwarding="permit-port-forwarding" in identity.extensions,
        agent_forwarding="permit-agent-forwarding" in identity.extensions,
        user_rc="permit-user-rc" in identity.extensions,
        expires=identity.valid_before,
    )
    return permit


def permit_dial(identity: SSHIdentity, node: Node, now: float) -> DialPermit:
    """Whether the proxy dials ``node`` for ``identity``: a live certificate of the node's own cluster."""
    if now >= identity.valid_before:
        raise AccessDenied("The certificate has expired; log in again with `tsh login`.")
    if identity.cluster != node.cluster:
        raise AccessDenied(f"{node.nodename} belongs to the cluster {node.cluster}; log in there.")
    permit = DialPermit.__new__(DialPermit)
    permit.__attrs_init__(identity=identity, node=node)
    return permit
