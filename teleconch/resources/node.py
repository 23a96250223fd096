"""A node, as the cluster knows it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Node:
    """What a node says about itself with each ping. ``addr`` is the ``host:port`` that proxies dial; ``None`` for a
    node that they cannot dial.

    ``names`` is added by the auth server: the names that the node owns (``resources.addresses.stem``). It is reached by
    these, its UUID and its labels only. ``None`` if the auth server does not say.
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
    """A node and when it last pinged (epoch seconds by the auth server's clock)."""

    node: Node
    last_seen: float
    online: bool
    expires: float


@frozen
class NodePage:
    """Some nodes in order of UUID; ``next`` is the ``after`` of the next page, or ``None`` at the end."""

    nodes: tuple[NodeStatus, ...]
    next: str | None = None
