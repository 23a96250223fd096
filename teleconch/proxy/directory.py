"""The proxy's copy of the node directory, indexed by everything that a user may type.

A lookup costs the same with one node and with ten thousand: each looks into a dictionary and never walks the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from teleconch.api.copy import Copy
from teleconch.resources.address import split_address
from teleconch.resources.addresses import no_other_machine, plain_ip, stem
from teleconch.resources.node import Node, NodeStatus

_NOBODY: dict[str, None] = {}


def host_and_port(address: str) -> tuple[str, int | None]:
    """``host:port``, ``[v6]:port`` or a bare host, as registered, as ``(host in lower case, port or None)``."""
    host, port = split_address(address) or (address, None)
    return host.lower(), port


def own_ports(node: Node) -> frozenset[int]:
    """The ports that a node has registered: the one that proxies dial, and those of its public addresses."""
    ports = (host_and_port(address)[1] for address in _addresses(node))
    return frozenset(port for port in ports if port is not None)


def _addresses(node: Node) -> tuple[str, ...]:
    return node.public_addrs if node.addr is None else (node.addr, *node.public_addrs)


class _Index:
    """A multi-valued index: key -> UUIDs, in the order in which they were added."""

    def __init__(self) -> None:
        self._uuids: dict[object, dict[str, None]] = {}

    def add(self, key: object, uuid: str) -> None:
        self._uuids.setdefault(key, {})[uuid] = None

    def discard(self, key: object, uuid: str) -> None:
        uuids = self._uuids.get(key)
        if uuids is not None:
            uuids.pop(uuid, None)
            if not uuids:
                del self._uuids[key]

    def get(self, key: object) -> Iterable[str]:
        return self._uuids.get(key, _NOBODY)


class Directory(Copy[NodeStatus]):
    """Every node that the auth server has reported. ``now`` returns epoch seconds.

    While the auth server cannot be reached, what it last reported stays usable; :meth:`age` says how old that is.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._owned = _Index()
        self._names = _Index()
        self._hosts = _Index()
        self._endpoints = _Index()
        self._labels = _Index()
        self._lost: float | None = None

    # What is reported

    def whole(self) -> None:
        super().whole()
        self._lost = None

    def lost(self) -> None:
        if self._lost is None:
            self._lost = self._now()

    def age(self) -> float | None:
        """Seconds since the directory could last be trusted to be current; ``None`` while it is current."""
        return None if self._lost is None else max(0.0, self._now() - self._lost)

    def _put(self, key: str, value: NodeStatus | None) -> None:
        before = self.values.pop(key, None)
        if before is not None:
            for index, entry in self._keys(before.node):
                index.discard(entry, key)
        if value is not None and value.node.uuid == key:
            self.values[key] = value
            for index, entry in self._keys(value.node):
                index.add(entry, key)

    # What is asked

    def by_uuid(self, uuid: str) -> NodeStatus | None:
        """The node with this UUID, in upper or lower case."""
        return self.values.get(uuid.lower())

    def by_owned(self, name: str, cluster: str) -> tuple[NodeStatus, ...]:
        """The node that owns a name or an address, in any spelling. There are several only if the auth server does not
        say who owns what."""
        return self._found(self._owned.get(stem(name, cluster)))

    def by_name(self, name: str) -> tuple[NodeStatus, ...]:
        """The nodes with this nodename, in upper or lower case (``ssh`` lower-cases what the user typed)."""
        return self._found(self._names.get(name.lower()))

    def by_host(self, host: str) -> tuple[NodeStatus, ...]:
        """The nodes that registered this host, as the address to dial or as a public address."""
        return self._found(self._hosts.get(host.lower()))

    def by_endpoint(self, host: str, port: int) -> tuple[NodeStatus, ...]:
        """The nodes that registered exactly this host and port."""
        return self._found(self._endpoints.get((str(plain_ip(host) or host.lower()), port)))

    def by_label(self, key: str, value: str) -> tuple[NodeStatus, ...]:
        """The nodes with this label: those that match exactly, or else those that match if case is ignored."""
        found = self._found(self._labels.get((key.lower(), value.lower())))
        return tuple(status for status in found if status.node.labels.get(key) == value) or found

    def _found(self, uuids: Iterable[str]) -> tuple[NodeStatus, ...]:
        return tuple(self.values[uuid] for uuid in uuids)

    def _keys(self, node: Node) -> Iterator[tuple[_Index, object]]:
        yield self._names, node.nodename.lower()
        if node.names is None:
            yield self._owned, stem(node.nodename, node.cluster)
        for name in node.names or ():
            yield self._owned, name
        for address in _addresses(node):
            host, port = host_and_port(address)
            yield self._hosts, host
            yield self._endpoints, (str(plain_ip(host) or host), port)
            if node.names is None and not no_other_machine(host):
                yield self._owned, stem(host, node.cluster)
        for key, value in node.labels.items():
            yield self._labels, (key.lower(), value.lower())
