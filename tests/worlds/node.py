"""A node with real certificates on loopback in the test's reactor, and OpenSSH's ssh as its client."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ProcessExitedAlready

from teleconch.ca.authority import new_authority, trusted
from teleconch.ca.keys import new_ssh_key
from teleconch.ca.ssh import PERMITS
from teleconch.errors import ConnectionProblem, TeleconchError
from teleconch.node.service import NodeServer
from teleconch.node.settings import NodeSettings
from teleconch.resources.authority import CertAuthority, TrustedAuthority
from teleconch.resources.host import Ping, RenewRequest
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.service.events import LogEmitter
from teleconch.service.node import node_server
from teleconch.ssh.client import ClientOptions, connect
from teleconch.ssh.connection import Connection
from tests.worlds.certificates import HOUR, UUID, host_cert, user_cert
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.reactor import port_of, reactor

ME = getpass.getuser()  # an ordinary user's node lets in nobody else
CLUSTER = "example.com"


@define
class Authorities:
    """The user and host authority of a cluster, and what they issue."""

    cluster: str = CLUSTER
    user: CertAuthority = field(init=False)
    host: CertAuthority = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.user = new_authority("user", self.cluster, time.time())
        self.host = new_authority("host", self.cluster, time.time())

    def trusted(self) -> tuple[TrustedAuthority, ...]:
        return trusted(self.user), trusted(self.host)

    def user_cert(
        self, public: str, logins: tuple[str, ...], after: float = -60, before: float = HOUR, extensions: Any = PERMITS
    ) -> str:
        now = time.time()
        return user_cert(
            self.user,
            public,
            logins=logins,
            traits={"logins": logins},
            extensions=extensions,
            valid_after=now + after,
            valid_before=now + before,
        )

    def host_cert(self, public: str, uuid: str = UUID) -> str:
        return host_cert(self.host, public, uuid=uuid)


@define(slots=False)  # tests replace its methods
class Auth:
    """An auth server's side of pings. ``down`` makes every call fail as when nobody listens."""

    down: bool = False
    pings: list[tuple[Node, str]] = field(factory=list)
    goodbyes: list[str] = field(factory=list)
    answer: Callable[[], Ping] = lambda: Ping(60, time.time())

    async def renew(self, request: RenewRequest) -> Any:
        raise ConnectionProblem("not here")

    async def heartbeat(self, node: Node, instance: str) -> Ping:
        if self.down:
            raise ConnectionProblem("No auth server can be reached.")
        self.pings.append((node, instance))
        return self.answer()

    async def goodbye(self, instance: str) -> None:
        if self.down:
            raise ConnectionProblem("No auth server can be reached.")
        self.goodbyes.append(instance)


