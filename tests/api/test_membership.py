"""Joining a cluster and staying in it."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from cryptography import x509
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import Clock

from teleconch import defaults
from teleconch.api.hostfiles import HostFiles
from teleconch.api.membership import Membership
from teleconch.atomic import write_file
from teleconch.ca.keys import public_blob
from teleconch.ca.ssh import certificate_summary, check_host_certificate
from teleconch.errors import (
    AccessDenied,
    AlreadyJoined,
    BadParameter,
    ClockSkew,
    TrustError,
    Unavailable,
)
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates, JoinRequest
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from tests.worlds.api import CLUSTER, TOKEN, Log, World
from tests.worlds.reactor import port_of, reactor
from tests.worlds.waiting import spawn, until

test = pytest_twisted.ensureDeferred
DAY = defaults.DAY


class Host:
    """A machine with a data_dir, whose clock is the cluster's plus ``skew``."""

    def __init__(self, world: World, data_dir: Path) -> None:
        self.world = world
        self.data_dir = Path(data_dir)
        self.skew = 0.0
        self.running: list[Any] = []
        self.timers = Clock()
        self.timers.advance(world.now())

    def now(self) -> float:
        return self.world.now() + self.skew

    def membership(self, **changes: Any) -> Membership:
        host, port = self.world.address.split(":")
        options = {
            "data_dir": self.data_dir,
            "role": "node",
            "nodename": "web1",
            "addresses": ("192.0.2.7",),
            "auth_servers": [HostnameEndpoint(reactor, host, int(port))],
            "token": Secret(TOKEN),
            "ca_pins": (self.world.pin,),
            "now": self.now,
            "chance": random.Random(1),
            **changes,
        }
        membership = Membership(self.timers, **options)
        self.running.append(membership)
        return membership

    async def started(self, **changes: Any) -> Membership:
        membership = self.membership(**changes)
        await membership.start()
        return membership

    def passes(self, seconds: float | int) -> None:
        """Time passes, for everyone."""
        self.world.clock.advance(seconds)
        self.timers.advance(seconds)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.data_dir)): path.read_bytes()
            for path in self.data_dir.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def host(world: World, tmp_path: Path) -> Iterator[Host]:
    host = Host(world, tmp_path / "data")
    yield host
    for each in host.running:
        each.stop()


KEYS = {"host_uuid", "node/ssh_key", "node/tls_key.pem"}


@test
async def test_join(world: World, host: Host) -> None:
    """A new node with a token and the pin is a member: UUID, keys and certificates are there and fit together."""
    member = await host.started()
    assert (member.cluster, member.authorities()) == (CLUSTER, world.trusted)
    assert str(uuid.UUID(member.uuid)) == member.uuid
    key, certificate = member.host_keys()
    assert key.reveal().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    for name in (member.uuid, f"web1.{CLUSTER}", "192.0.2.7"):
        check_host_certificate(public_blob(certificate), authorities=world.trusted, host=name, now=world.now())
    assert certificate_summary(public_blob(certificate)).valid_before == int(world.now() + defaults.FIRST_PING_WITHIN)
    assert (await member.client.status()).cluster == CLUSTER
    shown, secret = member.tls_files
    assert x509.load_pem_x509_certificate(shown.read_bytes()).subject
    assert secret.read_text() == member.credentials().private_key.reveal()


