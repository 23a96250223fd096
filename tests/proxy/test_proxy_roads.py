"""A second road to nodes, which no address leads to: channels of an SSH connection to OpenSSH's server."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater

from teleconch.access.permit import DialPermit
from teleconch.proxy.roads import Roads
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.ssh.client import ClientConnection, connect
from teleconch.ssh.ends import RelayChannel
from teleconch.ssh.problems import ChannelRefused
from tests.worlds.peers import Closes, Database, Echo, Peer, Ports, Web, jump, jump_to, login, subsystem
from tests.worlds.proxy import World, node
from tests.worlds.reactor import reactor

pytestmark = [pytest.mark.program("sshd"), pytest.mark.root]


class Tunnel:
    """The road to one node: each dial is a channel of ``connection``."""

    def __init__(self, connection: ClientConnection, uuid: str, port: int) -> None:
        self.connection = connection
        self.uuid = uuid
        self.port = port

    def leads_to(self, node: Node) -> bool:
        return node.uuid == self.uuid

    async def open(self, permit: DialPermit) -> RelayChannel:
        channel = RelayChannel()
        channel.name = b"direct-tcpip"
        await self.connection.open(channel, jump_to("127.0.0.1", self.port))
        return channel


async def tunnelled(world: World, ports: Ports, peer: type[Peer]) -> tuple[ClientConnection, list[Peer]]:
    """The proxy with a tunnel to ``peer``, which is the node ``web``, registered without an address."""
    addr, peers = await ports.listen(peer)
    web = node(1, "web", None)
    world.nodes.put(web)
    await (await world.start()).watched(1)
    sshd = world.sshd(2, "agent")
    connection = await connect(
        reactor,
        TCP4ClientEndpoint(reactor, "127.0.0.1", int(sshd.addr.rpartition(":")[2])),
        user="root",
        private_key_pem=Secret((world.folder / "alice").read_text()),
        certificate=(world.folder / "alice-cert.pub").read_text(),
        verify_host=lambda blob: None,
    )
    realm = world.server._factory.portal.realm
    road = Tunnel(connection, web.uuid, int(addr.rpartition(":")[2]))
    realm._parts = evolve(realm._parts, roads=Roads(reactor, [road, realm._parts.dialler]))
    return connection, peers


async def none_held(world: World) -> None:
    """Wait until the user's share is as before."""
    shares = world.parts.shares
    while any(share.connections for share in shares._users.values()):
        await deferLater(reactor, 0.01)


async def close(*connections: ClientConnection) -> None:
    for connection in connections:
        connection.close()
        await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_a_node_behind_a_tunnel(world: World, ports: Ports) -> None:
    """Users reach a node without an address as any other, in both ways of asking; ends end each other."""
    tunnel, peers = await tunnelled(world, ports, Echo)
    connection = await login(world)
    sent = bytes(range(256)) * 8_000
    for asked in (True, False):
        channel = await jump(connection, "web") if asked else (await subsystem(connection, "proxy:web:22"))[0]
        channel.write(sent)
        await channel.until(len(Echo.greeting) + len(sent))
        assert channel.out == (Echo.greeting + sent)[: channel.keep]
        channel.loseConnection()
        await channel.end
        await peers[-1].lost
    assert all(peer.count == len(sent) for peer in peers)
    channel = await jump(connection, "web")
    await channel.until(len(Echo.greeting))
    peers[-1].transport.loseConnection()
    await channel.eof
    channel.loseConnection()
    await channel.end
    await none_held(world)
    await close(connection, tunnel)


@pytest.mark.parametrize("peer", [Database, Closes, Web])
@pytest_twisted.ensureDeferred
async def test_only_ssh_is_relayed_through_a_tunnel(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch, peer: type[Peer]
) -> None:
    """What a tunnel leads to has to greet as an SSH server does before it gets a byte of a user's."""
    monkeypatch.setattr("teleconch.proxy.roads.VERSION_TIMEOUT", 0.3)
    tunnel, peers = await tunnelled(world, ports, peer)
    connection = await login(world)
    with pytest.raises(ChannelRefused) as refused:
        await jump(connection, "web")
    assert refused.value.sentence == "The proxy cannot reach web. Is the node running?"
    channel, _ = await subsystem(connection, "proxy:web:22")
    channel.write(b"GET / HTTP/1.1\r\n\r\n")
    await channel.end
    assert channel.err.decode() == "The proxy cannot reach web. Is the node running?\n"
    for each in peers:
        await each.lost
    assert [each.count for each in peers] == [0, 0]
    await none_held(world)
    await close(connection, tunnel)


@pytest_twisted.ensureDeferred
async def test_no_road(world: World) -> None:
    """A node without an address, to which no road leads, is found, and the sentence says what it lacks."""
    world.nodes.put(node(1, "web", None))
    await (await world.start()).watched(1)
    connection = await login(world)
    for port in (22, 3022):
        with pytest.raises(ChannelRefused) as refused:
            await jump(connection, "web", port)
        assert "has registered no address: set advertise_ip there" in refused.value.sentence
    with pytest.raises(ChannelRefused, match="does not reach web by a port: leave 2222 out"):
        await jump(connection, "web", 2222)
    await close(connection)