@define
class Member:
    """A host that has joined."""

    authority: Authorities
    client: Auth = field(factory=Auth)
    uuid: str = UUID
    cluster: str = CLUSTER
    also: tuple[TrustedAuthority, ...] = ()  # of other clusters
    answers: list[TeleconchError | None] = field(factory=list)  # to its pings: None, or a refusal
    keys: tuple[Secret, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        private, public = new_ssh_key()
        self.keys = (private, self.authority.host_cert(public, self.uuid))

    def host_keys(self) -> tuple[Secret, str]:
        return self.keys

    def authorities(self) -> tuple[TrustedAuthority, ...]:
        return self.authority.trusted() + self.also

    def acknowledged(self) -> None:
        self.answers.append(None)

    def refused(self, error: TeleconchError) -> None:
        self.answers.append(error)


@define
class Result:
    """What a client's run gave."""

    out: bytes
    err: bytes
    code: int | None
    signal: int | None


class Client(protocol.ProcessProtocol):
    """A client program; its output is collected."""

    def __init__(self, stdin: bytes | None) -> None:
        self._stdin = stdin
        self.out = b""
        self.err = b""
        self.done: Deferred[Result] = Deferred()
        self._wanted: tuple[bytes, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        if self._stdin is not None:
            self.transport.write(self._stdin)
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.out += data
        if self._wanted is not None and self._wanted[0] in self.out:
            wanted, self._wanted = self._wanted, None
            wanted[1].callback(None)

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def until(self, text: bytes) -> Deferred[None]:
        """Fires when the output has ``text``."""
        self._wanted = (text, Deferred())
        deferred = self._wanted[1]
        deferred.addTimeout(20, reactor)
        self.outReceived(b"")
        return deferred

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def kill(self) -> None:
        with contextlib.suppress(ProcessExitedAlready):  # a child of its own may still hold its output
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Any) -> None:
        value = reason.value
        self.done.callback(Result(self.out, self.err, value.exitCode, value.signal))


@define
class World:
    """A node, its authorities, a client's key and certificate, and the log of what happened."""

    path: Path
    authorities: Authorities
    member: Member
    node: NodeServer
    port: int = 0
    events: list[dict[str, Any]] = field(factory=list)
    clients: list[Client] = field(factory=list)

    def key(self, name: str = "key") -> Path:
        """A key pair of the client's; made on first use."""
        file = self.path / name
        if not file.exists():
            private, public = new_ssh_key()
            file.touch(0o600)
            file.write_text(private.reveal())
            (self.path / f"{name}.pub").write_text(public + "\n")
        return file

    def public(self, name: str = "key") -> str:
        self.key(name)
        return (self.path / f"{name}.pub").read_text()

    def certificate(self, line: str, name: str = "key") -> None:
        (self.path / f"{name}-cert.pub").write_text(line + "\n")

    def allow(self, *logins: str, **how: Any) -> None:
        """Give the client a certificate for ``logins``."""
        self.certificate(self.authorities.user_cert(self.public(), logins or (ME,), **how))

    def ssh_line(self, *options: str, login: str = ME) -> list[str]:
        known = self.path / "known_hosts"
        known.write_text(f"@cert-authority * {self.authorities.host.ssh_public_key}\n")
        return [
            *("ssh", "-F", "/dev/null", "-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "ConnectTimeout=10", "-i", str(self.key()), "-p", str(self.port), "-l", login),
            *options,
        ]

    def start(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        login: str = ME,
        stdin: bytes | None = b"",
        env: dict[str, str] | None = None,
        pty: bool = False,
    ) -> Client:
        """Run ssh; ``stdin=None`` leaves its stdin open."""
        client = Client(stdin)
        line = [*self.ssh_line(*options, login=login), "127.0.0.1", *command]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.path), "TERM": "xterm"} | (env or {})
        reactor.spawnProcess(client, line[0], line, environment, usePTY=pty)
        client.done.addTimeout(30, reactor)
        self.clients.append(client)
        return client

    async def connect(self, login: str = ME, certificate: str | None = None, **options: Any) -> Connection:
        """Log in with our own client, which offers what OpenSSH's would not."""
        key = self.key()
        return await connect(
            reactor,
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
            user=login,
            private_key_pem=Secret(key.read_text()),
            certificate=certificate or (self.path / "key-cert.pub").read_text(),
            verify_host=lambda blob: None,
            options=ClientOptions(**options),
        )

    async def ssh(self, *command: str, **how: Any) -> Result:
        return await self.start(*command, **how).done

    def close(self) -> Deferred[None]:
        """Stop the node; fires when all is gone."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self.node.stopService()
        for client in self.clients:
            if not client.done.called:
                client.kill()
                await client.done
        remove_observer(self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            each
            for each in self.events
            if each.get("event") == event and all(each.get(name) == value for name, value in fields.items())
        ]


async def running_node(path: Path, down: bool = False, now: Callable[[], float] = time.time, **how: Any) -> World:
    """A node that listens, and a client's certificate for root. ``how`` are of its settings. The caller closes the
    world."""
    authorities = Authorities()
    member = Member(authorities, Auth(down))
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    given: dict[str, Any] = {"nodename": "box", "stop_deadline": 0} | how
    settings = NodeSettings(**given)
    node = node_server(reactor, member, endpoint, settings, emitter=LogEmitter(), now=now)
    world = World(path, authorities, member, node)
    add_observer(world.observe)
    node.startService()
    world.port = port_of(await node.listening)
    world.allow()
    return world


def alive(pid: int) -> bool:
    """Whether a process exists (zombies too, but for those that are left to a PID 1 that reaps nothing)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[:2] != ["Z", "1"]


def own_signals(status: bytes) -> list[int]:
    """The masks in lines of ``/proc/PID/status``, without signals 32 and 33: those are libc's, nobody can set them."""
    return [int(line.split()[1], 16) & ~(3 << 31) for line in status.splitlines()]
