"""A proxy on loopback, users with certificates, and OpenSSH's sshd as a node with a certificate of the cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from twisted.internet import utils
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater

from teleconch.api.interface import Receiver
from teleconch.ca.authority import new_authority, trusted
from teleconch.ca.keys import new_ssh_key
from teleconch.proxy.directory import Directory
from teleconch.proxy.router import Router
from teleconch.proxy.server import ProxyParts
from teleconch.proxy.service import ProxyServer
from teleconch.resources.authority import CertAuthority, TrustedAuthority
from teleconch.resources.kind import NODES, Change, Kind
from teleconch.resources.node import Node, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.service.events import LogEmitter
from teleconch.service.proxy import proxy_server
from tests.worlds.certificates import host_cert, user_cert
from tests.worlds.reactor import reactor

CLUSTER = "example.test"


def new_uuid(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def status(node: Node, online: bool = True, last_seen: float = 0.0) -> NodeStatus:
    return NodeStatus(node, last_seen or time.time(), online, time.time() + 600)


def node(number: int, nodename: str, addr: str | None = "10.0.0.1:3022", **more: Any) -> Node:
    return Node(new_uuid(number), nodename, CLUSTER, addr, **more)


def told(*nodes: Node | NodeStatus) -> tuple[Change[NodeStatus], ...]:
    statuses = [each if isinstance(each, NodeStatus) else status(each) for each in nodes]
    return tuple(Change(each.node.uuid, each) for each in statuses)


def router(*nodes: Node | NodeStatus, now: float = 0.0) -> Router:
    directory = Directory(lambda: now)
    directory.apply(told(*nodes))
    directory.whole()
    return Router(directory, CLUSTER)


class _Watch:
    def __init__(self, source: NodeList) -> None:
        self.source = source

    def stop(self) -> None:
        self.source.stopped += 1


class NodeList:
    """What auth knows of nodes, held in a list: the method of the API that a proxy calls for them."""

    def __init__(self) -> None:
        self.statuses: dict[str, NodeStatus] = {}
        self.receivers: list[Receiver[Any]] = []
        self.stopped = 0
        self.problem: Exception | None = None

    def put(self, *nodes: Node | NodeStatus) -> None:
        for event in told(*nodes):
            assert event.value is not None
            self.statuses[event.key] = event.value
            for receiver in self.receivers[-1:]:
                receiver.changes((event,))

    async def watch(self, kind: Kind[Any], receiver: Receiver[Any]) -> _Watch:
        assert kind is NODES
        if self.problem is not None:
            raise self.problem
        self.receivers.append(receiver)
        receiver.changes(tuple(Change(uuid, each) for uuid, each in self.statuses.items()))
        receiver.whole()
        return _Watch(self)


class Member:
    """A host that has joined: keys, certificate, authorities."""

    cluster = CLUSTER
    uuid = new_uuid(99)

    def __init__(self) -> None:
        now = time.time()
        self.user_ca = new_authority("user", CLUSTER, now)
        self.also: tuple[TrustedAuthority, ...] = ()
        self.host_ca = new_authority("host", CLUSTER, now)
        self.key, public = new_ssh_key()
        self.certificate = self.host_certificate(public, "proxy", ("127.0.0.1", "localhost"), "proxy")

    def host_certificate(
        self, public: str, name: str, addresses: tuple[str, ...], role: str = "node", number: int = 99
    ) -> str:
        return host_cert(self.host_ca, public, uuid=new_uuid(number), nodename=name, roles=(role,), addresses=addresses)

    def host_keys(self) -> tuple[Secret, str]:
        return self.key, self.certificate

    def authorities(self) -> tuple[TrustedAuthority, ...]:
        return trusted(self.user_ca), trusted(self.host_ca), *self.also


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text if text.endswith("\n") else text + "\n")
    path.chmod(mode)
    return path


class World:
    """``await World(folder).start()``; ``await world.ssh(...)`` runs the real client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.member = Member()
        self.nodes = NodeList()
        self.sshds: list[subprocess.Popen[bytes]] = []
        self.server: ProxyServer | None = None
        self.port = 0

    async def start(self, auth_addresses: tuple[str, ...] = (), **more: Any) -> World:
        self.server = proxy_server(
            reactor,
            self.member,
            self.nodes,
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            auth_addresses=auth_addresses,
            emitter=LogEmitter(),
            **more,
        )
        self.server.startService()
        own: Any = await self.server.listening()
        self.port = own.port
        self.user_files("alice", ("root", "alice"))
        host_keys = "".join(f"@cert-authority * {line}\n" for line in trusted(self.member.host_ca).ssh_public_keys)
        write(self.folder / "known_hosts", host_keys)
        return self

    @property
    def parts(self) -> ProxyParts:
        """What the users of the proxy share."""
        parts: ProxyParts = self.server._factory.portal.realm._parts
        return parts

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stopService()
        for sshd in self.sshds:
            sshd.terminate()
            sshd.wait(10)

    def user_files(
        self,
        user: str,
        logins: tuple[str, ...],
        *,
        lasts: float = 3600,
        ca: CertAuthority | None = None,
        name: str = "",
    ) -> Path:
        """A user's key and certificate; the path of the key."""
        key, public = new_ssh_key()
        line = user_cert(
            ca or self.member.user_ca,
            public,
            user=user,
            logins=logins,
            extensions=("permit-pty", "permit-port-forwarding"),
            valid_before=time.time() + lasts,
        )
        path = write(self.folder / (name or user), key.reveal())
        write(self.folder / f"{name or user}-cert.pub", line)
        return path

    def sshd(self, number: int, nodename: str, **labels: str) -> Node:
        """A node that is a real OpenSSH server, registered."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder = self.folder / f"sshd-{number}"
        folder.mkdir()
        key, public = new_ssh_key()
        write(folder / "key", key.reveal())
        write(folder / "key.pub", public)
        certificate = self.member.host_certificate(public, nodename, ("127.0.0.1",), number=number)
        write(folder / "key-cert.pub", certificate)
        write(folder / "ca", "\n".join(trusted(self.member.user_ca).ssh_public_keys))
        write(
            folder / "config",
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/key\nHostCertificate {folder}/key-cert.pub\n"
            f"TrustedUserCAKeys {folder}/ca\nPidFile none\nUsePAM no\nPermitRootLogin yes\nStrictModes no\n"
            "AuthorizedKeysFile none\nPasswordAuthentication no\nAllowTcpForwarding yes\n"
            "Subsystem sftp internal-sftp\nMaxStartups 100\n",
        )
        os.makedirs("/run/sshd", exist_ok=True)
        self.sshds.append(
            subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(folder / "log").open("wb"),
            )
        )
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.01)
        found = node(number, nodename, f"127.0.0.1:{port}", labels=labels)
        self.nodes.put(found)
        return found

    def options(self, user: str = "alice") -> list[str]:
        pairs = {
            "IdentityFile": self.folder / user,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "INFO",
        }
        return ["-F", "none", *(part for name, value in pairs.items() for part in ("-o", f"{name}={value}"))]

    def through(self, user: str = "alice", *, jump: bool = True, login: str = "root", ask: str = "%h:%p") -> list[str]:
        """ssh's options to go through the proxy: by ``direct-tcpip``, as ``-J`` does, or by subsystem."""
        proxy = ["ssh", *self.options(user), "-p", str(self.port)]
        if jump:
            proxy += ["-W", "[%h]:%p", f"{login}@127.0.0.1"]
        else:
            proxy += [f"{login}@127.0.0.1", "-s", f"'proxy:{ask}'"]
        return [*self.options(user), "-o", "ProxyCommand=" + " ".join(proxy)]

    async def ssh(self, *arguments: str) -> tuple[str, str, int]:
        """stdout, stderr and exit status of ``ssh``."""
        return await run("ssh", *arguments)

    async def watched(self, count: int) -> World:
        """Wait until the proxy knows so many nodes."""
        for _ in range(200):
            if len(self.parts.router._directory) >= count:
                return self
            await deferLater(reactor, 0.01)
        raise AssertionError("the proxy was not told of the nodes")


async def run(program: str, *arguments: str) -> tuple[str, str, int]:
    out, err, code = await utils.getProcessOutputAndValue(program, [str(each) for each in arguments], os.environ)
    return out.decode(), err.decode(), code
