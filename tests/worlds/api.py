"""A real auth server behind the API's two implementations, in process and over TLS on loopback."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from teleconch.api.client import AuthClient
from teleconch.api.connection import ClientBroker, endpoint_of, open_connection
from teleconch.api.interface import AuthAPI
from teleconch.api.server import APILimits, APIServerFactory
from teleconch.api.tls import (
    ClientTLS,
    FirstContact,
    TLSCredentials,
    member_tls,
    newcomer_tls,
    server_credentials,
)
from teleconch.auth.authorized import checked, tell_denied
from teleconch.auth.records import HostRecord, UserRecord, host_key, user_key
from teleconch.auth.settings import AuthSettings
from teleconch.auth.state import put
from teleconch.backend.interface import ABSENT
from teleconch.backend.memory import MemoryBackend
from teleconch.ca.authority import ca_pin, new_authority, trusted
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.ca.tls import issue_host_tls, issue_user_tls
from teleconch.errors import CompareFailed
from teleconch.resources.authority import CertAuthority, TrustedAuthority
from teleconch.resources.host import JoinRequest
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.kind import Change
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User
from teleconch.service.auth import auth_server
from teleconch.service.events import LogEmitter
from tests.worlds.auth import Server
from tests.worlds.reactor import port_of, reactor

CLUSTER = "example.com"
TOKEN = "static-token"
START = 1_700_000_000.0


@implementer(ILogObserver)
class Log:
    """What was logged while the test ran."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def refusals(self) -> list[dict[str, Any]]:
        """Audit events of what was refused, with who and where."""
        return [each for each in self.events if each.get("success") is False]

    def __enter__(self) -> Log:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)


