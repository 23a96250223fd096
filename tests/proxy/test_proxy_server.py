"""The proxy's SSH server: what it refuses, what it logs, how it starts and ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from teleconch.api.interface import Receiver
from teleconch.ca.authority import new_authority, trusted
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, TeleconchError
from teleconch.proxy import server
from teleconch.resources.kind import Kind
from teleconch.resources.secret import Secret
from teleconch.ssh import client, messages
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from tests.worlds.peers import Caller, Closes, Database, Echo, Peer, Ports, Web, jump, jump_to, login, subsystem
from tests.worlds.proxy import CLUSTER, World, node, status
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply


@pytest.mark.parametrize(
    ("peer", "says"),
    [
        (Database, "what answers there does not speak SSH"),
        (Closes, "it closed the connection before it said anything"),
        (Web, "it accepted the connection but said nothing"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_only_ssh_is_relayed(
    world: World, ports: Ports, logged: list[Any], monkeypatch: pytest.MonkeyPatch, peer: Any, says: str
) -> None:
    """A registered address that leads to something else gets no byte of a user's (CVE-2024-35175)."""
    monkeypatch.setattr("teleconch.proxy.roads.VERSION_TIMEOUT", 0.3)
    addr, peers = await ports.listen(peer)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    told = f"The proxy cannot reach web at {addr}. Is the node running there?"
    with pytest.raises(ChannelRefused) as refused:
        await jump(connection, "web")
    assert refused.value.sentence == told
    channel, granted = await subsystem(connection, "proxy:web:22")
    channel.write(b"GET / HTTP/1.1\r\n\r\n")
    await channel.end
    assert granted
    assert channel.err.decode() == f"{told}\n"
    assert channel.status == 1
    assert [each.count for each in peers] == [0, 0]
    refusals = [each for each in logged if each.get("event") == "proxy.dial"]
    assert len(refusals) == 2
    for each in refusals:
        assert (each["user"], each["login"]) == ("alice", "root")
        assert each["addr_remote"].startswith("127.0.0.1:")
        assert each["target"] == "web:22"
        assert says in each["error"]
    connection.close()
    await connection.disconnected
    for each in peers:
        await each.lost


