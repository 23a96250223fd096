"""Each command of tctl as an administrator types it, against a real auth server over TLS on loopback."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import yaml
from attrs import frozen
from twisted.internet import defer
from twisted.internet.threads import deferToThread

from teleconch import __version__, defaults
from teleconch.api.interface import AuthAPI
from teleconch.api.server import APIServerFactory
from teleconch.api.tls import TLSCredentials
from teleconch.audit.emitter import Memory
from teleconch.auth.authorized import checked, tell_denied
from teleconch.auth.settings import AuthSettings
from teleconch.backend.memory import MemoryBackend
from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
from teleconch.ca.ssh import certificate_summary
from teleconch.client.identity import read_identity
from teleconch.errors import AccessDenied
from teleconch.resources.documents import load_documents
from teleconch.resources.host import JoinRequest
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.login import LoginRequest
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.resources.times import rfc3339, utc_text
from teleconch.resources.token import Token
from teleconch.resources.user import User
from teleconch.service.auth import auth_server
from tests.worlds.auth import Server
from tests.worlds.reactor import port_of, reactor

STATIC = "a-static-token-of-some-length"


@frozen
class Outcome:
    """How a run of tctl ended."""

    status: int
    out: str
    err: str


@frozen
class Cluster:
    """A running auth server with its configuration in ``folder``."""

    server: Server
    port: Any
    folder: Any

    async def tctl(self, *arguments: str, stdin: str = "") -> Outcome:
        """Run tctl; it must not show a traceback."""
        line = [sys.executable, "-m", "teleconch.cli.tctl", "-c", str(self.folder / "teleport.yaml"), *arguments]
        ended = await deferToThread(
            subprocess.run, line, input=stdin, capture_output=True, text=True, cwd=self.folder, timeout=60
        )
        assert "Traceback" not in ended.stderr
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    async def ok(self, *arguments: str, stdin: str = "") -> str:
        """The output of a run that ends well and says nothing on stderr."""
        outcome = await self.tctl(*arguments, stdin=stdin)
        assert (outcome.status, outcome.err) == (0, ""), outcome
        return outcome.out

    async def refused(self, *arguments: str, stdin: str = "") -> str:
        """The sentence of a run that is refused."""
        outcome = await self.tctl(*arguments, stdin=stdin)
        assert outcome.status == 1, outcome
        assert outcome.err.startswith("ERROR: ")
        return outcome.err

    async def member(self, nodename: str, role: str) -> str:
        """A host with this name joins, and does not ping; its UUID."""
        host_uuid = str(uuid.uuid4())
        token = Secret(STATIC) if role == "node" else (await self.server.create_token((role,), 60, None)).value
        request = JoinRequest(
            token=token, uuid=host_uuid, nodename=nodename, role=role, ssh_public_key=new_ssh_key()[1],
            tls_public_key=new_tls_key()[1], addresses=("10.0.0.1",), time=time.time(), version=__version__,
        )  # fmt: skip
        await self.server.join(request)
        return host_uuid

    async def join(self, nodename: str, **labels: str) -> str:
        """A node with this name joins and pings; its UUID."""
        node_uuid = await self.member(nodename, "node")
        identity = ApiIdentity("host", node_uuid, ("node",), "main", time.time() + 3600)
        node = Node(node_uuid, nodename, "main", "10.0.0.1:3022", labels=labels, version=__version__)
        await self.server.heartbeat(node, "instance-1", identity)
        return node_uuid


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An auth server on a free port, with the admin identity where the auth service writes it."""
    backend = MemoryBackend(time.time)
    static = Token(Secret(STATIC), ("node", "proxy"), None, static=True)
    settings = AuthSettings("main", "otp", (static,), password_rounds=4)
    server = cast("Server", auth_server(backend, settings, clock=reactor, emitter=(events := Memory())))
    pytest_twisted.blockon(defer.ensureDeferred(server.start()))
    own = server.own_identity(str(uuid.uuid4()), ["127.0.0.1"])
    hosts = [pem for each in own.authorities if each.type == "host" for pem in each.tls_certs]
    credentials = TLSCredentials(own.certificate + hosts[0], own.private_key)
    factory = APIServerFactory(
        reactor,
        lambda identity: checked(AuthAPI, server, identity, time.time, events),
        lambda: own.authorities,
        lambda: credentials,
        time.time,
        partial(tell_denied, events),
    )
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    admin = server.admin_identity(str(uuid.uuid4()))
    folder = tmp_path / "data" / "admin"
    folder.mkdir(parents=True)
    (folder / "tls.key").write_text(admin.private_key.reveal())
    (folder / "tls.crt").write_text(admin.certificate)
    (folder / "ca.crt").write_text("".join(hosts))
    (tmp_path / "teleport.yaml").write_text(
        f"""
        teleport: {{data_dir: {tmp_path}/data, nodename: graviton}}
        auth_service: {{cluster_name: main, listen_addr: "127.0.0.1:{port_of(port)}"}}
        proxy_service: {{public_addr: tele.example.com}}
        """
    )
    yield Cluster(server, port, tmp_path)
    pytest_twisted.blockon(defer.maybeDeferred(port.stopListening))
    pytest_twisted.blockon(defer.ensureDeferred(server.stop()))
    pytest_twisted.blockon(defer.ensureDeferred(backend.close()))


