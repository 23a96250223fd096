"""The proxy role: join, SSH gateway, HTTPS."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread

from teleconch.api.membership import Membership
from teleconch.audit.emitter import Emitter
from teleconch.config.values import Config
from teleconch.proxy.service import ProxyServer
from teleconch.service.role import (
    JoinHow,
    Role,
    auth_is_here,
    cannot_listen,
    host_names,
    listener,
    server_options,
)
from teleconch.web.app import WebSettings
from teleconch.web.service import WebServer
from teleconch.web.tls import files_reader


class ProxyRole(Role):
    """One proxy."""

    name = "proxy"

    def __init__(self, reactor: Any, config: Config, how: JoinHow, emitter: Emitter) -> None:
        self._reactor = reactor
        self._config = config
        self._how = how
        self._emitter = emitter
        self._membership: Membership | None = None
        self._server: ProxyServer | None = None
        self._web: WebServer | None = None

    async def start(self) -> None:
        config, proxy = self._config, self._config.proxy_service
        self._membership = membership = Membership(
            self._reactor,
            data_dir=config.teleport.data_dir,
            role=self.name,
            nodename=config.teleport.nodename,
            addresses=host_names(
                config,
                [proxy.listen_addr, proxy.web_listen_addr],
                [*proxy.public_addr, *proxy.ssh_public_addr],
                await deferToThread(auth_is_here, self._how.auth_servers),
            ),
            auth_servers=self._how.auth_servers,
            token=self._how.token,
            token_problem=self._how.token_problem,
            ca_pins=self._how.ca_pins,
            now=self._reactor.seconds,
        )
        await membership.start()
        self._web = self._web_server(membership)
        try:
            web: Any = await self._web.listening()
        except CannotListenError as error:
            raise cannot_listen(error, proxy.web_listen_addr, "proxy_service.web_listen_addr") from error
        self._server = ProxyServer(
            self._reactor,
            endpoint=listener(self._reactor, proxy.listen_addr),
            member=membership,
            nodes=membership.client,
            auth_addresses=self._how.auth_servers,
            emitter=self._emitter,
            own_ports=(web.port,),
            options=server_options(config),
            now=self._reactor.seconds,
            refused=self.refused,
        )
        self._server.startService()
        try:
            await self._server.listening()
        except CannotListenError as error:
            raise cannot_listen(error, proxy.listen_addr, "proxy_service.listen_addr") from error
        await self._server.first_picture()

    def _web_server(self, membership: Membership) -> WebServer:
        proxy = self._config.proxy_service
        own = proxy.https_key_file is not None and proxy.https_cert_file is not None
        if proxy.https_key_file is not None and proxy.https_cert_file is not None:
            certificate = files_reader(proxy.https_key_file, proxy.https_cert_file)
        else:
            cert_file, key_file = membership.tls_files
            certificate = files_reader(key_file, cert_file)
        settings = WebSettings(
            cluster=membership.cluster,
            ssh_listen_addr=str(proxy.listen_addr),
            ssh_public_addr=str(proxy.ssh_public_addr[0]) if proxy.ssh_public_addr else "",
            public_addr=str(proxy.public_addr[0]) if proxy.public_addr else "",
            pinned=not own,
        )
        endpoint = listener(self._reactor, proxy.web_listen_addr)
        return WebServer(self._reactor, endpoint, membership.client, settings, certificate)

    async def stop(self) -> None:
        if self._web is not None:
            await self._web.stopService()
        if self._server is not None:
            await self._server.stopService()
        if self._membership is not None:
            self._membership.stop()
