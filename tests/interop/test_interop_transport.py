"""OpenSSH's client and server against ours: every algorithm, certificates and none, re-keying."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread

from teleconch.ca import authority
from teleconch.ca import ssh as ca_ssh
from teleconch.resources.secret import Secret
from teleconch.ssh import algorithms
from teleconch.ssh.client import ClientOptions
from teleconch.ssh.server import HostKey
from teleconch.ssh.server_limits import Limits
from tests.worlds.reactor import port_of, reactor
from tests.worlds.ssh import (  # shared with tests/ssh
    HOST_CA,
    HOST_LINE,
    HOST_PEM,
    NOW,
    USER_CA,
    USER_CERT,
    USER_PEM,
    ClientSession,
    execute,
    login,
    make_factory,
    options,
    start,
    user_cert,
)

pytestmark = pytest.mark.program("ssh", "ssh-keygen")

KINDS = {
    "ed25519": [],
    "ecdsa256": ["-b", "256"],
    "ecdsa384": ["-b", "384"],
    "ecdsa521": ["-b", "521"],
    "rsa": ["-b", "2048"],
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """By kind: private PEM and public line, made by ``ssh-keygen``."""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for kind, arguments in KINDS.items():
        path = folder / kind
        kept = kind.rstrip("0123456789") if kind != "ed25519" else kind
        subprocess.run(["ssh-keygen", "-q", "-t", kept, *arguments, "-N", "", "-C", "", "-f", path], check=True)
        made[kind] = (path.read_text(), path.with_suffix(".pub").read_text().strip())
    return made


class Ssh:
    """OpenSSH's client against one port."""

    def __init__(self, folder: Path, pem: str, cert: str | None, known: str) -> None:
        self.folder = folder
        (folder / "id").write_text(pem)
        (folder / "id").chmod(0o600)
        (folder / "known").write_text(known)
        self.options = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(folder / "id")]
        self.options += ["-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "StrictHostKeyChecking=yes"]
        self.options += ["-o", "GlobalKnownHostsFile=none"]
        if cert:
            (folder / "id-cert.pub").write_text(cert + "\n")
            self.options += ["-o", f"CertificateFile={folder / 'id-cert.pub'}"]

    async def run(self, port: int, command: str, *more: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        line = ["ssh", *self.options, *more, "-p", str(port), "root@127.0.0.1", command]
        given: Any = {"input": stdin, "capture_output": True, "timeout": 60}
        env = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        result: subprocess.CompletedProcess[Any] = await deferToThread(partial(subprocess.run, line, env=env, **given))
        return result


def at_ca(line: str) -> str:
    return f"@cert-authority * {line}\n"


def plainly(port_line: str) -> str:
    return f"* {port_line}\n"


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    return Ssh(tmp_path, USER_PEM.reveal(), USER_CERT, at_ca(HOST_CA.ssh_public_key))


class Served:
    """Our server on a port, for ``async with``."""

    def __init__(self, **given: Any) -> None:
        self.factory = make_factory(**given)

    async def __aenter__(self) -> int:
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        return port_of(self.port)

    async def __aexit__(self, *problem: Any) -> None:
        await maybeDeferred(self.port.stopListening)
        for connection in list(self.factory.connections):
            connection.abortConnection()
        while self.factory.connections:
            await deferLater(reactor, 0.01)


MACS = [mac.decode() for mac in algorithms.MACS]
CIPHERS = [(cipher.decode(), mac) for cipher in algorithms.CIPHERS for mac in (MACS if b"ctr" in cipher else MACS[:1])]


@pytest_twisted.ensureDeferred
async def test_openssh_with_each_cipher(ssh: Ssh) -> None:
    """OpenSSH's client works with every cipher and MAC that we offer, in both directions."""
    data = os.urandom(3_000_000)
    async with Served() as port:
        for cipher, mac in CIPHERS:
            result = await ssh.run(port, "hash", "-c", cipher, "-m", mac, stdin=data)
            assert result.stdout.decode() == hashlib.sha256(data).hexdigest(), (cipher, mac, result.stderr)
            result = await ssh.run(port, "echo", "-c", cipher, "-m", mac, stdin=data[:1_000_000])
            assert result.stdout == data[:1_000_000]
            assert result.returncode == 0


@pytest_twisted.ensureDeferred
async def test_openssh_with_each_key_exchange(ssh: Ssh) -> None:
    """OpenSSH's client works with every key exchange that it and we have."""
    offered = subprocess.run(["ssh", "-Q", "kex"], capture_output=True, text=True, check=True).stdout.split()
    names = [name.decode() for name in (*algorithms.KEX, *algorithms.KEX_ALSO) if name.decode() in offered]
    assert len(names) >= 5
    async with Served(options=options(kex_algos=names)) as port:
        for name in names:
            result = await ssh.run(port, "hello", "-o", f"KexAlgorithms={name}")
            assert (result.stdout, result.returncode) == (b"hello\n", 3), (name, result.stderr)


class SlowLine(Protocol):
    """From a client's socket to the server at ``port``. What follows the client's version line waits until the server's
    ``clock`` has advanced by ``seconds``."""

    def __init__(self, port: int, clock: Clock, seconds: float) -> None:
        self.port, self.clock, self.seconds = port, clock, seconds
        self.early, self.line_sent = b"", False
        self.far: Any = None

    def connectionMade(self) -> None:
        near: Any = self.transport
        near.pauseProducing()
        far: Any = Protocol()
        far.dataReceived = near.write
        far.connectionLost = lambda reason=None: near.loseConnection()
        connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), far).addCallback(self.reached)

    def reached(self, far: Protocol) -> None:
        self.far = far.transport
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.line_sent:
            if self.seconds:
                seconds, self.seconds = self.seconds, 0
                self.clock.advance(seconds)
            self.far.write(data)
            return
        self.early += data
        line, end, rest = self.early.partition(b"\n")
        if end:
            self.line_sent = True
            self.far.write(line + end)
        if rest:
            self.dataReceived(rest)

    def connectionLost(self, reason: object = None) -> None:
        if self.far is not None:
            self.far.loseConnection()