@pytest_twisted.ensureDeferred
async def test_users_unlock(cluster: Cluster) -> None:
    """Wrong answers that were given for a user are forgotten with one command, which tells so in each format."""
    await cluster.server.create_user(User("joe", traits={"logins": ("root",)}), 60)
    wrong = LoginRequest("joe", Secret("wrong"), "", new_ssh_key()[1], new_tls_key()[1], None, "192.0.2.1")

    async def locked_out() -> None:
        for _ in range(5):
            with pytest.raises(AccessDenied):
                await cluster.server.login(wrong)

    await cluster.server.create_user(User("ann", traits={"logins": ("ann",)}), 60)
    assert (await cluster.ok("users", "ls")).splitlines()[2:] == ["ann   ann", "joe   root"]
    await locked_out()
    (lockout,) = await cluster.server.list_lockouts()
    until = f"from 192.0.2.1 until {utc_text(lockout.until)}"
    assert (await cluster.ok("users", "ls")).splitlines() == [
        "User  Allowed Logins  Locked Out",
        "----  --------------  ----------------------------------------",
        "ann   ann",
        f"joe   root            {until}",
    ]
    for text in (await cluster.ok("users", "ls", "--format=json"), await cluster.ok("users", "ls", "--format=yaml")):
        ann, joe = yaml.safe_load(text)
        assert "status" not in ann["spec"]
        assert joe["spec"]["status"]["lockouts"] == [{"source": "192.0.2.1", "until": rfc3339(lockout.until)}]
        (cluster.folder / "users.yaml").write_text(yaml.safe_dump_all([ann, joe]))
        assert "lock-outs are not taken over" in (await cluster.tctl("create", "-f", "users.yaml")).err
    assert "User joe has been unlocked" in await cluster.ok("users", "unlock", "joe")
    assert "User joe is not locked out" in await cluster.ok("users", "unlock", "joe")
    await locked_out()
    assert json.loads(await cluster.ok("users", "unlock", "joe", "--format=json")) == {"user": "joe", "unlocked": True}
    assert await cluster.ok("users", "unlock", "joe", "--format=yaml") == "user: joe\nunlocked: false\n"
    assert "There is no user 'jo'" in await cluster.refused("users", "unlock", "jo")


