"""The decision: what a certificate and the roles as they are now let a user do.

Both must allow. The certificate says what the roles were when the user logged in; what they are now can only take away.
``roles`` are those of the cluster by name, the built-in ones among them; labels are those of the node as it is now.

A refusal tells the user what is wrong with their own certificate, or that their roles do not allow it and whom to ask.
It names no role and no label, and is the same for a node that they may not see and for a login that they may not use.
"""

from __future__ import annotations

from collections.abc import Mapping

from teleconch.access.kinds import Kind, granted
from teleconch.access.permit import (
    AccessPermit,
    APIPermit,
    DialPermit,
    access_permit,
    api_permit,
    check_alive,
    check_granted,
    dial_permit,
)
from teleconch.access.roles import Policy, policy_of
from teleconch.errors import AccessDenied
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node
from teleconch.resources.role import Role


def permit_access(
    identity: SSHIdentity, login: str, node: str, labels: Mapping[str, str], roles: Mapping[str, Role], now: float
) -> AccessPermit:
    """What ``identity`` may do as ``login`` on the host with the UUID ``node``. AccessDenied, with a sentence, if that
    is nothing."""
    policy = _policy(identity, roles, now)
    if login not in policy.logins(labels):
        raise AccessDenied(
            f"{identity.user} may not log in as {login} on this host; ask the administrator of the cluster"
            f" {identity.cluster}."
        )
    if login not in identity.logins:
        raise AccessDenied(
            f"Your certificate is not for the login {login}; log in again with `tsh login`. It is for:"
            f" {', '.join(identity.logins)}."
        )
    return access_permit(identity, login, node, granted(identity.extensions, policy.grants), policy.options)


def permit_dial(identity: SSHIdentity, node: Node, roles: Mapping[str, Role], now: float) -> DialPermit:
    """A permit to have the proxy dial ``node``, which is of the same cluster and has a login for ``identity``.
    AccessDenied."""
    policy = _policy(identity, roles, now)
    check_granted(identity, Kind.JUMP)
    if identity.cluster != node.cluster:
        raise AccessDenied(f"{node.nodename} belongs to the cluster {node.cluster}; log in there.")
    if not sees(policy, identity, node.labels):
        raise AccessDenied(
            f"There is no such host that {identity.user} may log in to; ask the administrator of the cluster"
            f" {identity.cluster}."
        )
    return dial_permit(identity, node)


def permit_api(identity: SSHIdentity, roles: Mapping[str, Role], now: float) -> APIPermit:
    """A permit to be connected to the auth server's API, which decides about each call. AccessDenied."""
    _policy(identity, roles, now)
    check_granted(identity, Kind.AUTH_API)
    return api_permit(identity)


def sees(policy: Policy, identity: SSHIdentity, labels: Mapping[str, str]) -> bool:
    """Whether there is a login with which ``identity`` could open a session on a node with ``labels``."""
    return not policy.logins(labels).isdisjoint(identity.logins)


def _policy(identity: SSHIdentity, roles: Mapping[str, Role], now: float) -> Policy:
    check_alive(identity, now)
    policy = policy_of(identity.roles, identity.traits, roles)
    if not policy.roles:
        raise AccessDenied(
            f"{identity.user} has no role that exists, and so may do nothing; ask the administrator of the cluster"
            f" {identity.cluster}."
        )
    return policy