@test
async def test_modes(host: Host) -> None:
    """Nobody but the owner reads a key, whatever the umask."""
    before = os.umask(0)
    try:
        await host.started()
    finally:
        os.umask(before)
    for path in (host.data_dir, *host.data_dir.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@test
async def test_restart_needs_no_token(world: World, host: Host) -> None:
    """A node restarts with the same UUID and certificates, without a token, while the auth server is down."""
    first = await host.started()
    first.stop()
    await world.deafen()
    again = await host.started(token=None, ca_pins=())
    assert again.uuid == first.uuid
    assert again.host_keys() == first.host_keys()
    assert again.authorities() == world.trusted


@test
async def test_roles_share_the_uuid(world: World, host: Host) -> None:
    """Two roles on one machine are one host, each with keys of its own."""
    node, proxy = await host.started(), await host.started(role="proxy")
    assert node.uuid == proxy.uuid
    assert node.host_keys()[0] != proxy.host_keys()[0]
    assert (await proxy.client.status()).cluster == CLUSTER


@test
async def test_a_role_beside_that_joins_at_this_moment(world: World, host: Host) -> None:
    """Where two roles start at once, the second waits until the first has its certificates; a copy of the UUID alone
    is told so."""
    node = await host.started()
    certificate = node.tls_files[0].read_bytes()
    node.tls_files[0].unlink()
    proxy = host.membership(role="proxy")
    with Log() as log:
        starting = spawn(proxy.start())
        await until(
            lambda: any("node of this host joins at this moment" in str(each.get("error")) for each in log.events)
        )
    node.tls_files[0].write_bytes(certificate)
    host.passes(defaults.BACKOFF_MAX)
    await starting
    assert proxy.uuid == node.uuid
    clone = Host(world, host.data_dir / "clone")
    clone.running = host.running
    clone.data_dir.mkdir()
    (clone.data_dir / "host_uuid").write_text(node.uuid)
    await world.server.forget_host(node.uuid, "proxy")
    with pytest.raises(AlreadyJoined, match="delete the file host_uuid"):
        await clone.started(role="proxy")


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "wrong token": ({"token": Secret("wrong")}, AccessDenied, ""),
    "token of another role": ({"token": Secret("for-proxies")}, AccessDenied, "proxy"),
    "expired token": ({"token": Secret("short")}, AccessDenied, ""),
    "no token": ({"token": None}, AccessDenied, "tctl nodes add --roles=node"),
    "wrong pin": ({"ca_pins": ("sha256:" + "0" * 64,)}, TrustError, "pin"),
    "bad name": ({"nodename": "web 1,root"}, BadParameter, "web 1,root"),
}


@pytest.mark.parametrize("case", REFUSED)
@test
async def test_refused(world: World, host: Host, case: str) -> None:
    """Each refusal is its own sentence, comes at once and once, and writes nothing but the UUID and keys."""
    await world.server.create_token(("proxy",), 600.0, Secret("for-proxies"))
    await world.server.create_token(("node",), 60.0, Secret("short"))
    world.clock.advance(61)
    changes, kind, told = REFUSED[case]
    before = len(world.factory.protocols)
    with pytest.raises(kind) as caught:
        await host.started(**changes)
    assert told in str(caught.value)
    assert str(caught.value).endswith(".")
    assert set(host.files()) == KEYS
    assert host.timers.getDelayedCalls() == []
    await until(lambda: len(world.factory.protocols) == before)


@pytest.mark.parametrize("skew", [-20 * 60.0, -90.0, 90.0, 20 * 60.0, 40 * DAY])
@test
async def test_clock_off(host: Host, skew: float | int) -> None:
    """A clock more than a minute off is told as that, and nothing is written."""
    host.skew = skew
    with pytest.raises(ClockSkew, match="clock"):
        await host.started()
    assert set(host.files()) == KEYS


@pytest.mark.parametrize("skew", [-30.0, 30.0])
@test
async def test_clock_nearly_right(host: Host, skew: float) -> None:
    """Half a minute off is no obstacle."""
    host.skew = skew
    assert (await host.started()).cluster == CLUSTER


@test
async def test_auth_server_down(world: World, host: Host) -> None:
    """A node that is started before its auth server waits, tells so, and joins when it comes."""
    port = port_of(world.port)
    await world.deafen()
    with Log() as log:
        joining = spawn(host.membership().start())
        await until(lambda: any("cannot join" in str(each.get("log_format")) for each in log.events))
        assert not joining.called
        await world.listen(port)

        def joined() -> bool:
            host.timers.advance(1)
            return joining.called

        await until(joined)
    await joining
    waits = [each["seconds"] for each in log.events if "seconds" in each]
    assert all(0 <= each <= defaults.BACKOFF_MAX for each in waits)


