"""Which nouns of the API a kind of peer sees at all. ``auth/authorized.py`` decides what it may do with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from teleconch.api.codec import METHODS
from teleconch.api.interface import Cluster, Hosts, Join, Logins, Nodes, Signing, Tokens, Users, Watches
from teleconch.resources.identity import ApiIdentity

PERSPECTIVES: Final[Mapping[str, tuple[type, ...]]] = {
    "anonymous": (Join,),
    "node": (Join, Cluster, Hosts, Nodes, Watches),
    "proxy": (Join, Cluster, Hosts, Nodes, Watches, Logins),
    "user": (Cluster, Nodes),
    "admin": (Cluster, Nodes, Watches, Tokens, Users, Signing),
}
"""The five perspectives. A host with several roles sees what any of them sees."""

_METHODS: Final = {
    name: frozenset(method for method, each in METHODS.items() if each.noun in nouns)
    for name, nouns in PERSPECTIVES.items()
}
_HOST_ROLES: Final = {"auth": "node", "node": "node", "proxy": "proxy", "admin": "admin"}


def perspectives_of(identity: ApiIdentity) -> frozenset[str]:
    """The names of the perspectives that ``identity`` has; a host with an unknown role has none."""
    if identity.kind == "host":
        return frozenset(_HOST_ROLES[role] for role in identity.roles if role in _HOST_ROLES)
    return frozenset((identity.kind,)) & PERSPECTIVES.keys()


def methods_of(identity: ApiIdentity) -> frozenset[str]:
    """The names of the methods that ``identity`` sees."""
    return frozenset().union(*(_METHODS[each] for each in perspectives_of(identity)))


def described(identity: ApiIdentity) -> str:
    """Who the caller is, for use in a sentence: ``a peer without a certificate``, ``user alice``, ``host 52e3...
    (node)``."""
    if identity.kind == "anonymous":
        return "a peer without a certificate"
    if identity.kind == "user":
        return f"user {identity.name}"
    return f"host {identity.name} ({', '.join(identity.roles) or 'no role'})"
