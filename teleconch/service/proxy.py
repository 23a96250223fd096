"""The proxy role: join, SSH gateway, HTTPS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint

from teleconch.api.interface import Watches
from teleconch.api.membership import Membership
from teleconch.api.watcher import Watcher
from teleconch.audit.emitter import Emitter
from teleconch.proxy.dial import Dialler
from teleconch.proxy.directory import Directory
from teleconch.proxy.roads import Roads
from teleconch.proxy.router import Router
from teleconch.proxy.server import ProxyParts, ProxyRealm
from teleconch.proxy.service import ProxyServer
from teleconch.proxy.shares import Shares
from teleconch.resources.kind import NODES
from teleconch.service.role import Member, MemberRole, cannot_listen, listener, server_options, ssh_server
from teleconch.ssh.server import ServerOptions
from teleconch.web.app import WebSettings
from teleconch.web.service import WebServer
from teleconch.web.tls import files_reader


class ProxyRole(MemberRole):
    """One proxy."""

    name = "proxy"
    _server: ProxyServer | None = None
    _web: WebServer | None = None

    async def start(self) -> None:
        config, proxy = self._config, self._config.proxy_service
        membership = await self._join(
            [proxy.listen_addr, proxy.web_listen_addr], [*proxy.public_addr, *proxy.ssh_public_addr]
        )
        self._web = self._web_server(membership)
        try:
            web: Any = await self._web.listening()
        except CannotListenError as error:
            raise cannot_listen(error, proxy.web_listen_addr, "proxy_service.web_listen_addr") from error
        self._server = proxy_server(
            self._reactor,
            membership,
            membership.client,
            listener(self._reactor, proxy.listen_addr),
            server_options(config),
            auth_addresses=self._how.auth_servers,
            own_ports=(web.port,),
            emitter=self._emitter,
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
        await super().stop()


def proxy_server(
    reactor: Any,
    member: Member,
    nodes: Watches,
    endpoint: IStreamServerEndpoint,
    options: ServerOptions | None = None,
    *,
    auth_addresses: Iterable[str],
    own_ports: Iterable[int] = (),
    emitter: Emitter,
    now: Callable[[], float] = time.time,
    refused: Callable[[str], None] = lambda sentence: None,
) -> ProxyServer:
    """Build a proxy, with all its parts, that connects users to the nodes that ``nodes`` reports.

    ``auth_addresses`` are ``host:port``; ``own_ports`` are those of other services on this host. None of them is
    dialled as a node. ``refused`` is called with the auth server's sentence when it refuses this host, and with "" when
    it does not.
    """
    directory = Directory(now)
    watcher = Watcher(reactor, nodes, NODES, directory, refused=refused)
    dialler = Dialler(reactor, auth_addresses, own_ports)
    parts = ProxyParts(
        clock=reactor,
        now=now,
        cluster=member.cluster,
        first_picture=watcher.first_picture,
        router=Router(directory, member.cluster),
        dialler=dialler,
        roads=Roads(reactor, (dialler,)),
        shares=Shares(reactor),
        emitter=emitter,
        server_id=member.uuid,
    )
    factory = ssh_server(reactor, ProxyRealm(parts), member, options, name="proxy", emitter=emitter, now=now)
    return ProxyServer(reactor, endpoint, factory, watcher, dialler)
