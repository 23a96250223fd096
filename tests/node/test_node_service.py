"""The node's life: start, pings, stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError

from teleconch.errors import AccessDenied, BadParameter
from teleconch.node.labels import Labels
from teleconch.node.settings import NodeSettings
from teleconch.resources.host import Ping
from teleconch.service.events import LogEmitter
from teleconch.service.node import node_server
from tests.worlds.node import Authorities, Member, World, running_node
from tests.worlds.reactor import reactor

pytestmark = pytest.mark.program("ssh")


@pytest_twisted.ensureDeferred
async def test_ping_tells_what_the_node_is(tmp_path: Path) -> None:
    """`tctl nodes ls` can show name, UUID, address, labels and version of a node that has just started."""
    world = await running_node(tmp_path, labels={"env": "test"}, public_addrs=("box.example.com:3022",))
    ((node, instance),) = world.member.client.pings
    assert (node.uuid, node.nodename, node.cluster) == (world.member.uuid, "box", "example.com")
    assert node.addr == f"127.0.0.1:{world.port}"
    assert node.public_addrs == ("box.example.com:3022",)
    assert node.labels == {"env": "test"}
    assert node.version
    assert node.roles == ("node",)
    assert world.member.answers == [None]
    await world.close()
    assert world.member.client.goodbyes == [instance]


@pytest_twisted.ensureDeferred
async def test_the_membership_hears_of_a_refusal(tmp_path: Path) -> None:
    """A node that was removed while it was down can join again: its membership learns what became of its pings."""
    world = await running_node(tmp_path)
    refusal = AccessDenied("removed")

    def refuse() -> Ping:
        raise refusal

    world.member.client.answer = refuse
    world.node.heartbeat.changed()
    assert world.member.answers == [None, refusal]
    await world.close()


@pytest_twisted.ensureDeferred
async def test_auth_server_is_down(tmp_path: Path) -> None:
    """While the auth server is down, users with valid certificates still get in."""
    world = await running_node(tmp_path, down=True)
    assert (await world.ssh("echo in")).out == b"in\n"
    assert world.node.heartbeat.failures
    await world.close()


@pytest_twisted.ensureDeferred
async def test_stop_lets_sessions_end(tmp_path: Path) -> None:
    """A node that is stopped takes no new connection, and lets a running command end by itself."""
    world = await running_node(tmp_path, stop_deadline=20)
    client = world.start("echo up; sleep 0.7; echo done", stdin=None)
    await client.until(b"up")
    stopping = world.close()
    assert (await world.ssh("true")).code == 255
    assert (await client.done).out == b"up\ndone\n"
    await stopping


@pytest_twisted.ensureDeferred
async def test_stop_hangs_up_in_the_end(tmp_path: Path) -> None:
    """A command that never ends is hung up at the deadline, and the client is told."""
    world = await running_node(tmp_path, stop_deadline=0.3)
    client = world.start("echo up; sleep 500", stdin=None)
    await client.until(b"up")
    await world.close()
    assert (await client.done).code == 255
    assert world.logged("session.end")[0]["error"] == "the node stops"


@pytest_twisted.ensureDeferred
async def test_port_in_use(world: World) -> None:
    """A port that is taken is an error at start, for whoever starts the node."""
    endpoint = TCP4ServerEndpoint(reactor, world.port, interface="127.0.0.1")
    node = node_server(reactor, Member(Authorities()), endpoint, NodeSettings("second"), emitter=LogEmitter())
    node.startService()
    with pytest.raises(CannotListenError):
        await node.listening
    await node.stopService()


@pytest_twisted.ensureDeferred
async def test_stop_at_once(tmp_path: Path) -> None:
    """Starting and stopping in one breath leaves nothing."""
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    node = node_server(reactor, Member(Authorities()), endpoint, NodeSettings("short"), emitter=LogEmitter())
    node.startService()
    await node.stopService()
    await task.deferLater(reactor, 0)


def test_labels() -> None:
    """Labels that could not be asked for on the command line are refused with a reason."""
    assert Labels(reactor, {"env": "prod", "teleport.io/x": "a b"}).current() == {"env": "prod", "teleport.io/x": "a b"}
    for bad in ({"": "x"}, {"a b": "x"}, {"a=b": "x"}, {"a": "x\ny"}, {"a": "x" * 256}):
        with pytest.raises(BadParameter):
            Labels(reactor, bad)


@pytest_twisted.ensureDeferred
async def test_nobody_is_kept_after_leaving(world: World) -> None:
    """A node that serves thousands of connections keeps nothing of those that are gone."""
    for _ in range(3):
        assert (await world.ssh("echo in")).out == b"in\n"
    await world.node.parts.users.empty().addTimeout(10, reactor)
    assert len(world.node.parts.users) == len(world.node.parts.live) == 0