@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1", 3025), ("169.254.169.254", 80), ("localhost", 22), ("::1", 3025), ("127.0.0.1", 0)],
)
@pytest_twisted.ensureDeferred
async def test_unregistered_targets(world: World, ports: Ports, logged: list[Any], host: str, port: int) -> None:
    """A user who asks the proxy for loopback, metadata or auth is refused in a sentence, and that is logged."""
    world.nodes.put(node(1, "web", "10.0.0.1:3022"))
    await (await world.start()).watched(1)
    connection = await login(world)
    with pytest.raises(ChannelRefused) as refused:
        await jump(connection, host, port)
    assert refused.value.code == messages.OPEN_ADMINISTRATIVELY_PROHIBITED
    assert "is registered in example.test: see `tsh ls`" in refused.value.sentence
    channel, _ = await subsystem(connection, f"proxy:{host}:{port}")
    await channel.end
    assert "is registered in example.test: see `tsh ls`" in channel.err.decode()
    refusals = [each for each in logged if each.get("event") == "proxy.dial"]
    assert len(refusals) == 2
    assert all(each["user"] == "alice" and host in each["target"] and not each["success"] for each in refusals)
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_other_channels_and_requests(world: World, ports: Ports, logged: list[Any]) -> None:
    """There is no shell, command, file transfer, environment, agent, X11 or listening port on the proxy."""
    await world.start()
    connection = await login(world)
    for kind in (
        b"x11",
        b"forwarded-tcpip",
        b"auth-agent@openssh.com",
        b"direct-streamlocal@openssh.com",
        b"tun@openssh.com",
    ):
        with pytest.raises(ChannelRefused) as refused:
            await connection.open(Caller(kind), jump_to("web", 22))
        assert refused.value.code == messages.OPEN_UNKNOWN_CHANNEL_TYPE
    channel = await connection.open(Caller())
    for name, data in (
        (b"env", string(b"LD_PRELOAD") + string(b"x")),
        (b"x11-req", b"\0\0" + string(b"") + string(b"") + uint32(0)),
        (b"auth-agent-req@openssh.com", b""),
        (b"signal", string(b"KILL")),
        (b"nonsense", b""),
        (b"subsystem", b"\xff"),
    ):
        with pytest.raises(RequestRefused):
            await reply(connection.sendRequest(channel, name, data, wantReply=1))
    for other in ("sftp", "auth-api2", "netconf", ""):
        _, granted = await subsystem(connection, other)
        assert not granted
    for name in (b"tcpip-forward", b"streamlocal-forward@openssh.com", b"hostkeys-prove-00@openssh.com"):
        with pytest.raises(RequestRefused):
            await reply(connection.sendGlobalRequest(name, string(b"0.0.0.0") + uint32(0), wantReply=1))
    for kind, data in ((b"shell", b""), (b"exec", string(b"id"))):
        channel = Caller()
        await connection.open(channel)
        assert await reply(connection.sendRequest(channel, kind, data, wantReply=1))
        await channel.end
        assert channel.out == b""
        assert channel.err.startswith(b"This is the proxy of example.test: there is no shell, command or file transfer")
        assert channel.err.endswith(b"\n")
        assert channel.status == 1
    denied = [each for each in logged if each.get("event") == "proxy.denied"]
    asked = [each["target"] for each in denied if each["kind"] == "session"]
    assert asked == ["subsystem"] * 3 + ["shell", "exec"] or asked == ["subsystem"] * 4 + ["shell", "exec"]
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_one_program_a_session(world: World, ports: Ports) -> None:
    """A session leads to one place: a second subsystem, shell or exec on it is refused."""
    addr, peers = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    channel, granted = await subsystem(connection, "proxy:web:22")
    assert granted
    for name, data in ((b"subsystem", string(b"proxy:web:22")), (b"shell", b""), (b"exec", string(b"id"))):
        with pytest.raises(RequestRefused):
            await reply(connection.sendRequest(channel, name, data, wantReply=1))
    assert len(peers) == 1
    channel.write(b"still there")
    await channel.until(14 + 11)
    connection.close()
    await connection.disconnected
    await peers[0].lost