@pytest_twisted.ensureDeferred
async def test_users(cluster: Cluster) -> None:
    """Users are added with a link that they can use at once, listed, reset and removed."""
    assert await cluster.tctl("users", "ls") == Outcome(0, "", "There are no users yet. Add one: tctl users add NAME\n")
    added = await cluster.ok("users", "add", "joe", "joe,root")
    assert "User joe has been added; allowed logins: joe, root." in added
    assert "valid for 1h" in added
    url = next(word for word in added.split() if word.startswith("https://"))
    start, _, token = url.rpartition("/")
    assert start == "https://tele.example.com:3080/web/newuser"
    pin = (await cluster.server.status()).ca_pins[0]
    assert f"tsh signup --ca-pin={pin} {url}" in added
    assert (await cluster.server.start_signup(Secret(token))).user == "joe"

    assert "exists already" in await cluster.refused("users", "add", "joe")
    again = json.loads(await cluster.ok("users", "reset", "joe", "--ttl=2h", "--format=json"))
    assert again["user"] == "joe"
    assert (await cluster.server.start_signup(Secret(again["token"]))).user == "joe"
    assert "joe2" in await cluster.refused("users", "reset", "joe2")

    await cluster.ok("users", "add", "ann")
    table = (await cluster.ok("users", "ls")).splitlines()
    assert table == [
        "User  Allowed Logins  Locked Out",
        "----  --------------  ----------",
        "ann   ann",
        "joe   joe,root",
    ]
    assert "User joe,root" not in await cluster.refused("users", "add", "a*")

    removed = await cluster.tctl("users", "rm", "ann,nobody,joe")
    assert removed.status == 1
    for name in ("ann", "joe"):
        assert f"User {name} has been deleted. SSH certificates that they hold work until" in removed.out
    assert removed.err.startswith("ERROR: User nobody: ")


@pytest_twisted.ensureDeferred
async def test_inviting_and_listing_nodes(cluster: Cluster) -> None:
    """The printed command is what a new host runs; nodes show up with name, UUID, address, labels and state."""
    invited = await cluster.ok("nodes", "add", "--roles=node,proxy", "--ttl=5m")
    line = next(line for line in invited.splitlines() if line.startswith("teleport "))
    command = dict(word.partition("=")[::2] for word in shlex.split(line)[2:])
    assert command["--roles"] == "node,proxy"
    assert command["--auth-server"] == f"127.0.0.1:{port_of(cluster.port)}"
    assert command["--ca-pin"] in (await cluster.server.status()).ca_pins
    assert f"The invite token: {command['--token']}\n" in invited
    assert "valid for 5m" in invited
    stored = {token.value.reveal(): token.roles for token in await cluster.server.list_tokens()}
    assert set(stored[command["--token"]]) == {"node", "proxy"}

    loud = await cluster.tctl("nodes", "add", "-d")
    secret = loud.out.split("The invite token: ")[1].split()[0]
    assert len(secret) == 32
    assert secret not in loud.err

    own = await cluster.ok("nodes", "add", "--token=my~own+token")
    assert "--token=my~own+token" in shlex.split(own)
    assert "exists already" in await cluster.refused("nodes", "add", "--token=my~own+token")
    assert "letters" in await cluster.refused("nodes", "add", "--token=a b;reboot")

    assert (await cluster.tctl("nodes", "ls")).err == "There are no nodes yet. Invite one: tctl nodes add\n"
    first = await cluster.join("web-1", os="linux", env="prod")
    second = await cluster.join("web-1")
    rows = [line.split() for line in (await cluster.ok("nodes", "ls")).splitlines()]
    assert rows[0] == ["Nodename", "UUID", "Address", "Labels", "Status"]
    assert ["web-1", first, "10.0.0.1:3022", "env=prod,os=linux", "online"] in rows
    assert ["web-1", second, "10.0.0.1:3022", "online"] in rows
    listed = json.loads(await cluster.ok("nodes", "ls", "--format=json"))
    assert {each["metadata"]["name"] for each in listed} == {first, second}

    ambiguous = await cluster.refused("rm", "node/web-1")
    assert first in ambiguous
    assert second in ambiguous
    assert await cluster.ok("rm", f"node/{first}") == f"Node {first} has been deleted.\n"
    assert await cluster.ok("rm", "node/web-1") == "Node web-1 has been deleted.\n"
    assert "tctl nodes ls" in await cluster.refused("rm", "node/web-1")