class World:
    """A cluster with one auth server that listens on loopback. Time is ``clock``; sockets are real."""

    def __init__(self, cluster: str = CLUSTER, limits: APILimits | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.cluster = cluster
        self.limits = limits or APILimits()
        self.backend = MemoryBackend(self.clock.seconds)
        static = Token(Secret(TOKEN), ("node", "proxy"), None, static=True)
        settings = AuthSettings(cluster, "off", (static,), password_rounds=4)
        server = auth_server(self.backend, settings, clock=self.clock, emitter=LogEmitter())
        self.server = cast("Server", server)
        self.clients: list[AuthClient] = []

    @property
    def now(self) -> Callable[[], float]:
        return self.clock.seconds

    async def start(self) -> None:
        await self.server.start()
        # The authorities' private halves, for certificates that the API would not give.
        self.cas = {kind: self.server._authorities.get(kind) for kind in ("user", "host")}
        self.trusted = await self.server.authorities()
        own = self.server.own_identity(str(uuid.uuid4()))
        self.credentials = server_credentials(own.certificate, own.private_key, own.authorities)
        await self.listen()

    async def listen(self, port: int = 0) -> None:
        self.factory = APIServerFactory(
            self.clock, self.authorized, lambda: self.trusted, lambda: self.credentials, self.now,
            partial(tell_denied, LogEmitter()), self.limits, reactor,
        )  # fmt: skip
        self.port = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(self.factory)
        self.address = f"127.0.0.1:{port_of(self.port)}"

    async def deafen(self) -> None:
        """Stop listening and drop every connection, as a killed server would."""
        await maybeDeferred(self.port.stopListening)
        self.factory.abort()

    async def stop(self) -> None:
        for each in self.clients:
            each.close()
        await self.deafen()
        await self.server.stop()
        await self.backend.close()

    def authorized(self, identity: ApiIdentity) -> AuthAPI:
        return checked(AuthAPI, self.server, identity, self.now, LogEmitter())

    @property
    def pin(self) -> str:
        return ca_pin(self.cas["host"].tls_cert)

    # -- who calls

    def record(self, kind: str, name: str, roles: tuple[str, ...]) -> None:
        """Have the cluster know whoever a certificate is made for below, as if by a join or a `tctl users add`."""
        if kind == "user":
            self._store(user_key(name), UserRecord(User(name)))
        for role in roles if kind == "host" else ():
            self._store(host_key(name, role), HostRecord(name, role, "web1", (), "", "", START, START))

    def _store(self, key: str, entry: HostRecord | UserRecord) -> None:
        try:
            self.backend.commit(put(key, entry, expect=ABSENT)).send(None)  # the memory store never waits
        except StopIteration:
            pass
        except CompareFailed:
            pass  # known already

    def tls_credentials(
        self,
        kind: str,
        name: str,
        roles: tuple[str, ...],
        ca: CertAuthority | None = None,
        begin: float = -60,
        end: float = 3600,
        names: tuple[str, ...] = (),
    ) -> TLSCredentials:
        self.record(kind, name, roles)
        private, public = new_tls_key()
        life: dict[str, Any] = {"valid_after": self.now() + begin, "valid_before": self.now() + end, "serial": 7}
        if kind == "host":
            pem = issue_host_tls(
                ca or self.cas["host"], uuid=name, roles=roles, dns_names=names, public_key=public, **life
            )
        else:
            pem = issue_user_tls(ca or self.cas["user"], user=name, roles=roles, public_key=public, **life)
        return TLSCredentials(pem, private)

    def trusting(self, credentials: TLSCredentials) -> ClientTLS:
        """A TLS client with these credentials that knows the auth server."""
        return member_tls(lambda: credentials, lambda: self.trusted, self.now)

    def client(self, tls: ClientTLS, **options: Any) -> AuthAPI:
        options = {"chance": random.Random(1), **options}
        client = AuthClient(reactor, [self.address], tls, **options)
        self.clients.append(client)
        return client.api

    def member(self, kind: str, name: str, roles: tuple[str, ...], **changes: Any) -> AuthAPI:
        return self.client(self.trusting(self.tls_credentials(kind, name, roles, **changes)))

    def newcomer(self, *pins: str) -> AuthAPI:
        return self.client(newcomer_tls(FirstContact(pins, self.now).check))

    async def raw(self, tls: ClientTLS, **options: Any) -> tuple[ClientBroker, Any]:
        """A connection below ``AuthClient``: (broker, its root), for what a client would not send."""
        broker = await open_connection(reactor, endpoint_of(reactor, self.address, 5), tls, 5)
        return broker, broker.root

    def anonymous_tls(self) -> ClientTLS:
        return ClientTLS(lambda: None, lambda chain: None)

    # -- what is asked

    def join_request(self, **changes: Any) -> JoinRequest:
        request = JoinRequest(
            token=Secret(TOKEN),
            uuid=str(uuid.uuid4()),
            nodename="web1",
            role="node",
            ssh_public_key=new_ssh_key()[1],
            tls_public_key=new_tls_key()[1],
            addresses=("192.0.2.7",),
            time=self.now(),
            version="0.1.0",
        )
        return evolve(request, **changes)


class InProcess:
    """The API without a wire."""

    def __init__(self, world: World) -> None:
        self.world = world

    def anonymous(self) -> AuthAPI:
        return self.world.authorized(ANONYMOUS)

    def host(self, name: str, *roles: str) -> AuthAPI:
        self.world.record("host", name, roles)
        return self.world.authorized(ApiIdentity("host", name, roles, CLUSTER, self.world.now() + 3600))

    def user(self, name: str) -> AuthAPI:
        self.world.record("user", name, ("user",))
        return self.world.authorized(ApiIdentity("user", name, ("user",), CLUSTER, self.world.now() + 3600))


class OnTheWire:
    """The API over Perspective Broker and TLS."""

    def __init__(self, world: World) -> None:
        self.world = world

    def anonymous(self) -> AuthAPI:
        return self.world.newcomer(self.world.pin)

    def host(self, name: str, *roles: str) -> AuthAPI:
        return self.world.member("host", name, roles)

    def user(self, name: str) -> AuthAPI:
        return self.world.member("user", name, ("user",))


class Ears:
    """A receiver of changes."""

    def __init__(self) -> None:
        self.events: list[Change[Any]] = []
        self.calls = 0
        self.wholes = self.ended = 0

    def changes(self, changes: tuple[Change[Any], ...]) -> None:
        self.calls += 1
        self.events.extend(changes)

    def whole(self) -> None:
        self.wholes += 1

    def watch_ended(self) -> None:
        self.ended += 1


def other_world(cluster: str = CLUSTER) -> tuple[CertAuthority, TrustedAuthority]:
    """Authorities of someone else: (host authority, its trusted form)."""
    authority = new_authority("host", cluster, START)
    return authority, trusted(authority)
