"""A node as the cluster knows it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Node:
    """What a node says of itself with each ping. ``addr`` is the ``host:port`` that proxies dial; ``None`` for a node
    that none can dial.

    ``names`` is what the auth server adds: the names that the node owns (``resources.addresses.stem``), by which
    alone it is reached beside its UUID and labels; ``None`` from an auth server that does not say.
    """

    uuid: str
    nodename: str
    cluster: str
    addr: str | None
    public_addrs: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(factory=dict)
    version: str = ""
    roles: tuple[str, ...] = ("node",)
    names: tuple[str, ...] | None = None


@frozen
class NodeStatus:
    """A node and when it was last heard of (epoch seconds, auth server's clock)."""

    node: Node
    last_seen: float
    online: bool
    expires: float


@frozen
class NodePage:
    """Some nodes in order of UUID; ``next`` is the ``after`` for the next page, ``None`` at the end."""

    nodes: tuple[NodeStatus, ...]
    next: str | None = None
