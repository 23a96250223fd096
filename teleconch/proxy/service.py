"""The proxy's SSH side as a Twisted service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from teleconch.api.interface import Watches
from teleconch.api.watcher import Watcher
from teleconch.audit.emitter import Emitter
from teleconch.proxy.dial import Dialler
from teleconch.proxy.directory import Directory
from teleconch.proxy.roads import Roads
from teleconch.proxy.router import Router
from teleconch.proxy.server import ProxyParts, ProxyRealm
from teleconch.proxy.shares import Shares
from teleconch.resources.address import join_address
from teleconch.resources.authority import TrustedAuthority, user_authorities
from teleconch.resources.kind import NODES
from teleconch.resources.secret import Secret
from teleconch.ssh import messages
from teleconch.ssh.checker import CertificateChecker
from teleconch.ssh.hostkey import CurrentKeys
from teleconch.ssh.server import ServerOptions, SSHServerFactory

log = Logger()

STOP_PATIENCE: Final = 3.0  # seconds for connections to close when the service stops
_STEP: Final = 0.05


class Member(Protocol):
    """What the proxy needs of ``api.membership.Membership``."""

    @property
    def uuid(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    def host_keys(self) -> tuple[Secret, str]: ...
    def authorities(self) -> tuple[TrustedAuthority, ...]: ...


class ProxyServer(Service):
    """Listens for SSH on ``endpoint`` and leads users to the nodes of ``nodes``.

    ``auth_addresses`` are ``host:port``, ``own_ports`` those of other services of this host: none is dialled as a node.
    ``emitter`` takes the audit events; ``now`` gives epoch seconds. ``await server.listening()`` opens the port and
    gives its address, or raises what hindered it. The directory is watched while the service runs; users who ask for a
    node before it is whole (:meth:`first_picture`) wait. ``refused`` is called with the auth server's sentence when it
    refuses this host, and with an empty one when it does not.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        endpoint: IStreamServerEndpoint,
        member: Member,
        nodes: Watches,
        auth_addresses: Iterable[str],
        emitter: Emitter,
        own_ports: Iterable[int] = (),
        options: ServerOptions | None = None,
        now: Callable[[], float] = time.time,
        refused: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._member = member
        self._port: IListeningPort | None = None
        self.directory = Directory(now)
        self._watch = Watcher(reactor, nodes, NODES, self.directory, refused=refused)
        self.first_picture = self._watch.first_picture
        dialler = Dialler(reactor, auth_addresses, own_ports)
        parts = ProxyParts(
            clock=reactor,
            now=now,
            cluster=member.cluster,
            first_picture=self._watch.first_picture,
            router=Router(self.directory, member.cluster),
            dialler=dialler,
            roads=Roads(reactor, (dialler,)),
            shares=Shares(reactor),
            emitter=emitter,
            server_id=member.uuid,
        )
        self._own_ports = dialler.own_ports
        checker = CertificateChecker(lambda: user_authorities(member.authorities(), member.cluster), now)
        portal = Portal(ProxyRealm(parts), [checker])
        self._factory = SSHServerFactory(
            reactor,
            portal,
            CurrentKeys(member.host_keys),
            options,
            "proxy",
            emitter=emitter,
            server_id=member.uuid,
        )

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._watch.startService()

    async def listening(self) -> IAddress:
        """Open the port, once."""
        if self._port is None:
            self._port = await self._endpoint.listen(self._factory)
            own: Any = self._port.getHost()
            self._own_ports.add(own.port)
            log.info("the proxy listens for SSH on {address}", address=join_address(own.host, own.port))
        return self._port.getHost()

    async def stopService(self) -> None:
        """Listen no more, tell the connected, and let go of them."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is not None:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
        await self._watch.stopService()
        for connection in tuple(self._factory.connections):
            connection.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"the proxy is stopping")
        left = STOP_PATIENCE
        while self._factory.connections and left > 0:
            await deferLater(self._reactor, _STEP)
            left -= _STEP
        for connection in tuple(self._factory.connections):
            connection.abortConnection()
