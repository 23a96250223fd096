"""Permits: the only things with which a session can be opened or a node dialled.

They can be made here alone, so code that holds one proves that the decision was taken (the identity was checked,
this login on this host was allowed) before any byte flows.
"""

from __future__ import annotations

from typing import final

from attrs import field, frozen

from teleconch.errors import AccessDenied
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node

_SEAL = object()


def _sealed(instance: object, attribute: object, value: object) -> None:
    if value is not _SEAL:
        raise TypeError("permits are made by teleconch.access only")


@final
@frozen
class AccessPermit:
    """``identity`` may open sessions as the OS user ``login``, until ``expires`` (epoch seconds)."""

    identity: SSHIdentity
    login: str
    pty: bool
    port_forwarding: bool
    agent_forwarding: bool
    expires: float
    _seal: object = field(validator=_sealed, repr=False, eq=False)


@final
@frozen
class DialPermit:
    """``identity`` may have the proxy dial ``node``."""

    identity: SSHIdentity
    node: Node
    _seal: object = field(validator=_sealed, repr=False, eq=False)


def permit_session(identity: SSHIdentity, login: str, now: float) -> AccessPermit:
    """What ``identity`` may do as ``login``. AccessDenied with a sentence otherwise."""
    if now >= identity.valid_before:
        raise AccessDenied("The certificate has expired; log in again with `tsh login`.")
    if login not in identity.logins:
        raise AccessDenied(f"{identity.user} may not log in as {login}; allowed: {', '.join(identity.logins)}.")
    return AccessPermit(
        identity=identity,
        login=login,
        pty="permit-pty" in identity.extensions,
        port_forwarding="permit-port-forwarding" in identity.extensions,
        agent_forwarding="permit-agent-forwarding" in identity.extensions,
        expires=identity.valid_before,
        seal=_SEAL,
    )


def permit_dial(identity: SSHIdentity, node: Node, now: float) -> DialPermit:
    """Whether the proxy dials ``node`` for ``identity``: a live certificate of the node's own cluster."""
    if now >= identity.valid_before:
        raise AccessDenied("The certificate has expired; log in again with `tsh login`.")
    if identity.cluster != node.cluster:
        raise AccessDenied(f"{node.nodename} belongs to the cluster {node.cluster}; log in there.")
    return DialPermit(identity, node, _SEAL)
