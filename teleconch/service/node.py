"""The node role: join, SSH server, pings."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread

from teleconch.api.membership import Membership
from teleconch.audit.emitter import Emitter
from teleconch.config.addresses import Address
from teleconch.config.values import Config
from teleconch.node.labels import LabelCommand
from teleconch.node.launch import oom
from teleconch.node.service import NodeServer
from teleconch.node.start import LoginRules
from teleconch.resources.addresses import host_of, no_other_machine
from teleconch.service.role import (
    JoinHow,
    Role,
    address_toward,
    auth_is_here,
    cannot_listen,
    host_names,
    listener,
    server_options,
)


class NodeRole(Role):
    """One node."""

    name = "node"

    def __init__(self, reactor: Any, config: Config, how: JoinHow, emitter: Emitter) -> None:
        self._reactor = reactor
        self._config = config
        self._how = how
        self._emitter = emitter
        self._membership: Membership | None = None
        self._server: NodeServer | None = None

    async def start(self) -> None:
        config, ssh = self._config, self._config.ssh_service
        here = await deferToThread(auth_is_here, self._how.auth_servers)
        addr = await self._dialled_address()
        self._membership = membership = Membership(
            self._reactor,
            data_dir=config.teleport.data_dir,
            role=self.name,
            nodename=config.teleport.nodename,
            addresses=host_names(config, [ssh.listen_addr], ssh.public_addr, here),
            found_at=_alone_at(addr),
            auth_servers=self._how.auth_servers,
            token=self._how.token,
            token_problem=self._how.token_problem,
            ca_pins=self._how.ca_pins,
            now=self._reactor.seconds,
        )
        await membership.start()
        oom.protect()
        self._server = NodeServer(
            self._reactor,
            membership,
            listener(self._reactor, ssh.listen_addr),
            nodename=config.teleport.nodename,
            addr=addr,
            public_addrs=[str(address) for address in ssh.public_addr],
            labels=ssh.labels,
            commands=[LabelCommand(each.name, each.command, each.period) for each in ssh.commands],
            accept_env=ssh.accept_env,
            gateway_ports=ssh.gateway_ports,
            rules=LoginRules(ssh.pam_service, ssh.permit_user_env),
            options=server_options(config),
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
        """Where proxies reach this node: advertise_ip, or where it listens, or its address toward the auth server."""
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
        if self._membership is not None:
            self._membership.stop()


def _alone_at(addr: str | None) -> str | None:
    """The host of an address that proxies are to dial, where it is the host's alone."""
    host = host_of(addr or "")
    return host if host and not no_other_machine(host) else None