@pytest.mark.parametrize("role", ["proxy", "node"])
@pytest_twisted.ensureDeferred
async def test_a_host_that_is_not_in_the_list_is_removed_by_its_uuid(cluster: Cluster, role: str) -> None:
    """A proxy, and a node that is away for so long that it is listed no more, free their names as the messages say."""
    gone = await cluster.member("web-1", role)
    assert "no node" in await cluster.refused("get", f"node/{gone}")
    assert await cluster.ok("rm", f"node/{gone}") == f"Node {gone} has been deleted.\n"
    assert "There is no host" in await cluster.refused("rm", f"node/{gone}")


@pytest_twisted.ensureDeferred
async def test_tokens(cluster: Cluster) -> None:
    """Tokens are made, listed with what they are for, and revoked; a static one stands in the configuration."""
    made = json.loads(await cluster.ok("tokens", "add", "--type=proxy", "--format=json"))
    await cluster.ok("users", "add", "joe")
    rows = [line.split(maxsplit=1) for line in (await cluster.ok("tokens", "ls")).splitlines()]
    assert rows[0][1].split() == ["Type", "Expiry", "Time", "(UTC)"]
    table = {row[0]: row[1] for row in rows}
    assert table[STATIC].startswith("Node,Proxy ")
    assert table[STATIC].endswith(" static (config file)")
    assert table[made["token"]].startswith("Proxy ")
    assert table[made["token"]].endswith(" UTC")
    assert any(value.startswith("User signup (joe) ") for value in table.values())

    assert await cluster.ok("tokens", "del", made["token"]) == f"Token {made['token']} has been deleted.\n"
    assert made["token"] not in await cluster.ok("tokens", "ls")
    assert "configuration" in await cluster.refused("tokens", "rm", STATIC)
    assert "There is no such token" in await cluster.refused("tokens", "rm", made["token"])


@pytest_twisted.ensureDeferred
async def test_status(cluster: Cluster) -> None:
    """`tctl status` shows the cluster, both CAs and the pin that a new host needs."""
    pin = (await cluster.server.status()).ca_pins[0]
    lines = (await cluster.ok("status")).splitlines()
    assert lines == [
        "Cluster  main",
        f"Version  {__version__}",
        "User CA  never updated",
        "Host CA  never updated",
        f"CA pin   {pin}",
    ]
    assert yaml.safe_load(await cluster.ok("status", "--format=yaml"))["ca_pins"] == [pin]


