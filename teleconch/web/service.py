"""The web as a Twisted service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from teleconch.config.addresses import Address
from teleconch.web.app import WebApp, WebSettings
from teleconch.web.front import WebApi
from teleconch.web.site import WebConnections
from teleconch.web.tls import CurrentCertificate, TLSFiles

log = Logger()

STOP_PATIENCE: Final = 3.0  # seconds for answers in progress when the service stops
_STEP: Final = 0.05


class WebServer(Service):
    """Serves HTTPS on ``endpoint``. ``await server.listening()`` returns the address, or raises what prevented it.

    ``certificate`` reads the key and chain as they are now (see ``web.tls``); it is called again from time to time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamServerEndpoint,
        api: WebApi,
        settings: WebSettings,
        certificate: Callable[[], TLSFiles],
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._connections = WebConnections(
            WebApp(api, settings, clock).app.resource(), CurrentCertificate(certificate, clock.seconds), clock
        )
        self._port: IListeningPort | None = None

    async def listening(self) -> IAddress:
        """Open the port, once."""
        if self._port is None:
            self._port = await self._endpoint.listen(self._connections)
            host: Any = self._port.getHost()
            log.info("the proxy listens for HTTPS on {address}", address=str(Address(host.host, host.port)))
        return self._port.getHost()

    async def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is not None:
            await _done(port.stopListening())
        self._connections.finish_up()
        left = STOP_PATIENCE
        while self._connections.protocols and left > 0:
            await deferLater(self._clock, _STEP)
            left -= _STEP
        self._connections.abort()


async def _done(result: object) -> None:
    if isinstance(result, Deferred):
        await result
