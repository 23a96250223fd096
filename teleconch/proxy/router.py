"""Finds the one registered node that a user means, or says in a sentence why there is none. Nothing is dialled here.

What may be asked for, the first that fits: a UUID; a nodename or a public name; an address with its registered port; a
label ``key=value`` that exactly one node has. Each may carry ``.cluster`` behind it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from teleconch.defaults import NODE_PORT
from teleconch.errors import BadParameter, NotFound
from teleconch.proxy.directory import Directory, own_ports, split_address
from teleconch.proxy.target import Target, shown
from teleconch.resources.node import NodeStatus
from teleconch.resources.times import duration_text

SSH_PORT: Final = 22
_SHOWN_CANDIDATES: Final = 8
# What ssh and tsh send when the user gave no port. They are fine for any node, so they choose between none.
_ANY_PORT: Final = frozenset({0, SSH_PORT, NODE_PORT})


class Router:
    """Decides from the directory alone. ``cluster`` is this cluster's name."""

    def __init__(self, directory: Directory, cluster: str) -> None:
        self._directory = directory
        self._cluster = cluster

    def resolve(self, target: Target) -> NodeStatus:
        """The node that ``target`` means. NotFound; BadParameter (cluster, port, several nodes)."""
        if target.cluster and target.cluster.lower() != self._cluster.lower():
            raise NotFound(
                f"This proxy knows no cluster {shown(target.cluster)}, it serves {self._cluster}: "
                "log in to the proxy of that cluster."
            )
        for host in self._readings(target.host):
            found = self._candidates(host, target.port)
            if found:
                return self._one(found, target)
        raise NotFound(self._nothing(target))

    def _readings(self, host: str) -> Iterable[str]:
        """The host as it was typed, and without the cluster's name behind it."""
        yield host
        suffix = f".{self._cluster}".lower()
        if host.lower().endswith(suffix) and len(host) > len(suffix):
            yield host[: -len(suffix)]

    def _candidates(self, host: str, port: int) -> tuple[NodeStatus, ...]:
        by_uuid = self._directory.by_uuid(host)
        if by_uuid is not None:
            return (by_uuid,)
        # A name is looked for as nodename and as public name together: a node that calls itself by another
        # node's public name must make it ambiguous, not take it over.
        found = {status.node.uuid: status for status in self._directory.by_name(host)}
        found.update((status.node.uuid, status) for status in self._by_address(host, port))
        if not found and "=" in host:
            key, _, value = host.partition("=")
            return self._directory.by_label(key, value)
        return tuple(found.values())

    def _by_address(self, host: str, port: int) -> tuple[NodeStatus, ...]:
        # An address literal, or a name for this machine, means what listens there:
        # only with its exact port is it a node.
        if port and (host.lower() == "localhost" or _is_address(host)):
            return self._directory.by_endpoint(host, port)
        return self._directory.by_host(host)

    def _one(self, found: tuple[NodeStatus, ...], target: Target) -> NodeStatus:
        if len(found) > 1 and target.port not in _ANY_PORT:
            exact = tuple(status for status in found if target.port in own_ports(status.node))
            if len(exact) == 1:
                return exact[0]
            found = exact or found
        if len(found) > 1:
            raise BadParameter(_several(found, target))
        node = found[0].node
        if target.port not in _ANY_PORT and target.port not in own_ports(node):
            port = split_address(node.addr)[1] or NODE_PORT
            raise BadParameter(
                f"The proxy reaches {node.nodename} on port {port} only, not {target.port}: "
                f"leave the port away, or use {port}."
            )
        return found[0]

    def _nothing(self, target: Target) -> str:
        what = f"label {shown(target.host)}" if "=" in target.host else f"name or address {_named(target)}"
        sentence = f"No node with the {what} is registered in {self._cluster}: see `tsh ls` for those that are."
        age = self._directory.age()
        if not self._directory.complete:
            sentence += " (The proxy has not yet received the list of nodes: try again in a moment.)"
        elif age is not None:
            sentence += f" (The proxy's list is {duration_text(age)} old: it has no connection to the auth server.)"
        return sentence


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _named(target: Target) -> str:
    """The target as its user knows it: without a port that only the client has added."""
    return str(target) if _is_address(target.host) or target.port not in _ANY_PORT else shown(target.host)


def _several(found: tuple[NodeStatus, ...], target: Target) -> str:
    """The sentence with the candidates, each with what tells it from the others."""
    lines = [
        f"{status.node.nodename} {status.node.uuid} {status.node.addr}" + ("" if status.online else " (offline)")
        for status in found[:_SHOWN_CANDIDATES]
    ]
    if len(found) > _SHOWN_CANDIDATES:
        lines.append(f"and {len(found) - _SHOWN_CANDIDATES} more")
    return f"{len(found)} nodes match {_named(target)}; use the UUID of the one you mean: " + "; ".join(lines) + "."
