"""The proxy's SSH side as a Twisted service."""

from __future__ import annotations

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from teleconch.api.watcher import Watcher
from teleconch.proxy.dial import Dialler
from teleconch.resources.address import join_address
from teleconch.ssh import messages
from teleconch.ssh.server import SSHServerFactory

log = Logger()

STOP_PATIENCE: Final = 3.0  # seconds for connections to close when the service stops
_STEP: Final = 0.05


class ProxyServer(Service):
    """``factory`` listens on ``endpoint``, whose port ``dialler`` does not dial as a node's.

    ``await server.listening()`` opens the port and returns its address, or raises what prevented it. ``watcher`` keeps
    the directory up to date while the service runs; users who ask for a node before it is complete
    (:meth:`first_picture`) wait.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamServerEndpoint,
        factory: SSHServerFactory,
        watcher: Watcher[Any],
        dialler: Dialler,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._factory = factory
        self._watcher = watcher
        self._dialler = dialler
        self._port: IListeningPort | None = None
        self.first_picture = watcher.first_picture

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._watcher.startService()

    async def listening(self) -> IAddress:
        """Open the port, once."""
        if self._port is None:
            self._port = await self._endpoint.listen(self._factory)
            own: Any = self._port.getHost()
            self._dialler.own_ports.add(own.port)
            log.info("the proxy listens for SSH on {address}", address=join_address(own.host, own.port))
        return self._port.getHost()

    async def stopService(self) -> None:
        """Stop listening, tell the connected clients, and close their connections."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is not None:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
        await self._watcher.stopService()
        for connection in tuple(self._factory.connections):
            connection.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"the proxy is stopping")
        left = STOP_PATIENCE
        while self._factory.connections and left > 0:
            await deferLater(self._reactor, _STEP)
            left -= _STEP
        for connection in tuple(self._factory.connections):
            connection.abortConnection()