@pytest_twisted.ensureDeferred
async def test_openssh_on_a_slow_line(ssh: Ssh) -> None:
    """A client that has only what is older gets in, whether its list comes at once or after many seconds."""
    for seconds in (0, 9):
        clock = Clock()
        async with Served(clock=clock) as port:
            factory = Factory.forProtocol(partial(SlowLine, port, clock, seconds))
            factory.noisy = False
            line = reactor.listenTCP(0, factory, interface="127.0.0.1")
            for given in (("-c", "aes128-ctr", "-m", "hmac-sha2-256"), ("-o", "KexAlgorithms=ecdh-sha2-nistp256")):
                result = await ssh.run(port_of(line), "hello", *given)
                assert (result.stdout, result.returncode) == (b"hello\n", 3), (given, seconds, result.stderr)
            await maybeDeferred(line.stopListening)


@pytest_twisted.ensureDeferred
async def test_host_keys_of_each_kind(tmp_path: Path, keys: dict[str, tuple[str, str]]) -> None:
    """OpenSSH's client accepts our host keys of every kind, by certificate and plain, and refuses others."""
    for kind, (pem, line) in keys.items():
        cert = ca_ssh.issue_openssh_host_cert(
            HOST_CA, names=("127.0.0.1",), public_key=line, valid_after=NOW, valid_before=4e9, serial=1
        )
        for given, known, good in (
            (cert, at_ca(HOST_CA.ssh_public_key), True),
            (cert, at_ca(USER_CA.ssh_public_key), False),
            (None, plainly(line), True),
            (None, at_ca(HOST_CA.ssh_public_key), False),
        ):
            folder = tmp_path / f"{kind}-{given is None}-{good}"
            folder.mkdir()
            client = Ssh(folder, USER_PEM.reveal(), USER_CERT, known)
            async with Served(host_keys=[HostKey(pem, given)]) as port:
                result = await client.run(port, "hello")
            assert (result.returncode == 3) is good, (kind, given, result.stderr)