@test
async def test_keys_are_made_before_the_join(world: World, host: Host) -> None:
    """A node whose answer was lost, or that was killed right after, joins again as the same host with the same keys."""
    asked = []

    class Lost:
        async def join(self, request: JoinRequest) -> None:
            asked.append(request)
            await world.server.join(request)
            raise Unavailable("lost")

    world.factory.authorize = lambda identity: Lost()
    first = spawn(host.membership().start())
    await until(lambda: asked)
    host.running[-1].stop()
    first.cancel()
    first.addErrback(lambda _: None)
    assert set(host.files()) == KEYS
    world.factory.authorize = world.authorized
    member = await host.started()
    assert member.uuid == asked[0].uuid
    assert host.files()["node/ssh_key"].decode() == member.host_keys()[0].reveal()


@test
async def test_other_keys_with_one_uuid(world: World, host: Host, tmp_path: Path) -> None:
    """A clone of a machine that has the UUID but not the keys is told what it is."""
    await host.started()
    clone = Host(world, tmp_path / "clone")
    clone.data_dir.mkdir()
    write_file(clone.data_dir / "host_uuid", (host.data_dir / "host_uuid").read_bytes())
    with pytest.raises(AlreadyJoined, match="host_uuid"):
        await clone.started()


async def settled(host: Host, member: Membership) -> float:
    """Some minutes after its join a host gets certificates that last; when they end."""
    joined = member.expires
    host.passes(660)
    await until(lambda: host.passes(1) or member.expires > joined)
    assert member.expires > joined + 29 * DAY
    return member.expires


@test
async def test_renewal(world: World, host: Host) -> None:
    """At half of their life the certificates are renewed, on disk as well, and used for new connections."""
    member = await host.started()
    await member.client.heartbeat(Node(member.uuid, "web1", CLUSTER, "192.0.2.7:3022"), "one")
    first = await settled(host, member)
    for _ in range(13 * 24):
        host.passes(3600)
    await until(lambda: not world.factory.protocols)  # it was idle
    await until(lambda: member._connection._broker is None)
    asked = spawn(member.client.status())
    await until(lambda: host.passes(1) or asked.called)
    assert member.expires == first, "renewed too early"
    host.passes(2 * DAY)
    await until(lambda: host.passes(2) or member.expires > first)
    assert member.expires > first + 14 * DAY
    stored = HostFiles(host.data_dir, "node").load()
    assert stored.certificates.ssh_cert == member.host_keys()[1]
    assert member.tls_files[0].read_text().startswith(member.credentials().certificate)
    asked = spawn(member.client.status())
    await until(lambda: host.passes(1) or asked.called)
    assert (await asked).cluster == CLUSTER


@test
async def test_renewal_is_tried_again(world: World, host: Host) -> None:
    """With the auth server down at that time, the renewal is tried until it succeeds; the old certificates serve on."""
    member = await host.started()
    await member.client.heartbeat(Node(member.uuid, "web1", CLUSTER, "192.0.2.7:3022"), "one")
    first, port = await settled(host, member), port_of(world.port)
    await world.deafen()
    with Log() as log:
        host.passes(15 * DAY)
        refused = lambda: sum("cannot be renewed" in str(each.get("log_format")) for each in log.events)  # noqa: E731
        await until(lambda: host.passes(60) or refused() >= 3)
        assert member.expires == first
        await world.listen(port)
        await until(lambda: host.passes(4) or member.expires > first)


