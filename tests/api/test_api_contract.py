"""What the API promises, by noun: the same in process and over the wire."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.endpoints import HostnameEndpoint

from teleconch.api.client import AuthClient
from teleconch.api.interface import AuthAPI
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.errors import AccessDenied, AlreadyExists, BadParameter, ClockSkew, NotFound
from teleconch.proxy.dial import RELAY_SOURCE
from teleconch.resources.host import RenewRequest
from teleconch.resources.kind import NODES
from teleconch.resources.login import LoginRequest
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.resources.user import User
from tests.worlds.api import CLUSTER, TOKEN, Ears, InProcess, OnTheWire, World
from tests.worlds.reactor import port_of, reactor
from tests.worlds.waiting import until

test = pytest_twisted.ensureDeferred
ADMIN = str(uuid.uuid4())


def admin(peers: InProcess | OnTheWire) -> AuthAPI:
    return peers.host(ADMIN, "admin")


async def joined(
    peers: InProcess | OnTheWire, world: World, role: str = "node", nodename: str = "web1"
) -> tuple[str, AuthAPI]:
    request = world.join_request(role=role, nodename=nodename)
    await peers.anonymous().join(request)
    return request.uuid, peers.host(request.uuid, role)


def node(uuid: str, **changes: Any) -> Node:
    return Node(**{"uuid": uuid, "nodename": "web1", "cluster": CLUSTER, "addr": "192.0.2.7:3022", **changes})


@test
async def test_join(peers: InProcess | OnTheWire, world: World) -> None:
    """A new host with a token gets certificates and authorities; with a wrong one, a sentence."""
    given = await peers.anonymous().join(world.join_request())
    assert given.cluster == CLUSTER
    assert given.ssh_cert.startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert given.authorities == world.trusted
    assert given.valid_after < world.now() < given.valid_before
    with pytest.raises(AccessDenied):
        await peers.anonymous().join(world.join_request(token=Secret("wrong")))
    with pytest.raises(ClockSkew):
        await peers.anonymous().join(world.join_request(time=world.now() + 120))


@test
async def test_cluster(peers: InProcess | OnTheWire, world: World) -> None:
    """Every member sees what cluster it is in, and whom to trust."""
    _, host = await joined(peers, world)
    for api in (host, peers.user("alice"), admin(peers)):
        status = await api.status()
        assert (status.cluster, status.second_factor, status.time) == (CLUSTER, "off", world.now())
        assert status.ca_pins == (world.pin,)
        assert await api.authorities() == world.trusted == status.authorities


@test
async def test_hosts(peers: InProcess | OnTheWire, world: World) -> None:
    """A node renews, pings and says goodbye in its own name only."""
    name, host = await joined(peers, world)
    keys = new_ssh_key()[1], new_tls_key()[1]
    world.clock.advance(10)
    renewed = await host.renew(RenewRequest(*keys, world.now(), "0.1.0"))
    assert renewed.cluster == CLUSTER
    ping = await host.heartbeat(node(name, labels={"env": "prod"}), "one")
    assert ping.time == world.now()
    assert ping.interval > 0
    assert (await host.get_node(name)).online
    for wrong in (node(str(uuid.uuid4())), node(name, cluster="other"), node(name, roles=("proxy",))):
        with pytest.raises(AccessDenied):
            await host.heartbeat(wrong, "one")
    await host.goodbye("one")
    assert not (await host.get_node(name)).online


@test
async def test_nodes(peers: InProcess | OnTheWire, world: World) -> None:
    """Nodes are listed by page, found, watched, and forgotten by an administrator."""
    names = []
    for number in range(3):
        name, host = await joined(peers, world, nodename=f"web{number}")
        await host.heartbeat(node(name, nodename=f"web{number}", labels={"n": str(number)}), "one")
        names.append(name)
    first = await host.list_nodes("", 2)
    assert first.next is not None
    rest = await host.list_nodes(first.next, 2)
    assert [each.node.uuid for each in first.nodes + rest.nodes] == sorted(names)
    assert {each.node.labels["n"] for each in first.nodes + rest.nodes} == {"0", "1", "2"}
    assert (await peers.user("alice").get_node(name)).node.nodename == "web2"
    with pytest.raises(NotFound):
        await host.get_node(str(uuid.uuid4()))
    ears = Ears()
    watch = await host.watch(NODES, ears)
    await until(lambda: ears.wholes == 1)
    assert {each.key for each in ears.events} == set(names)
    await admin(peers).delete_node(name)
    await until(lambda: ears.events[-1].value is None)
    assert ears.events[-1].key == name
    watch.stop()
    watch.stop()
    heard = len(ears.events)
    await admin(peers).delete_node(names[0])
    await peers.user("alice").status()
    assert (len(ears.events), ears.ended) == (heard, 0)
    with pytest.raises(NotFound):
        await admin(peers).delete_node(str(uuid.uuid4()))


@test
async def test_tokens(peers: InProcess | OnTheWire, world: World) -> None:
    """An administrator makes, lists and revokes join tokens; a static one stays."""
    api = admin(peers)
    made = await api.create_token(("node",), 600.0, None)
    chosen = await api.create_token(("proxy",), 600.0, Secret("of-my-choice"))
    assert chosen.value == Secret("of-my-choice")
    with pytest.raises(AlreadyExists):
        await api.create_token(("proxy",), 600.0, Secret("of-my-choice"))
    await peers.anonymous().join(world.join_request(token=made.value))
    assert {each.value.reveal() for each in await api.list_tokens()} == {
        TOKEN,
        "of-my-choice",
        made.value.reveal(),
    }
    await api.delete_token(made.value)
    with pytest.raises(AccessDenied):
        await peers.anonymous().join(world.join_request(token=made.value))
    with pytest.raises(NotFound):
        await api.delete_token(made.value)
    with pytest.raises(BadParameter):
        await api.delete_token(Secret(TOKEN))


@test
async def test_users_and_logins(peers: InProcess | OnTheWire, world: World) -> None:
    """A user is made, signs up through the proxy, logs in, is changed, reset and removed."""
    api = admin(peers)
    _, proxy = await joined(peers, world, role="proxy")
    alice = User("alice", traits={"logins": ("root", "www")})
    token = await api.create_user(alice, 3600.0)
    assert token.user == "alice"
    with pytest.raises(AlreadyExists):
        await api.create_user(alice, 3600.0)
    signup = await proxy.start_signup(token.value)
    assert (signup.user, signup.cluster, signup.otp_secret) == ("alice", CLUSTER, None)
    with pytest.raises(BadParameter):
        await proxy.finish_signup(token.value, Secret("short"), "")
    assert await proxy.finish_signup(token.value, Secret("correct horse"), "") == "alice"
    request = LoginRequest("alice", Secret("correct horse"), "", new_ssh_key()[1], new_tls_key()[1], 600.0)
    given = await proxy.login(request)
    assert (given.user, given.logins, given.valid_before) == ("alice", ("root", "www"), world.now() + 600)
    for _ in range(5):
        with pytest.raises(AccessDenied):
            await proxy.login(evolve(request, password=Secret("wrong"), source="192.0.2.1"))
    assert [(each.user, each.source) for each in await api.list_lockouts()] == [("alice", "192.0.2.1")]
    assert await api.unlock_user("alice")
    assert not await api.unlock_user("alice")
    await api.upsert_user(User("alice", traits={"logins": ("root",)}), True)
    assert (await api.get_user("alice")).logins == ("root",)
    with pytest.raises(AlreadyExists):
        await api.upsert_user(alice, False)
    assert [each.name for each in await api.list_users()] == ["alice"]
    await api.reset_user("alice", 3600.0)
    with pytest.raises(AccessDenied):
        await proxy.login(request)
    await api.delete_user("alice")
    with pytest.raises(NotFound):
        await api.get_user("alice")


@test
async def test_signing(peers: InProcess | OnTheWire, world: World) -> None:
    """`tctl auth sign` gets certificates of a user and of an OpenSSH host."""
    api = admin(peers)
    await api.create_user(User("alice", traits={"logins": ("root",)}), 3600.0)
    keys = new_ssh_key()[1], new_tls_key()[1]
    assert (await api.sign_user("alice", *keys, 7200.0)).valid_before == world.now() + 7200
    signed = await api.sign_host(("legacy.example.com",), *keys, 7200.0)
    assert signed.ssh_cert.startswith("ssh-ed25519-cert-v01@openssh.com ")
    with pytest.raises(NotFound):
        await api.sign_user("nobody", *keys, 7200.0)
    with pytest.raises(BadParameter):
        await api.sign_host(("*",), *keys, 7200.0)


@test
async def test_who_is_removed_may_nothing_more(peers: InProcess | OnTheWire, world: World) -> None:
    """A user or host whom an administrator removed cannot go on with a certificate that still lives."""
    name, host = await joined(peers, world, nodename="web1")
    proxy, user = peers.host(str(uuid.uuid4()), "proxy"), peers.user("alice")
    for each in (host, proxy, user):
        await each.list_nodes("", 10)
    await admin(peers).delete_user("alice")
    await admin(peers).delete_node(name)
    for each in (host, user):
        for call in (each.list_nodes("", 10), each.get_node(name), each.status()):
            with pytest.raises(AccessDenied, match="removed"):
                await call
    await proxy.list_nodes("", 10)


@test
async def test_where_a_call_comes_from(world: World) -> None:
    """The auth server knows its own machine by one address at both ends; a relay for users is not it."""
    callers = []
    real = world.factory.authorize
    world.factory.authorize = lambda identity: (callers.append(identity), real(identity))[1]
    name = str(uuid.uuid4())
    for source in (None, (RELAY_SOURCE, 0)):
        port = port_of(world.port)
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port, bindAddress=source)
        client = AuthClient(reactor, [endpoint], world.trusting(world.tls_credentials("host", name, ("node",))))
        world.clients.append(client)
        await client.api.status()
    assert [(each.address, each.here) for each in callers] == [("127.0.0.1", True), (RELAY_SOURCE, False)]
