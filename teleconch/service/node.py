"""The node role: join, SSH server, pings."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import Protocol

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.threads import deferToThread

from teleconch.api.interface import Hosts
from teleconch.audit.emitter import Emitter
from teleconch.config.addresses import Address
from teleconch.config.values import Config
from teleconch.errors import BadParameter, TeleconchError
from teleconch.node.description import Description
from teleconch.node.heartbeat import Heartbeat
from teleconch.node.held_up import end_holders
from teleconch.node.labels import LabelCommand, Labels
from teleconch.node.launch import oom
from teleconch.node.parts import NodeParts
from teleconch.node.process import Launcher
from teleconch.node.server import NodeRealm
from teleconch.node.service import NodeServer
from teleconch.node.settings import NodeSettings
from teleconch.node.start import IReactorNode, LoginRules
from teleconch.resources.addresses import host_of, no_other_machine
from teleconch.service.role import (
    Member,
    MemberRole,
    address_toward,
    cannot_listen,
    listener,
    server_options,
    ssh_server,
)
from teleconch.ssh.server import ServerOptions


class NodeRole(MemberRole):
    """One node."""

    name = "node"
    _server: NodeServer | None = None

    async def start(self) -> None:
        config, ssh = self._config, self._config.ssh_service
        addr = await self._dialled_address()
        membership = await self._join([ssh.listen_addr], ssh.public_addr, _alone_at(addr))
        oom.protect()
        self._server = node_server(
            self._reactor,
            membership,
            listener(self._reactor, ssh.listen_addr),
            node_settings(config, addr),
            server_options(config),
            emitter=self._emitter,
            now=self._reactor.seconds,
            refused=self.refused,
        )
        self._server.startService()
        try:
            await self._server.listening
        except CannotListenError as error:
            raise cannot_listen(error, ssh.listen_addr, "ssh_service.listen_addr") from error
        await self._server.heartbeat.first

    async def _dialled_address(self) -> str | None:
        """The address at which proxies reach this node: advertise_ip, or where it listens, or its own address toward
        the auth server."""
        advertised, listen = self._config.teleport.advertise_ip, self._config.ssh_service.listen_addr
        if advertised is not None:
            return str(advertised)
        if not listen.any_host:
            return str(listen) if listen.port else None
        own = await deferToThread(address_toward, self._how.auth_servers)
        return str(Address(own or listen.local.host, listen.port))

    def be_patient(self) -> None:
        if self._server is not None:
            self._server.be_patient()

    def hurry(self) -> None:
        if self._server is not None:
            self._server.hurry()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stopService()
        await super().stop()


class NodeMember(Member, Protocol):
    """What a node needs in addition: the auth server that it pings, and someone to report the outcome of pings to."""

    @property
    def client(self) -> Hosts: ...
    def acknowledged(self) -> None: ...
    def refused(self, error: TeleconchError) -> None: ...


def node_settings(config: Config, addr: str | None) -> NodeSettings:
    """The settings in the configuration, for a node that proxies dial at ``addr``."""
    ssh = config.ssh_service
    return NodeSettings(
        nodename=config.teleport.nodename,
        addr=addr,
        public_addrs=tuple(str(address) for address in ssh.public_addr),
        labels=ssh.labels,
        commands=tuple(LabelCommand(each.name, each.command, each.period) for each in ssh.commands),
        accept_env=ssh.accept_env,
        gateway_ports=ssh.gateway_ports,
        rules=LoginRules(ssh.pam_service, ssh.permit_user_env),
    )


def node_server(
    reactor: IReactorNode,
    member: NodeMember,
    endpoint: IStreamServerEndpoint,
    settings: NodeSettings,
    options: ServerOptions | None = None,
    *,
    emitter: Emitter,
    now: Callable[[], float] = time.time,
    refused: Callable[[str], None] = lambda sentence: None,
) -> NodeServer:
    """Build a node with all its parts. ``member`` has joined already; its auth server may be down. ``refused`` is
    called with a sentence when the auth server refuses a ping, and with "" when it accepts one. BadParameter."""
    if settings.rules.pam_service is not None and os.geteuid() != 0:
        raise BadParameter("PAM needs a node that runs as root: run it so, or set ssh_service.pam.enabled to no.")
    launcher = Launcher(reactor, settings.rules)
    parts = NodeParts(
        reactor,
        launcher,
        member.uuid,
        member.cluster,
        now,
        lambda: str(uuid.uuid4()),
        emitter,
        accept_env=settings.accept_env,
        gateway_ports=settings.gateway_ports,
    )
    launcher.held = partial(end_holders, parts)
    factory = ssh_server(reactor, NodeRealm(parts), member, options, name="node", emitter=emitter, now=now)
    labels = Labels(reactor, settings.labels, settings.commands, lambda: heartbeat.changed())
    description = Description(settings, member.uuid, member.cluster, labels)

    def ping_accepted() -> None:
        member.acknowledged()
        refused("")

    def ping_refused(error: TeleconchError) -> None:
        member.refused(error)
        refused(str(error))

    heartbeat = Heartbeat(
        reactor,
        member.client,
        description.current,
        instance=secrets.token_hex(16),
        chance=SystemRandom(),
        now=now,
        reached=ping_accepted,
        refused=ping_refused,
    )
    return NodeServer(endpoint, factory, parts, labels, description, heartbeat, settings.stop_deadline)


def _alone_at(addr: str | None) -> str | None:
    """The host in an address that proxies dial, if it belongs to this host alone."""
    host = host_of(addr or "")
    return host if host and not no_other_machine(host) else None
