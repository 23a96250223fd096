"""The auth role: state, authorities, and the auth API's listener."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch import defaults
from teleconch.api.hostfiles import HostFiles
from teleconch.api.interface import AuthAPI
from teleconch.api.server import APIServerFactory
from teleconch.api.tls import TLSCredentials, host_certificates, server_credentials
from teleconch.atomic import write_file
from teleconch.audit.emitter import Emitter
from teleconch.auth.authorities import Authorities, stored_cluster
from teleconch.auth.authorized import checked, tell_denied
from teleconch.auth.certificates import Certificates, TLSIdentity
from teleconch.auth.cluster import Cluster
from teleconch.auth.hosts import Hosts
from teleconch.auth.lockout import Lockouts
from teleconch.auth.login import LOGIN_PATIENCE, Logins
from teleconch.auth.names import Names
from teleconch.auth.passwords import AT_ONCE, InThread, Passwords
from teleconch.auth.presence import PresenceBook
from teleconch.auth.server import AuthServer, UseCases
from teleconch.auth.settings import AuthSettings
from teleconch.auth.signing import Signing
from teleconch.auth.signup import Signups
from teleconch.auth.sources import Watches
from teleconch.auth.state import State
from teleconch.auth.statuses import NodeStatuses
from teleconch.auth.tokens import Tokens
from teleconch.auth.users import Users
from teleconch.backend.interface import Backend
from teleconch.config.values import Config
from teleconch.resources.token import Token
from teleconch.service.role import JoinHow, Role, cannot_listen, listener
from teleconch.service.store import open_store, private_folder
from teleconch.turns import Turns

log = Logger()

_RENEW_LOOK: Final = defaults.HOUR


class AuthRole(Role):
    """After ``start``, ``server`` is the auth server, and ``join`` tells this process's other roles how to join."""

    name = "auth"

    def __init__(self, reactor: Any, config: Config, emitter: Emitter) -> None:
        self._reactor = reactor
        self._config = config
        self._backend: Backend | None = None
        self._emitter = emitter
        self._server: AuthServer | None = None
        self._port: IListeningPort | None = None
        self._factory: APIServerFactory | None = None
        self._own: TLSIdentity | None = None
        self._credentials: TLSCredentials | None = None
        self._names: tuple[str, ...] = ()
        self._renewing = LoopingCall(self._renew_if_due)
        self._renewing.clock = reactor
        self._uuid = ""

    @property
    def server(self) -> AuthServer:
        assert self._server is not None, "not started"
        return self._server

    async def start(self) -> None:
        config, reactor = self._config, self._reactor
        self._uuid = HostFiles(config.teleport.data_dir, self.name).uuid()
        self._backend = open_store(config.teleport.storage, reactor)
        cluster = config.auth_service.cluster_name or await stored_cluster(self._backend) or config.teleport.nodename
        settings = auth_settings(config, cluster)
        self._server = auth_server(self._backend, settings, clock=reactor, emitter=self._emitter)
        await self._server.start()
        self._names = tuple(address.host for address in config.auth_service.public_addr)
        self._renew()
        self._renewing.start(_RENEW_LOOK, now=False).addErrback(_broken)
        await self._listen()
        addr = str(config.auth_service.listen_addr)
        log.info("auth server of cluster {cluster} listens on {addr}", cluster=cluster, addr=addr)

    async def _listen(self) -> None:
        address, server, now = self._config.auth_service.listen_addr, self.server, self._reactor.seconds
        self._factory = APIServerFactory(
            self._reactor,
            lambda identity: checked(AuthAPI, server, identity, now, self._emitter),
            server.trusted,
            self._current_credentials,
            now,
            partial(tell_denied, self._emitter),
        )
        try:
            self._port = await listener(self._reactor, address).listen(self._factory)
        except CannotListenError as error:
            raise cannot_listen(error, address, "auth_service.listen_addr") from error

    async def stop(self) -> None:
        if self._renewing.running:
            self._renewing.stop()
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()  # type: ignore[misc]
        if self._factory is not None:
            self._factory.abort()
        if self._server is not None:
            await self._server.stop()
        if self._backend is not None:
            await self._backend.close()

    async def join_token(self) -> JoinHow:
        """How roles in this process join: with a token for them alone that lasts some minutes, and the pin."""
        token = await self.server.tokens.create_token(("node", "proxy"), 10 * defaults.MINUTE, None)
        return JoinHow(
            (str(self._config.auth_service.listen_addr.local),), token.value, (await self.server.facts.status()).ca_pins
        )

    async def forget_token(self, how: JoinHow) -> None:
        """The roles have joined: revoke the token of :meth:`join_token`."""
        if how.token is not None:
            await self.server.tokens.delete_token(how.token)

    async def forget_member(self, role: str) -> None:
        """Forget a role of this process, so that it may join again under this host's UUID."""
        await self.server.forget_host(self._uuid, role)

    # -- the auth server's own certificates

    def _current_credentials(self) -> TLSCredentials:
        assert self._credentials is not None
        return self._credentials

    def _renew_if_due(self) -> None:
        assert self._own is not None
        if self._own.valid_before - self._reactor.seconds() < defaults.HOST_CERT_TTL / 2:
            self._renew()

    def _renew(self) -> None:
        """Make new keys and certificates for the API's listener and for ``tctl`` on this host."""
        self._own = own = self.server.own_identity(self._uuid, self._names)
        self._credentials = server_credentials(own.certificate, own.private_key, own.authorities)
        admin = self.server.admin_identity(self._uuid)
        folder = Path(self._config.teleport.data_dir) / "admin"
        private_folder(folder)
        for name, text in (
            ("ca.crt", host_certificates(own.authorities)),
            ("tls.key", admin.private_key.reveal()),
            ("tls.crt", admin.certificate),
        ):
            write_file(folder / name, text.encode())


