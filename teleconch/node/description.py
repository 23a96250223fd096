"""What a node tells the cluster of itself with each ping."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort

import teleconch
from teleconch.node.labels import Labels
from teleconch.node.settings import NodeSettings
from teleconch.resources.address import join_address, split_address
from teleconch.resources.node import Node


class Description:
    """The node with this UUID in ``cluster``. ``port`` is its listener, ``None`` while there is none."""

    def __init__(self, settings: NodeSettings, uuid: str, cluster: str, labels: Labels) -> None:
        self._settings = settings
        self._uuid = uuid
        self._cluster = cluster
        self._labels = labels
        self.port: IListeningPort | None = None

    def current(self) -> Node:
        """What the next ping tells."""
        return Node(
            uuid=self._uuid,
            nodename=self._settings.nodename,
            cluster=self._cluster,
            addr=self.addr,
            public_addrs=self._settings.public_addrs,
            labels=self._labels.current(),
            version=teleconch.__version__,
            roles=("node",),
        )

    @property
    def addr(self) -> str:
        """``host:port`` as told to the cluster."""
        given, port = split_address(self._settings.addr or "", lowest=0) or ("", None)
        if self._settings.addr is not None and port != 0:
            return self._settings.addr
        if self.port is None:
            return ""
        own: Any = self.port.getHost()
        return join_address(given or own.host, own.port)
