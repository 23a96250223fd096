"""One attacker, bounded in count, rate and time, on loopback: ``python attackers.py SECONDS KIND ARGUMENTS...``.

Says ``full`` once it has begun as many as it wants to hold. At its end, after SIGTERM or SECONDS, it prints one line of
JSON: ``begun``, ``ended`` by the other side or refused, ``standing``, and the ``most`` that stood at a time.

    silent PORT,PORT... COUNT RATE [N]      connections that say nothing, from N addresses that nobody else has
    version PORT,PORT... COUNT RATE         connections that send an SSH version line, and nothing more
    dials PORT IDENTITY NODE COUNT RATE     of one user, through a proxy, over which nothing is said
    windows PORT IDENTITY COUNT RATE        sessions of one user that never start, each with a filled window
    api PORT IDENTITY COUNT RATE            connections of one user to the auth API
    logins PORT COUNT RATE                  with a wrong password
"""

from __future__ import annotations

import getpass
import json
import resource
import sys
import time
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from teleconch.api.connection import endpoint_of, open_connection
from teleconch.api.tls import TLSCredentials, member_tls
from teleconch.client.identity import read_identity
from teleconch.codec import string, uint32
from teleconch.ssh import client
from teleconch.ssh.channel import Channel
from tests.worlds.reactor import reactor

STEPS = 50  # of the rate's clock, a second
FIRST = 1000.0  # a second, until it has begun as many as it wants to hold


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Attacker:
    """Keeps ``count`` of something open, begun at ``rate`` a second."""

    def __init__(self, count: int, rate: float) -> None:
        self.count, self.rate = count, rate
        self.begun = self.ended = self.open = self.standing = self.most = 0
        self.said = False

    def run(self) -> None:
        LoopingCall(self.more).start(1 / STEPS).addErrback(lambda failure: sys.stderr.write(failure.getTraceback()))

    def more(self) -> None:
        rate = self.rate if self.said else max(self.rate, FIRST)
        for _ in range(min(int(rate / STEPS) or 1, self.count - self.open)):
            self.open += 1
            self.begun += 1
            Deferred.fromCoroutine(self.begin()).addErrback(lambda _: self.lost(False))
        if not self.said and self.begun >= self.count:
            self.said = True
            say("full")

    async def begin(self) -> None:
        raise NotImplementedError

    def stands(self) -> None:
        self.standing += 1
        self.most = max(self.most, self.standing)

    def lost(self, stood: bool = True) -> None:
        self.open -= 1
        self.standing -= stood
        self.ended += 1

    def tell(self) -> None:
        say(json.dumps({name: getattr(self, name) for name in ("begun", "ended", "standing", "most")}))


class _Held(Protocol):
    def __init__(self, attacker: Attacker, line: bytes) -> None:
        self.attacker, self.line = attacker, line

    def connectionMade(self) -> None:
        self.attacker.stands()
        if self.line:
            self.transport.write(self.line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.attacker.lost()


class Silent(Attacker):
    line = b""

    def __init__(self, ports: str, count: str, rate: str, sources: str = "0") -> None:
        super().__init__(int(count), float(rate))
        own: list[Any] = [(f"127.0.1.{each + 1}", 0) for each in range(int(sources))]
        self.endpoints = [
            TCP4ClientEndpoint(reactor, "127.0.0.1", int(port), timeout=10, bindAddress=source)
            for port in ports.split(",")
            for source in (own or [None])
        ]

    async def begin(self) -> None:
        await self.endpoints[self.begun % len(self.endpoints)].connect(
            Factory.forProtocol(lambda: _Held(self, self.line))
        )


class Version(Silent):
    line = b"SSH-2.0-OpenSSH_9.9\r\n"


class _Channel(Channel):
    name = b"direct-tcpip"

    def __init__(self, attacker: Attacker) -> None:
        super().__init__()
        self.attacker = attacker

    def channelOpen(self, data: bytes) -> None:
        self.attacker.stands()

    def closed(self) -> None:
        self.attacker.lost()


async def log_in(port: str, identity: Any) -> Any:
    return await client.connect(
        reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", int(port)), user=getpass.getuser(),
        private_key_pem=identity.ssh_private_key, certificate=identity.ssh_cert, verify_host=lambda _: None,
    )  # fmt: skip


class Dials(Attacker):
    connections = 4

    def __init__(self, port: str, identity: str, node: str, count: str, rate: str) -> None:
        super().__init__(int(count), float(rate))
        self.port, self.identity, self.node = port, read_identity(identity), node
        self.links: list[Any] = []

    def run(self) -> None:
        Deferred.fromCoroutine(self.prepare()).addErrback(lambda failure: sys.stderr.write(failure.getTraceback()))

    async def prepare(self) -> None:
        self.links = [await log_in(self.port, self.identity) for _ in range(self.connections)]
        super().run()

    async def begin(self) -> None:
        target = string(self.node.encode()) + uint32(22) + string(b"127.0.0.1") + uint32(1)
        await self.links[self.begun % len(self.links)].open(_Channel(self), target)


class _Session(_Channel):
    name = b"session"

    def channelOpen(self, data: bytes) -> None:
        super().channelOpen(data)
        self.conn.sendRequest(self, b"env", string(b"LANG") + string(b"x" * 20_000))
        self.write(bytes(min(self.remoteWindowLeft, 256 * 1024)))


class Windows(Dials):
    connections = 8

    def __init__(self, port: str, identity: str, count: str, rate: str) -> None:
        super().__init__(port, identity, "", count, rate)

    async def begin(self) -> None:
        link = self.links[self.begun % len(self.links)]
        if link.transport.ended:
            self.links[self.begun % len(self.links)] = link = await log_in(self.port, self.identity)
        await link.open(_Session(self))


class API(Attacker):
    def __init__(self, port: str, identity: str, count: str, rate: str) -> None:
        super().__init__(int(count), float(rate))
        found = read_identity(identity)
        credentials = TLSCredentials(found.tls_cert, found.tls_private_key)
        self.tls = member_tls(lambda: credentials, lambda: found.authorities, time.time)
        self.endpoint = endpoint_of(reactor, f"127.0.0.1:{port}", 10)

    async def begin(self) -> None:
        broker = await open_connection(reactor, self.endpoint, self.tls, 20)
        self.stands()
        broker.lost.addCallback(lambda _: self.lost())


class _Post(Protocol):
    def __init__(self, attacker: Attacker) -> None:
        self.attacker = attacker

    def connectionMade(self) -> None:
        self.attacker.stands()
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDIhz2GK/XCUj4i6Q5yQJNL1MKDkYdAHk9J+aqhpXXXX"
        body = json.dumps({"user": "joe", "password": "wrong wrong", "otp_token": "", "pub_key": key}).encode()
        head = b"POST /webapi/ssh/certs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        self.transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.attacker.lost()


class Logins(Attacker):
    def __init__(self, port: str, count: str, rate: str) -> None:
        super().__init__(int(count), float(rate))
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", int(port), timeout=10)
        self.endpoint = wrapClientTLS(ssl.CertificateOptions(), plain)

    async def begin(self) -> None:
        await self.endpoint.connect(Factory.forProtocol(lambda: _Post(self)))


KINDS = {kind.__name__.lower(): kind for kind in (Silent, Version, Dials, Windows, API, Logins)}

if __name__ == "__main__":
    seconds, name, *arguments = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    made = KINDS[name](*arguments)
    reactor.callWhenRunning(made.run)
    reactor.callLater(float(seconds), reactor.stop)
    reactor.addSystemEventTrigger("before", "shutdown", made.tell)
    reactor.run()