def auth_settings(config: Config, cluster: str) -> AuthSettings:
    """The settings in the configuration, for the auth server of ``cluster``."""
    auth = config.auth_service
    return AuthSettings(
        cluster=cluster,
        second_factor=auth.authentication.second_factor,
        static_tokens=tuple(
            Token(value=token.value, roles=token.roles, expires=None, static=True) for token in auth.tokens
        ),
    )


def auth_server(
    backend: Backend,
    settings: AuthSettings,
    *,
    clock: IReactorTime,
    emitter: Emitter,
    randomness: Callable[[int], bytes] = os.urandom,
    in_thread: InThread = deferToThread,
) -> AuthServer:
    """Build an auth server with all its parts. ``clock.seconds()`` returns epoch seconds; ``randomness(n)`` returns n
    random bytes; ``in_thread`` runs a function in a thread. BadParameter."""
    now, cluster, second_factor = clock.seconds, settings.cluster, settings.second_factor
    state = State(backend)
    passwords = Passwords(in_thread, settings.password_rounds)
    authorities = Authorities(state, cluster, clock, emitter)
    certificates = Certificates(authorities, cluster, now, randomness)
    tokens = Tokens(state, now, randomness, emitter, settings.static_tokens)
    names = Names(state, cluster, now)
    statuses = NodeStatuses(state, clock)
    lockouts = Lockouts(state, now)
    turns = Turns(clock, AT_ONCE, LOGIN_PATIENCE)
    users = Users(state, lockouts, second_factor, now, randomness, emitter)
    use_cases = UseCases(
        facts=Cluster(cluster, authorities, second_factor, now),
        hosts=Hosts(state, tokens, certificates, names, now, emitter),
        presence=PresenceBook(state, names, cluster, now, emitter),
        watches=Watches(statuses.source),
        tokens=tokens,
        users=users,
        logins=Logins(state, users, passwords, turns, lockouts, certificates, second_factor, now, emitter),
        signups=Signups(state, users, passwords, turns, cluster, now, emitter),
        signing=Signing(users, certificates, emitter),
    )
    return AuthServer(backend, clock, authorities, certificates, names, statuses, use_cases)


def _broken(failure: Failure) -> None:
    log.failure("the auth server's own certificate is not renewed any more; restart it", failure=failure)