@test
async def test_expired_while_down(world: World, host: Host) -> None:
    """A node that was off for longer than its certificates live needs a token, and says so; with one it is back."""
    first = await host.started()
    first.stop()
    host.passes(31 * DAY)
    own = world.server.own_identity(str(uuid.uuid4()))
    world.credentials = evolve(world.credentials, certificate=own.certificate + world.cas["host"].tls_cert)
    world.credentials = evolve(world.credentials, private_key=own.private_key)
    with pytest.raises(TrustError, match=r"ended .*tctl nodes add --roles=node"):
        await host.started(token=None)
    again = await host.started()
    assert again.uuid == first.uuid
    assert again.expires > world.now()


@test
async def test_clock_before_the_certificates(host: Host) -> None:
    """A machine that wakes in 1970 is told to set its clock, rather than that it has no access."""
    (await host.started()).stop()
    host.skew = -3600.0
    with pytest.raises(ClockSkew, match="set the clock"):
        await host.started()


@pytest.mark.parametrize("changes", [{"nodename": "web2"}, {"addresses": ("192.0.2.8",)}, {"addresses": ()}])
@test
async def test_names_changed(world: World, host: Host, changes: dict[str, Any]) -> None:
    """A node whose names changed is told that its certificates must be issued anew, and how; then it works."""
    first = await host.started()
    first.stop()
    stored = host.files()
    with pytest.raises(AlreadyJoined, match=f"tctl rm node/{first.uuid}"):
        await host.started(token=None, **changes)
    with pytest.raises(AlreadyJoined, match=f"tctl rm node/{first.uuid}"):
        await host.started(**changes)
    assert host.files() == stored
    await world.server.delete_node(first.uuid)
    member = await host.started(**changes)
    assert member.uuid == first.uuid
    assert (await host.started(token=None, **changes)).host_keys() == member.host_keys()


@test
async def test_removed(world: World, host: Host) -> None:
    """A node that `tctl rm` removed learns it at its next heartbeat; started anew with a token it joins again."""
    first = await host.started()
    node = Node(first.uuid, "web1", CLUSTER, "192.0.2.7:3022")
    await first.client.heartbeat(node, "one")
    await world.server.delete_node(first.uuid)
    with pytest.raises(AccessDenied, match="removed"):
        await first.client.heartbeat(node, "one")
    first.stop()
    without = await host.started(token=None)
    for _ in range(3):
        with pytest.raises(AccessDenied, match="removed"):
            await without.client.heartbeat(node, "two")
    without.stop()
    with Log() as log:
        again = await host.started()
        with pytest.raises(AccessDenied, match="removed"):
            await again.client.heartbeat(node, "three")
        await until(lambda: any("joined again" in str(each.get("log_format")) for each in log.events))
    assert (await again.client.heartbeat(node, "three")).interval > 0


@test
async def test_a_refused_ping_asks_once(world: World, host: Host) -> None:
    """A host that is told of a ping's refusal finds out whether it is a member still, unless it knows that already."""
    first = await host.started()
    first.refused(AccessDenied("not on these terms"))  # it has just joined
    first.stop()
    await world.server.delete_node(first.uuid)
    with Log() as log:
        again = await host.started()
        again.refused(AlreadyJoined("two of them"))  # this says nothing of the membership
        assert not log.events
        again.refused(AccessDenied("removed"))
        await until(lambda: any("joined again" in str(each.get("log_format")) for each in log.events))
    assert (await again.client.status()).cluster == CLUSTER


@test
async def test_a_removed_proxy_joins_again(world: World, host: Host) -> None:
    """A proxy, which sends no heartbeats, learns of its removal at its first connection after a start, and joins again
    with its token."""
    first = await host.started(role="proxy")
    await first.client.authorities()
    await world.server.delete_node(first.uuid)
    with pytest.raises(AccessDenied, match=r"removed.*--roles=proxy"):
        await first.client.authorities()
    first.stop()
    with Log() as log:
        again = await host.started(role="proxy")
        with pytest.raises(AccessDenied, match="removed"):
            await again.client.authorities()
        await until(lambda: any("joined again" in str(each.get("log_format")) for each in log.events))
    assert await again.client.authorities()


