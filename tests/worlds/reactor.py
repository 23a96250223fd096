"""The reactor, with every interface that the tests use: Twisted names only what each platform's has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet import reactor as _installed
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IReactorCore,
        IReactorFromThreads,
        IReactorPluggableNameResolver,
        IReactorProcess,
        IReactorTCP,
        IReactorUNIX,
    )

    from teleconch.node.start import IReactorNode

    class Reactor(
        IReactorCore,
        IReactorNode,
        IReactorTCP,
        IReactorUNIX,
        IReactorProcess,
        IReactorFromThreads,
        IReactorPluggableNameResolver,
    ):
        """What ``reactor`` is here."""

        def listenTCP(port: int, factory: Factory[Any], backlog: int = 50, interface: str = "") -> IListeningPort: ...


reactor = cast("Reactor", _installed)


def port_of(listening: IListeningPort) -> int:
    host = listening.getHost()
    assert isinstance(host, IPv4Address | IPv6Address)
    return int(host.port)
