"""Runs what of tsh needs a reactor: forwarding, several nodes at once, copies."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from teleconch.client.address import split_address
from teleconch.defaults import PROXY_PORT

if TYPE_CHECKING:
    from teleconch.client.dial import Credentials
    from teleconch.client.standing import Standing
    from teleconch.resources.node import NodeStatus
    from teleconch.ssh.client import ClientConnection

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(main: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """What ``main(reactor)`` gives or raises. A signal cancels it and raises :class:`Interrupted`. Once per process."""
    from twisted.internet import pollreactor  # poll, unlike epoll, takes files and /dev/null as standard input

    pollreactor.install()
    from teleconch.cli import boundary

    noted: list[int] = []

    async def watched(reactor: Any) -> T:
        from twisted.internet.defer import Deferred

        running = Deferred.fromCoroutine(main(reactor))

        def interrupted(number: int, _frame: object) -> None:
            noted.append(number)
            reactor.callFromThread(running.cancel)

        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, interrupted)
        return await running

    try:
        return boundary.run_reactor(watched)
    finally:
        if noted:
            raise Interrupted(noted[0])


class Place:
    """Connections to nodes by way of one proxy, for a user who is logged in."""

    def __init__(self, reactor: Any, standing: Standing, login: str, insecure: bool, proxy: ClientConnection) -> None:
        self.reactor = reactor
        self.standing = standing
        self.login = login
        self.insecure = insecure
        self.proxy = proxy

    @classmethod
    async def reach(cls, reactor: Any, standing: Standing, login: str, insecure: bool) -> Place:
        """Log in to the proxy. A TeleconchError."""
        from twisted.internet.threads import deferToThread

        from teleconch.client import dial
        from teleconch.client.tcp import connect_tcp

        host, port = split_address(standing.profile.ssh_proxy_addr, PROXY_PORT)
        connected = await deferToThread(connect_tcp, host, port)
        return cls(
            reactor,
            standing,
            login,
            insecure,
            await dial.to_proxy(reactor, connected, host, login, _credentials(standing, insecure)),
        )

    async def to_node(self, host: str, port: int = 0, avatar: Any = None, login: str | None = None) -> ClientConnection:
        """Log in to a node. A TeleconchError."""
        from teleconch.client.onward import to_node

        credentials = _credentials(self.standing, self.insecure)
        return await to_node(self.reactor, self.proxy, host, port, login or self.login, credentials, avatar)

    async def nodes_with_label(self, label: str) -> list[NodeStatus]:
        """At least one. NotFound, BadParameter."""
        from teleconch.client import cluster

        identity = cluster.identity_of(self.standing)
        return await cluster.ask(
            self.reactor, self.proxy, identity, lambda client: cluster.nodes_with_label(client, label)
        )

    async def node_with_label(self, label: str) -> str:
        """The UUID of the one node with a label. NotFound, BadParameter."""
        from teleconch.client import cluster

        return cluster.the_one(label, await self.nodes_with_label(label))

    def close(self) -> None:
        """Leave."""
        self.proxy.transport.loseConnection()


def _credentials(standing: Standing, insecure: bool) -> Credentials:
    from teleconch.client.dial import Credentials

    return Credentials(standing.private_key, standing.certificate, standing.authorities, insecure)