@test
async def test_another_cluster(world: World, host: Host) -> None:
    """A data_dir of one cluster is not used for another: the sentence names both; nothing is sent or written."""
    first = await host.started()
    first.stop()
    stored = host.files()
    other = World(cluster="other.example.com")
    await other.start()
    elsewhere = Host(other, host.data_dir)
    elsewhere.running = host.running
    with pytest.raises(TrustError, match=rf"cluster other\.example\.com.*of cluster {CLUSTER} \(role node\)"):
        await elsewhere.started(role="proxy", token=Secret(TOKEN))
    with pytest.raises(TrustError, match=rf"has the pin that ca_pin asks for.*node holds.*cluster, {CLUSTER}: delete"):
        await elsewhere.started()
    member = await elsewhere.started(token=None)
    with pytest.raises(TrustError, match=rf"belongs to cluster other\.example\.com.*from {CLUSTER}"):
        await member.client.status()
    assert {name: data for name, data in host.files().items() if not name.startswith("proxy/")} == stored
    assert set(host.files()) - set(stored) == {"proxy/ssh_key", "proxy/tls_key.pem"}
    assert not [each async for each in other.backend.all("/hosts/")]
    await other.stop()


@test
async def test_a_pin_that_fits_nobody_stops_no_member(world: World, host: Host) -> None:
    """A member starts from what it has, whatever old pin and token its file names, with the auth server or without."""
    (await host.started()).stop()
    await host.started(ca_pins=("sha256:" + "0" * 64,))
    await world.deafen()
    await host.started(ca_pins=("sha256:" + "0" * 64,))


@test
async def test_a_token_file_that_is_gone(world: World, host: Host) -> None:
    """A host that has joined starts without its token; one that has not hears what became of the file."""
    gone = {"token": None, "token_problem": "the token file /etc/t cannot be read: No such file or directory."}
    with pytest.raises(AccessDenied, match=r"not a member .*/etc/t cannot be read.*`tctl nodes add --roles=node`"):
        await host.started(**gone)
    (await host.started()).stop()
    await host.started(**gone)


@test
async def test_new_authorities(world: World, host: Host) -> None:
    """Authorities that the cluster gains are learned on the next connection, and kept."""
    member = await host.started()
    more = [
        evolve(each, ssh_public_keys=(*each.ssh_public_keys, "ssh-ed25519 AAAAnew")) if each.type == "user" else each
        for each in world.trusted
    ]

    class Rotated:
        async def authorities(self) -> tuple[TrustedAuthority, TrustedAuthority]:
            return tuple(more)

        async def status(self) -> None:
            raise BadParameter("not now")

    world.factory.authorize = lambda identity: Rotated()
    with pytest.raises(BadParameter):
        await member.client.status()
    await until(lambda: member.authorities() == tuple(more))
    member.stop()
    await world.deafen()
    assert (await host.started(token=None)).authorities() == tuple(more)


@pytest.mark.parametrize("given", [(), "other"])
@test
async def test_authorities_of_someone_else(world: World, host: Host, given: str | tuple[Any, ...]) -> None:
    """An answer without this cluster's authorities does not make the host forget them."""
    member = await host.started()
    asked = []

    class Odd:
        async def authorities(self) -> tuple[TrustedAuthority, TrustedAuthority]:
            asked.append(1)
            return tuple(evolve(each, cluster="other") for each in world.trusted) if given else ()

    world.factory.authorize = lambda identity: Odd()
    await member.client.authorities()
    await until(lambda: len(asked) == 2)
    assert member.authorities() == world.trusted
    assert HostFiles(host.data_dir, "node").load().certificates.authorities == world.trusted