@pytest_twisted.ensureDeferred
async def test_user_certificates_of_each_kind(tmp_path: Path, keys: dict[str, tuple[str, str]]) -> None:
    """Users may have keys of every kind; RSA signs with SHA-2 only."""
    for kind, (pem, line) in keys.items():
        (folder := tmp_path / kind).mkdir()
        client = Ssh(folder, pem, user_cert(public_key=line), at_ca(HOST_CA.ssh_public_key))
        async with Served() as port:
            result = await client.run(port, "hello")
            assert result.returncode == 3, (kind, result.stderr)
            if kind == "rsa":
                for algorithm in ("rsa-sha2-256", "rsa-sha2-512"):
                    name = f"{algorithm}-cert-v01@openssh.com,{algorithm}"
                    result = await client.run(port, "hello", "-o", f"PubkeyAcceptedAlgorithms={name}")
                    assert result.returncode == 3, (name, result.stderr)
                old = "ssh-rsa-cert-v01@openssh.com,ssh-rsa"
                result = await client.run(port, "hello", "-o", f"PubkeyAcceptedAlgorithms={old}")
                assert result.returncode == 255
            connection = await login(port, private_key_pem=Secret(pem), certificate=user_cert(public_key=line))
            assert (await execute(connection, b"hello")).code == 3
            connection.close()
            await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_weak_algorithms_are_refused(ssh: Ssh) -> None:
    """A client that only has old algorithms does not get in (CVE-2026-44405)."""
    async with Served() as port:
        for option in (
            "Ciphers=aes128-cbc",
            "Ciphers=3des-cbc",
            "KexAlgorithms=diffie-hellman-group14-sha1",
            "HostKeyAlgorithms=ssh-rsa",
        ):
            result = await ssh.run(port, "hello", "-o", option)
            assert result.returncode == 255, option
        result = await ssh.run(port, "hello", "-c", "aes128-ctr", "-m", "hmac-sha1")
        assert result.returncode == 255


@pytest_twisted.ensureDeferred
async def test_openssh_rekeys(ssh: Ssh) -> None:
    """``ssh -o RekeyLimit`` while both directions run, with our own re-keying and without: nothing is lost."""
    data = os.urandom(8_000_000)
    for ours in (1 << 20, 1 << 40):
        async with Served(options=options(limits=Limits(rekey_bytes=ours))) as port:
            result = await ssh.run(port, "echo", "-o", "RekeyLimit=256K", stdin=data)
            assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest(), result.stderr[-500:]


@pytest_twisted.ensureDeferred
async def test_a_connection_shared(ssh: Ssh, tmp_path: Path) -> None:
    """ControlMaster: several sessions over one connection, with the master's keep-alives."""
    path = tmp_path / "c"
    async with Served() as port:
        master = ["-o", "ControlMaster=auto", "-o", f"ControlPath={path}", "-o", "ControlPersist=5"]
        for _ in range(5):
            result = await ssh.run(port, "hello", *master, "-o", "ServerAliveInterval=1")
            assert result.returncode == 3
        await deferToThread(
            subprocess.run, ["ssh", "-O", "exit", "-o", f"ControlPath={path}", "x"], capture_output=True
        )


@pytest_twisted.ensureDeferred
async def test_jump_with_openssh(ssh: Ssh) -> None:
    """``ssh -W`` through our server reaches a server behind it."""
    async with Served() as port, Served() as jump:
        inner = " ".join(["ssh", *ssh.options, "-p", str(jump), "-W", "%h:%p", "root@127.0.0.1"])
        data = os.urandom(2_000_000)
        result = await ssh.run(port, "echo", "-o", f"ProxyCommand={inner}", stdin=data)
        assert result.stdout == data, result.stderr


# -- OpenSSH's server --