@pytest_twisted.ensureDeferred
async def test_malformed_opens(world: World, ports: Ports) -> None:
    """A channel open that is cut short is refused, and the connection goes on."""
    await world.start()
    connection = await login(world)
    for data in (b"", b"\xff\xff\xff\xff", string(b"web"), string(b"web") + uint32(22), jump_to("web", 22) + b"more"):
        with pytest.raises(ChannelRefused):
            await connection.open(Caller(b"direct-tcpip"), data)
    with pytest.raises(ChannelRefused, match="is not a port"):
        await jump(connection, "web", 70000)
    with pytest.raises(ChannelRefused, match="No node with the name"):
        await jump(connection, "web", 22)
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_user_gone_while_dialling(world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a user goes away during a dial, the dial is given up and its socket closed."""

    class Silent(Peer):
        greeting = b""

    addr, peers = await ports.listen(Silent)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    opening = connection.open(Caller(b"direct-tcpip"), jump_to("web", 22))
    opening.addErrback(lambda _: None)
    channel = await connection.open(Caller())
    connection.sendRequest(channel, b"subsystem", string(b"proxy:web:22"))
    while len(peers) < 2:
        await deferLater(reactor, 0.01)
    connection.transport.abortConnection()
    await connection.disconnected
    for peer in peers:
        await peer.lost.addTimeout(5, reactor)


@pytest_twisted.ensureDeferred
async def test_dials_before_the_first_picture(world: World, ports: Ports) -> None:
    """Whoever asks for a node while a restarted proxy still reads the list of nodes waits, instead of being refused."""
    addr, peers = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    watching = world.nodes.watch
    gate: Deferred[None] = Deferred()

    async def late(kind: Kind[Any], receiver: Receiver[Any]) -> Any:
        await gate
        return await watching(kind, receiver)

    world.nodes.watch = late
    await world.start()
    connection = await login(world)
    asked = Deferred.fromCoroutine(jump(connection, "web"))
    other = Deferred.fromCoroutine(jump(connection, "nowhere"))
    await deferLater(reactor, 0.1)
    assert not asked.called
    assert not other.called
    gate.callback(None)
    channel = await asked
    await channel.until(14)
    with pytest.raises(ChannelRefused, match="No node with the name"):
        await other
    connection.close()
    await connection.disconnected
    await peers[0].lost


@pytest_twisted.ensureDeferred
async def test_dials_at_once_are_bounded(world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user cannot have the proxy open any number of sockets at once."""
    monkeypatch.setattr("teleconch.proxy.shares.YOUNG_PER_USER", 3)
    monkeypatch.setattr("teleconch.proxy.shares.LINE_SECONDS", 0.1)

    class Silent(Peer):
        greeting = b""

    addr, peers = await ports.listen(Silent)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    for _ in range(3):
        connection.open(Caller(b"direct-tcpip"), jump_to("web", 22)).addErrback(lambda _: None)
    with pytest.raises(ChannelRefused, match="Too many connections are being opened at once"):
        await jump(connection, "web")
    connection.transport.abortConnection()
    await connection.disconnected
    for peer in peers:
        await peer.lost


@pytest_twisted.ensureDeferred
async def test_auth_api(world: World, ports: Ports) -> None:
    """`auth-api` leads to the first auth server that can be reached, byte for byte; without one it says so."""
    addr, peers = await ports.listen(type("Raw", (Echo,), {"greeting": b""}))
    await world.start(auth_addresses=("127.0.0.1:1", addr))
    connection = await login(world)
    channel, granted = await subsystem(connection, "auth-api")
    assert granted
    channel.write(b"\x16\x03\x01 hello")
    await channel.until(9)
    assert channel.out == b"\x16\x03\x01 hello"
    channel.loseConnection()
    await channel.end
    await peers[0].lost
    connection.close()
    await connection.disconnected
    world.parts.dialler._auth = (("127.0.0.1", 1),)
    connection = await login(world)
    channel, granted = await subsystem(connection, "auth-api")
    await channel.end
    assert channel.err == b"The proxy cannot reach the auth server at the moment: try again in a minute.\n"
    assert channel.status == 1
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_one_user_has_a_share_of_the_auth_api(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who opens connections to the auth server without end does not use up what it takes from this proxy."""
    monkeypatch.setattr(server, "API_AT_ONCE", 3)
    addr, peers = await ports.listen(type("Raw", (Echo,), {"greeting": b""}))
    await world.start(auth_addresses=(addr,))
    connections = [await login(world) for _ in range(2)]
    channels = [(await subsystem(connections[number % 2], "auth-api"))[0] for number in range(4)]
    await channels[3].end
    assert channels[3].err.startswith(b"You have too many connections to the auth server open")
    channels[0].loseConnection()
    await channels[0].end
    await peers[0].lost
    road = world.parts
    while sum(road.api_ends.values()) > 2:
        await deferLater(reactor, 0.01)
    channel, granted = await subsystem(connections[1], "auth-api")
    assert granted
    channel.write(b"hello")
    await channel.until(5)
    for connection in connections:
        connection.close()
        await connection.disconnected
    for peer in peers:
        await peer.lost
    while road.api_ends:
        await deferLater(reactor, 0.01)


@pytest_twisted.ensureDeferred
async def test_offline_node(world: World, ports: Ports) -> None:
    """A node that missed pings is tried all the same; only when that fails the user reads since when it is offline."""
    addr, _ = await ports.listen(Echo)
    world.nodes.put(
        status(node(1, "late", addr), online=False),
        status(node(2, "gone", "127.0.0.1:1"), online=False, last_seen=1795381860),
        node(3, "down", "127.0.0.1:1"),
    )
    await (await world.start()).watched(3)
    connection = await login(world)
    channel = await jump(connection, "late")
    channel.loseConnection()
    await channel.end
    with pytest.raises(ChannelRefused, match=r"gone at .* is offline since 22 Nov 26 .* UTC, and cannot be reached\.$"):
        await jump(connection, "gone")
    with pytest.raises(ChannelRefused, match=r"cannot reach down at 127.0.0.1:1\. Is the node running there\?$"):
        await jump(connection, "down")
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_certificates(world: World, ports: Ports) -> None:
    """Only a current certificate of this cluster for that login gets in, and only while it lasts may it dial."""
    addr, _ = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    world.user_files("late", ("root",), lasts=-1)
    world.user_files("foreign", ("root",), ca=new_authority("user", CLUSTER, 0))
    world.user_files("mallory", ("nobody",))
    for user in ("late", "foreign", "mallory"):
        with pytest.raises(AccessDenied):
            await login(world, user)
    world.user_files("short", ("root",), lasts=1.5)
    connection = await login(world, "short")
    (await jump(connection, "web")).loseConnection()
    await deferLater(reactor, 1.6)
    with pytest.raises(ChannelRefused, match="expired; log in again with `tsh login`"):
        await jump(connection, "web")
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_foreign_clusters_user(world: World) -> None:
    """Another cluster's users stay out, even where their authority is known for other reasons."""
    other = new_authority("user", "other.test", time.time())
    world.member.also = (trusted(other),)
    await world.start()
    world.user_files("mallory", ("root",), ca=other)
    with pytest.raises(TeleconchError):
        await login(world, "mallory")


@pytest_twisted.ensureDeferred
async def test_foreign_clusters_node(world: World, ports: Ports) -> None:
    """A certificate of this cluster does not have the proxy dial another cluster's node."""
    from attrs import evolve

    addr, peers = await ports.listen(Echo)
    world.nodes.put(evolve(node(1, "web", addr), cluster="other.test"))
    await (await world.start()).watched(1)
    connection = await login(world)
    with pytest.raises(ChannelRefused, match=r"belongs to the cluster other\.test"):
        await jump(connection, "web")
    assert not peers
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_renewed_host_certificate(world: World) -> None:
    """A renewed host certificate is shown to the next user without a restart."""
    await world.start()
    shown: list[bytes] = []

    async def look() -> bytes:
        connection = await _connect(world, shown.append)
        connection.close()
        await connection.disconnected
        return shown[-1]

    first = await look()
    assert await look() == first
    from teleconch.ca.keys import new_ssh_key

    world.member.key, public = new_ssh_key()
    world.member.certificate = world.member.host_certificate(public, "proxy", ("127.0.0.1",), "proxy")
    assert await look() != first


async def _connect(world: World, verify: Callable[..., Any]) -> Connection:
    return await client.connect(
        reactor,
        TCP4ClientEndpoint(reactor, "127.0.0.1", world.port),
        user="root",
        private_key_pem=Secret((world.folder / "alice").read_text()),
        certificate=(world.folder / "alice-cert.pub").read_text(),
        verify_host=verify,
    )


@pytest_twisted.ensureDeferred
async def test_stop(world: World, ports: Ports) -> None:
    """A proxy that is stopped lets go of users and nodes, and of peers that never finished saying hello."""
    addr, peers = await ports.listen(Echo)
    world.nodes.put(node(1, "web", addr))
    await (await world.start()).watched(1)
    connection = await login(world)
    await jump(connection, "web")
    half: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", world.port).connect(_half_factory())
    await world.stop()
    world.server = None
    await connection.disconnected
    await peers[0].lost
    await half.lost


def _half_factory() -> Factory[Any]:
    return Factory.forProtocol(type("Half", (Peer,), {"greeting": b"", "lives": []}))