@pytest.mark.parametrize("what", ["keys", "name", "role", "authorities"])
@test
async def test_answer_for_another(world: World, host: Host, what: str) -> None:
    """Certificates that are not this host's are not taken, whoever sends them."""

    class Odd:
        async def join(self, request: JoinRequest) -> HostCertificates:
            if what == "name":
                request = evolve(request, uuid=str(uuid.uuid4()))
            if what == "role":
                request = evolve(request, role="proxy")
            given: HostCertificates = await world.server.join(request)
            if what == "keys":
                return evolve(given, tls_cert=world.tls_credentials("host", request.uuid, ("node",)).certificate)
            return evolve(given, authorities=given.authorities[:1]) if what == "authorities" else given

    world.factory.authorize = lambda identity: Odd()
    with pytest.raises(TrustError):
        await host.started()
    assert set(host.files()) == KEYS


@pytest.mark.parametrize("name", ["host_uuid", "node/ssh_key", "node/tls_key.pem", "node/membership.json"])
@pytest.mark.parametrize("damage", [b"", b"rubbish", b"{}"])
@test
async def test_damaged_files(host: Host, name: str, damage: bytes) -> None:
    """A damaged file is told by name, with what to do; nothing is replaced behind one's back."""
    (await host.started()).stop()
    (host.data_dir / name).write_bytes(damage)
    stored = host.files()
    with pytest.raises(TrustError, match=r"delete|Restore") as caught:
        await host.started()
    assert str(host.data_dir) in str(caught.value)
    assert host.files() == stored


@test
async def test_lost_copy(host: Host) -> None:
    """The PEM copy for web servers is written again if it is gone."""
    member = await host.started()
    member.stop()
    text = member.tls_files[0].read_text()
    member.tls_files[0].unlink()
    assert (await host.started(token=None)).tls_files[0].read_text() == text


def test_full_or_foreign_disk(tmp_path: Path) -> None:
    """A data_dir that cannot be written is told with its path."""
    (tmp_path / "file").write_text("")
    for call in (HostFiles(tmp_path / "file", "node").uuid, HostFiles(tmp_path / "file", "node").keys):
        with pytest.raises(Unavailable, match="cannot be read or written"):
            call()


def test_two_roles_make_one_uuid(tmp_path: Path) -> None:
    """Roles that start at the same moment in different processes agree on the UUID."""
    code = "import sys; from teleconch.api.hostfiles import HostFiles as H; print(H(sys.argv[1], sys.argv[2]).uuid())"
    running = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "new", f"role{number}"], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    assert len({each.communicate()[0] for each in running}) == 1
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["host_uuid"]


KILLED = """
import os, signal, sys
from teleconch.api import hostfiles
count = int(sys.argv[2])
def counted(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global count
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        count -= 1
        return real(*arguments, **options)
    setattr(os, name, call)
for name in ("fsync", "replace", "link", "unlink", "mkdir", "open"):
    counted(name)
files = hostfiles.HostFiles(sys.argv[1], "node")
files.uuid()
files.keys()
if len(sys.argv) > 3:
    files.store(hostfiles.decode_value(hostfiles.StoredMembership, open(sys.argv[3], "rb").read()))
print("done")
"""


@test
async def test_killed_at_every_step(host: Host, tmp_path: Path) -> None:
    """`kill -9` between any two steps of writing leaves files with which the next start goes on."""
    member = await host.started()
    given = tmp_path / "given.json"
    given.write_bytes((host.data_dir / "node" / "membership.json").read_bytes())
    done = 0
    for step in range(0, 60, 2):
        target = tmp_path / f"killed{step}"
        for _ in range(2):
            ended = subprocess.run([sys.executable, "-c", KILLED, target, str(step), given], capture_output=True)
            assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        name = HostFiles(target, "node").uuid()
        keys = HostFiles(target, "node").keys()
        assert HostFiles(target, "node").uuid() == name
        assert HostFiles(target, "node").keys() == keys
        membership = target / "node" / "membership.json"
        assert not membership.exists() or membership.read_bytes() == given.read_bytes()
        assert not list((target / "node").glob(".aside-*"))
        done += ended.returncode == 0
        if done > 2:
            break
    assert done, "the last steps were not reached"
    assert member