@pytest.mark.program("faketime")
@pytest_twisted.ensureDeferred
async def test_status_with_clocks_apart(cluster: Cluster) -> None:
    """Clocks that differ are named, rather than showing up as refused certificates."""
    line = [sys.executable, "-m", "teleconch.cli.tctl", "-c", str(cluster.folder / "teleport.yaml"), "status"]
    ended = await deferToThread(subprocess.run, ["faketime", "-f", "+20s", *line], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    clock = ended.stdout.splitlines()[-1]
    assert clock.startswith("Clock    the auth server's is ")
    assert "behind this machine's" in clock


@pytest.mark.program("ssh-keygen")
@pytest_twisted.ensureDeferred
async def test_export(cluster: Cluster) -> None:
    """The authorities come in the forms of authorized_keys, known_hosts and PEM, and by fingerprint."""
    await cluster.join("web-1")
    await cluster.join("db.example.com")
    user = await cluster.ok("auth", "export", "--type=user")
    assert user.startswith("cert-authority ssh-ed25519 ")
    assert user.endswith(" clustername=main&type=user\n")
    (cluster.folder / "user").write_text(user)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", cluster.folder / "user"], capture_output=True, text=True)
    fingerprint = shown.stdout.split()[1]

    host = await cluster.ok("auth", "export", "--type=host", "--names=*.example.net")
    lines = [line for line in host.splitlines() if not line.startswith("#")]
    patterns = lines[0].split()[1].split(",")
    assert lines[0].startswith("@cert-authority *.main,main,")
    assert {"tele.example.com", "*.example.net", "db.example.com"} <= set(patterns)
    assert "web-1" not in patterns
    assert "present nodes db.example.com" in host

    everything = await cluster.ok("auth", "export")
    assert user in everything
    assert "@cert-authority" in everything
    assert await cluster.ok("auth", "export", f"--fingerprint={fingerprint}") == user
    assert fingerprint in await cluster.refused("auth", "export", "--type=user", "--fingerprint=SHA256:none")

    pem = await cluster.ok("auth", "export", "--type=tls")
    pin = (await cluster.server.status()).ca_pins[0]
    assert pem.startswith("-----BEGIN CERTIFICATE-----\n")
    assert await cluster.ok("auth", "export", "--type=tls", f"--fingerprint={pin}") == pem
    assert "is not a host name" in await cluster.refused("auth", "export", "--names=a b")


@pytest.mark.program("ssh-keygen")
@pytest_twisted.ensureDeferred
async def test_sign_for_a_user(cluster: Cluster) -> None:
    """A user's certificate is written where only the owner reads it, for tsh and for OpenSSH."""
    await cluster.ok("users", "add", "jenkins", "deploy,root")
    said = await cluster.ok("auth", "sign", "--user=jenkins", "--out=jenkins.pem", "--ttl=87600h")
    assert "user jenkins (logins deploy, root) have been written to jenkins.pem." in said
    assert "tsh -i jenkins.pem --proxy=tele.example.com:3080" in said
    path = cluster.folder / "jenkins.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    identity = read_identity(path)
    summary = certificate_summary(public_blob(identity.ssh_cert))
    assert summary.principals == ("deploy", "root")
    assert summary.valid_before - time.time() > 3649 * defaults.DAY

    assert "--overwrite" in await cluster.refused("auth", "sign", "--user=jenkins", "--out=jenkins.pem")
    await cluster.ok("auth", "sign", "--user=jenkins", "--out=jenkins.pem", "--overwrite")
    assert read_identity(path).ssh_cert != identity.ssh_cert

    said = await cluster.ok("auth", "sign", "--user=jenkins", "-o", "id", "--format=openssh")
    way = "ssh -i id -p 3023 LOGIN@tele.example.com -s 'proxy:%h:%p'"
    assert f'ssh -i id -o ProxyCommand="{way}" LOGIN@NODE' in said
    assert "tctl auth export --type=host >> ~/.ssh/known_hosts" in said
    assert max(map(len, (await cluster.ok("auth", "export", "--help")).splitlines())) <= 80
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", cluster.folder / "id-cert.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert 'Key ID: "jenkins"' in shown
    assert "user certificate" in shown
    public = subprocess.run(["ssh-keygen", "-y", "-f", cluster.folder / "id"], capture_output=True, text=True)
    assert public.returncode == 0
    assert (cluster.folder / "id").stat().st_mode & 0o777 == 0o600
    assert "nobody" in await cluster.refused("auth", "sign", "--user=nobody", "--out=f")
    assert not (cluster.folder / "f").exists()


@pytest.mark.program("ssh-keygen")
@pytest_twisted.ensureDeferred
async def test_sign_for_a_host(cluster: Cluster) -> None:
    """An OpenSSH server gets a key, a host certificate and the lines for sshd_config."""
    said = await cluster.ok("auth", "sign", "--host=db.example.com,10.0.0.9", "--format=openssh")
    assert "HostKey /etc/ssh/db.example.com\n    HostCertificate /etc/ssh/db.example.com-cert.pub" in said
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", cluster.folder / "db.example.com-cert.pub"], capture_output=True, text=True
    ).stdout
    assert "host certificate" in shown
    assert "10.0.0.9" in shown
    assert "is not a host name" in await cluster.refused("auth", "sign", "--host=a*", "--out=h")


USERS = """\
kind: user
version: v2
metadata: {name: joe}
spec: {traits: {logins: [joe]}}
---
kind: user
version: v2
metadata: {name: ann}
spec: {}
"""


