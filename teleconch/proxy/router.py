"""Finds the one registered node that a user means, or raises a sentence that says why there is none. Nothing is dialled
here.

The first of these that fits counts: a UUID; a name or an address that a node owns (the auth server says which, so NAME
and NAME.CLUSTER lead to the same node, whatever others call themselves); an address with its registered port; a label
``key=value``, or several separated by commas, that exactly one node has. Each may be followed by ``.CLUSTER``.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from teleconch.defaults import NODE_PORT
from teleconch.errors import BadParameter, NotFound
from teleconch.proxy.directory import Directory, host_and_port, own_ports
from teleconch.proxy.target import Target, brief
from teleconch.resources.addresses import no_other_machine
from teleconch.resources.node import NodeStatus
from teleconch.resources.times import duration_text

SSH_PORT: Final = 22
_SHOWN_CANDIDATES: Final = 8
_LABELS_MAX: Final = 8  # in one target
# What ssh and tsh send when the user gave no port. These fit any node, so they do not choose between nodes.
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
                f"This proxy does not know the cluster {brief(target.cluster)}; it serves {self._cluster}: "
                "log in to the proxy of that cluster."
            )
        found = self._candidates(target.host, target.port)
        if found:
            return self._one(found, target)
        namesakes = self._namesakes(target.host)
        if namesakes:
            raise BadParameter(_nameless(namesakes, target))
        raise NotFound(self._nothing(target))

    def _candidates(self, host: str, port: int) -> tuple[NodeStatus, ...]:
        bare = self._bare(host)
        by_uuid = self._directory.by_uuid(bare)
        if by_uuid is not None:
            return (by_uuid,)
        here = no_other_machine(host) == "loopback"
        if here or _is_address(host):
            return self._by_address(host, port, here)
        found = self._directory.by_owned(host, self._cluster)
        if not found and "=" in host:
            for label in (host, bare):
                found = found or self._by_labels(label)
        return found

    def _by_labels(self, text: str) -> tuple[NodeStatus, ...]:
        """The nodes with the label ``key=value``, whose value may have commas, or else with all of
        ``key=value,key=value``."""
        key, _, value = text.partition("=")
        found = self._directory.by_label(key, value)
        labels = [part.partition("=") for part in text.split(",")]
        if found or len(labels) > _LABELS_MAX or not all(equals for _, equals, _ in labels):
            return found
        several = [self._directory.by_label(key, value) for key, _, value in labels]
        others = [{status.node.uuid for status in each} for each in several[1:]]
        return tuple(status for status in several[0] if all(status.node.uuid in each for each in others))

    def _by_address(self, host: str, port: int, here: bool) -> tuple[NodeStatus, ...]:
        # An address literal, or a name for this machine, means what listens there: it is a node only with its exact
        # port.
        owners = self._directory.by_owned(host, self._cluster)
        if not port:
            return self._directory.by_host(host) if here else owners
        listening = self._directory.by_endpoint(host, port)
        return listening if here else tuple(status for status in listening if status in owners)

    def _namesakes(self, host: str) -> tuple[NodeStatus, ...]:
        """The nodes that use the name without owning it."""
        bare = self._bare(host)
        found = self._directory.by_name(host) + (self._directory.by_name(bare) if bare != host else ())
        return tuple({status.node.uuid: status for status in found}.values())

    def _bare(self, host: str) -> str:
        """The host without a trailing cluster name."""
        suffix = f".{self._cluster}".lower()
        host = host.rstrip(".") or host
        return host[: -len(suffix)] if host.lower().endswith(suffix) and len(host) > len(suffix) else host

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
            if node.addr is None:
                raise BadParameter(f"The proxy does not reach {node.nodename} by a port: leave {target.port} out.")
            port = host_and_port(node.addr)[1] or NODE_PORT
            raise BadParameter(
                f"The proxy reaches {node.nodename} on port {port} only, not {target.port}: "
                f"leave the port out, or use {port}."
            )
        return found[0]

    def _nothing(self, target: Target) -> str:
        what = f"label {brief(target.host)}" if "=" in target.host else f"name or address {_named(target)}"
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
    """The target as the user knows it, without a port that only the client added."""
    return str(target) if _is_address(target.host) or target.port not in _ANY_PORT else brief(target.host)


def _nameless(found: tuple[NodeStatus, ...], target: Target) -> str:
    """The sentence for a name that no node owns, though some use it."""
    return (
        f"No node that is here owns the name {_named(target)}: it belongs to a proxy, or to a host that is away."
        f" Nodes with the same name are reached by their UUID: {_listed(found)}. (`tctl rm node/UUID`"
        " of a host that is gone frees its name; the auth server's log has its UUID.)"
    )


def _several(found: tuple[NodeStatus, ...], target: Target) -> str:
    """The sentence with the candidates, each with what distinguishes it from the others."""
    return f"{len(found)} nodes match {_named(target)}; use the UUID of the one you mean: {_listed(found)}."


def _listed(found: tuple[NodeStatus, ...]) -> str:
    lines = [
        f"{status.node.nodename} {status.node.uuid} {status.node.addr or '(no address)'}"
        + ("" if status.online else " (offline)")
        for status in found[:_SHOWN_CANDIDATES]
    ]
    if len(found) > _SHOWN_CANDIDATES:
        lines.append(f"and {len(found) - _SHOWN_CANDIDATES} more")
    return "; ".join(lines)
