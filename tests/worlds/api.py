"""A real auth server behind the API's two implementations, in process and over TLS on loopback."""

from __future__ import annotations

import random
import uuid
from functools import partial

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock, deferLater
from twisted.logger import globalLogPublisher

from teleconch.api.client import AuthClient
from teleconch.api.connection import endpoint_of, open_connection
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
from teleconch.resources.host import JoinRequest
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User
from teleconch.service.auth import auth_server
from teleconch.service.events import LogEmitter

CLUSTER = "example.com"
TOKEN = "static-token"
START = 1_700_000_000.0


def spawn(coroutine):
    return Deferred.fromCoroutine(coroutine)


async def until(condition, turns=500):
    """Wait for what the reactor is about to do."""
    for _ in range(turns):
        if condition():
            return
        await deferLater(reactor, 0.005)
    raise AssertionError("it never happened")


class Log:
    """What was logged while the test ran."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def refusals(self):
        """Audit events of what was refused, with who and where."""
        return [each for each in self.events if each.get("success") is False]

    def __enter__(self):
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_):
        globalLogPublisher.removeObserver(self)


class World:
    """A cluster with one auth server that listens on loopback. Time is ``clock``; sockets are real."""

    def __init__(self, cluster=CLUSTER, limits=None):
        self.clock = Clock()
        self.clock.advance(START)
        self.cluster = cluster
        self.limits = limits or APILimits()
        self.backend = MemoryBackend(self.clock.seconds)
        static = Token(Secret(TOKEN), ("node", "proxy"), None, static=True)
        self.server = auth_server(
            self.backend,
            AuthSettings(cluster, "off", (static,), password_rounds=4),
            clock=self.clock,
            emitter=LogEmitter(),
        )
        self.port = None
        self.factory = None
        self.clients = []

    @property
    def now(self):
        return self.clock.seconds

    async def start(self):
        await self.server.start()
        # The authorities' private halves, for certificates that the API would not give.
        self.cas = {kind: self.server._authorities.get(kind) for kind in ("user", "host")}
        self.trusted = await self.server.authorities()
        own = self.server.own_identity(str(uuid.uuid4()))
        self.credentials = server_credentials(own.certificate, own.private_key, own.authorities)
        await self.listen()

    async def listen(self, port=0):
        self.factory = APIServerFactory(
            self.clock, self.authorized, lambda: self.trusted, lambda: self.credentials, self.now,
            partial(tell_denied, LogEmitter()), self.limits, reactor,
        )  # fmt: skip
        self.port = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(self.factory)
        self.address = f"127.0.0.1:{self.port.getHost().port}"

    async def deafen(self):
        """Stop listening and drop every connection, as a killed server would."""
        await maybeDeferred(self.port.stopListening)
        self.factory.abort()

    async def stop(self):
        for each in self.clients:
            each.close()
        await self.deafen()
        await self.server.stop()
        await self.backend.close()

    def authorized(self, identity):
        return checked(AuthAPI, self.server, identity, self.now, LogEmitter())

    @property
    def pin(self):
        return ca_pin(self.cas["host"].tls_cert)

    # -- who calls

    def record(self, kind, name, roles):
        """Have the cluster know whoever a certificate is made for below, as if by a join or a `tctl users add`."""
        if kind == "user":
            self._store(user_key(name), UserRecord(User(name)))
        for role in roles if kind == "host" else ():
            self._store(host_key(name, role), HostRecord(name, role, "web1", (), "", "", START, START))

    def _store(self, key, entry):
        try:
            self.backend.commit(put(key, entry, expect=ABSENT)).send(None)  # the memory store never waits
        except StopIteration:
            pass
        except CompareFailed:
            pass  # known already

    def tls_credentials(self, kind, name, roles, ca=None, begin=-60, end=3600, names=()):
        self.record(kind, name, roles)
        private, public = new_tls_key()
        life = {"valid_after": self.now() + begin, "valid_before": self.now() + end, "serial": 7}
        if kind == "host":
            pem = issue_host_tls(
                ca or self.cas["host"], uuid=name, roles=roles, dns_names=names, public_key=public, **life
            )
        else:
            pem = issue_user_tls(ca or self.cas["user"], user=name, roles=roles, public_key=public, **life)
        return TLSCredentials(pem, private)

    def trusting(self, credentials):
        """A TLS client with these credentials that knows the auth server."""
        return member_tls(lambda: credentials, lambda: self.trusted, self.now)

    def client(self, tls, **options):
        options = {"chance": random.Random(1), **options}
        client = AuthClient(reactor, [self.address], tls, **options)
        self.clients.append(client)
        return client.api

    def member(self, kind, name, roles, **changes):
        return self.client(self.trusting(self.tls_credentials(kind, name, roles, **changes)))

    def newcomer(self, *pins):
        return self.client(newcomer_tls(FirstContact(pins, self.now).check))

    async def raw(self, tls, **options):
        """A connection below ``AuthClient``: (broker, its root), for what a client would not send."""
        broker = await open_connection(reactor, endpoint_of(reactor, self.address, 5), tls, 5)
        return broker, broker.root

    def anonymous_tls(self):
        return ClientTLS(lambda: None, lambda chain: None)

    # -- what is asked

    def join_request(self, **changes):
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

    def __init__(self, world):
        self.world = world

    def anonymous(self):
        return self.world.authorized(ANONYMOUS)

    def host(self, name, *roles):
        self.world.record("host", name, roles)
        return self.world.authorized(ApiIdentity("host", name, roles, CLUSTER, self.world.now() + 3600))

    def user(self, name):
        self.world.record("user", name, ("user",))
        return self.world.authorized(ApiIdentity("user", name, ("user",), CLUSTER, self.world.now() + 3600))


class OnTheWire:
    """The API over Perspective Broker and TLS."""

    def __init__(self, world):
        self.world = world

    def anonymous(self):
        return self.world.newcomer(self.world.pin)

    def host(self, name, *roles):
        return self.world.member("host", name, roles)

    def user(self, name):
        return self.world.member("user", name, ("user",))


class Ears:
    """A receiver of changes."""

    def __init__(self):
        self.events = []
        self.calls = 0
        self.wholes = self.ended = 0

    def changes(self, changes):
        self.calls += 1
        self.events.extend(changes)

    def whole(self):
        self.wholes += 1

    def watch_ended(self):
        self.ended += 1


def other_world(cluster=CLUSTER):
    """Authorities of someone else: (host authority, its trusted form)."""
    authority = new_authority("host", cluster, START)
    return authority, trusted(authority)