class Sshd:
    """OpenSSH's server on loopback, with certificates."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self.folder = folder
        cert = ca_ssh.issue_openssh_host_cert(
            HOST_CA, names=("127.0.0.1",), public_key=HOST_LINE, valid_after=NOW, valid_before=4e9, serial=1
        )
        user = user_cert(logins=("root",), valid_after=NOW, valid_before=4e9)
        self.user_cert = user
        for name, text in (
            ("host", HOST_PEM.reveal()),
            ("host-cert.pub", cert + "\n"),
            ("ca.pub", USER_CA.ssh_public_key + "\n"),
        ):
            (folder / name).write_text(text)
        (folder / "host").chmod(0o600)
        settings = {
            "HostKey": str(folder / "host"),
            "HostCertificate": str(folder / "host-cert.pub"),
            "TrustedUserCAKeys": str(folder / "ca.pub"),
            "AuthorizedKeysFile": "none",
            "PermitRootLogin": "yes",
            "UsePAM": "no",
            "PidFile": "none",
            "StrictModes": "no",
        } | changes
        (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def endpoint(self) -> Any:
        """Each connection has a server process of its own (``sshd -i``), as inetd would start it."""
        return SshdEndpoint(["/usr/sbin/sshd", "-i", "-e", "-f", str(self.folder / "config")])


class SshdEndpoint:
    def __init__(self, command: list[str]) -> None:
        self.command = command

    async def _pair(self) -> int:
        import socket

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def serve() -> None:
            with listener:
                theirs, _ = listener.accept()
            with theirs:
                self.process = subprocess.Popen(
                    self.command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
                )

        self.served = deferToThread(serve)
        return int(listener.getsockname()[1])

    def connect(self, factory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        port = await self._pair()
        protocol = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
        await self.served
        return protocol

    async def stop(self) -> None:
        self.process.terminate()
        await deferToThread(self.process.wait)


@pytest.mark.root
@pytest.mark.program("/usr/sbin/sshd")
@pytest_twisted.ensureDeferred
async def test_our_client_with_sshd(tmp_path: Path) -> None:
    """Our client works with OpenSSH's server: every cipher, re-keying from both sides, exit status, half-close."""
    os.makedirs("/run/sshd", exist_ok=True)
    sshd = Sshd(tmp_path, RekeyLimit="512K")
    data = os.urandom(3_000_000)
    for cipher, mac in CIPHERS:
        endpoint = sshd.endpoint()
        seen: list[bytes] = []
        connection = await login(
            0,
            endpoint=endpoint,
            certificate=sshd.user_cert,
            verify_host=seen.append,
            options=ClientOptions(ciphers=(cipher,), mac_algos=(mac,), rekey_bytes=700_000, keepalive_interval=1),
        )
        ca_ssh.check_host_certificate(seen[0], authorities=[authority.trusted(HOST_CA)], host="127.0.0.1", now=NOW + 10)
        assert (await execute(connection, b"exit 7")).code == 7
        session = await execute(connection, b"cat", data)
        assert hashlib.sha256(session.data).digest() == hashlib.sha256(data).digest()
        assert connection.transport.keyExchanges > 3
        connection.close()
        await connection.disconnected
        await endpoint.stop()


@pytest.mark.root
@pytest.mark.program("/usr/sbin/sshd")
@pytest_twisted.ensureDeferred
async def test_our_client_with_sshd_keeps_order(tmp_path: Path) -> None:
    """Many sessions at once on one connection to OpenSSH's server, each whole."""
    os.makedirs("/run/sshd", exist_ok=True)
    sshd = Sshd(tmp_path, MaxSessions="20")
    endpoint = sshd.endpoint()
    connection = await login(0, endpoint=endpoint, certificate=sshd.user_cert)
    sessions: list[ClientSession] = [
        await start(connection, b"head -c 500000 /dev/zero; exit %d" % n) for n in range(8)
    ]
    for number, session in enumerate(sessions):
        await session.done
        assert (session.size, session.code) == (500_000, number)
    connection.close()
    await connection.disconnected
    await endpoint.stop()