@pytest_twisted.ensureDeferred
async def test_documents(cluster: Cluster) -> None:
    """Resources go out as documents and come back, by file or pipe; replacing needs -f."""
    (cluster.folder / "users.yaml").write_text(USERS)
    created = await cluster.ok("create", "users.yaml")
    assert created == "User joe has been created.\nUser ann has been created.\n"
    assert "User joe: " in await cluster.refused("create", stdin=USERS)
    joe = await cluster.ok("get", "user/joe")
    assert joe.startswith("kind: user\nversion: v2\nmetadata:\n  name: joe\n")
    edited = joe.replace("    - joe\n", "    - joe\n    - root\n")
    assert await cluster.ok("create", "-f", stdin=edited) == "User joe has been written.\n"
    assert (await cluster.server.get_user("joe")).logins == ("joe", "root")

    node = await cluster.join("web-1")
    began = time.time()
    await cluster.ok("tokens", "add", "--type=node", "--value=t1")
    everything = await cluster.ok("get", "all")
    assert [type(each).__name__ for each in load_documents(everything, "f")] == [
        "User", "User", "NodeStatus", "Token", "Token",
    ]  # fmt: skip
    assert len(json.loads(await cluster.ok("get", "users,nodes", "--format=json"))) == 3
    text = await cluster.ok("get", "users,nodes", "--format=text")
    assert "Allowed Logins" in text
    assert node in text
    assert (await cluster.ok("get", "node/web-1")) == (await cluster.ok("get", f"node/{node}"))

    await cluster.ok("rm", "token/t1,user/ann")
    restored = await cluster.tctl("create", "-f", stdin=everything)
    assert restored.status == 0
    assert "Left out: node web-1" in restored.err
    assert "Left out: a token without metadata.expires" in restored.err
    assert await cluster.ok("create", "-f", stdin=everything.split("---\n")[-1]) == "Token t1 has been written.\n"
    again = load_documents(await cluster.ok("get", "all"), "f")
    assert again[:-1] == load_documents(everything, "f")[:-1]
    assert isinstance(again[-1], Token)
    assert again[-1].value == Secret("t1")
    assert began + 3600 - 1 <= (again[-1].expires or 0) <= time.time() + 3600  # documents have whole seconds

    for missing in ("user/nobody", f"node/{uuid.uuid4()}", "token/none"):
        await cluster.refused("get", missing)
        await cluster.refused("rm", missing)
    assert "<stdin>:5: unknown key 'spek' in the document; did you mean 'spec'?" in await cluster.refused(
        "create", stdin=joe.replace("spec:", "spek:")
    )


@pytest_twisted.ensureDeferred
async def test_auth_server_that_does_not_run(cluster: Cluster) -> None:
    """The address and how to start the auth server are told when nothing answers."""
    address = f"127.0.0.1:{port_of(cluster.port)}"
    await defer.maybeDeferred(cluster.port.stopListening)
    said = await cluster.refused("status")
    assert f"does not answer at {address} (connection refused)" in said
    assert f"teleport start -c {cluster.folder}/teleport.yaml" in said


@pytest_twisted.ensureDeferred
async def test_identity_of_another_cluster(cluster: Cluster) -> None:
    """With an identity that this auth server did not sign, nothing is sent, and the reason is told."""
    other = auth_server(MemoryBackend(time.time), AuthSettings("main", "off"), clock=reactor, emitter=Memory())
    await other.start()
    admin = other.admin_identity(str(uuid.uuid4()))
    await other.stop()
    folder = cluster.folder / "data" / "admin"
    (folder / "ca.crt").write_text(next(e.tls_certs[0] for e in admin.authorities if e.type == "host"))
    assert "is not the one that is known here for cluster main" in await cluster.refused("status")


def test_version_is_quick() -> None:
    """`tctl version` loads neither Twisted nor cryptography."""
    code = "import sys; import teleconch.cli.tctl as t; t.tctl(['version'], standalone_mode=False); "
    code += "print([m for m in ('twisted', 'cryptography', 'yaml', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("[]\n")
