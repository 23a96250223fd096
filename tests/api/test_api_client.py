"""The client: addresses in turn, back-off, losses, and what it says when it cannot."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from teleconch.api import client as client_module
from teleconch.api.client import AuthClient
from teleconch.api.connection import endpoint_of
from teleconch.api.tls import ClientTLS, FirstContact, member_tls, newcomer_tls, server_credentials
from teleconch.errors import BadParameter, ClockSkew, ConnectionProblem, TeleconchError, TrustError
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.kind import NODES
from teleconch.resources.secret import Secret
from tests.worlds.api import CLUSTER, Ears, Log, World, other_world
from tests.worlds.reactor import port_of, reactor
from tests.worlds.waiting import spawn, until

test = pytest_twisted.ensureDeferred
UUID = str(uuid.uuid4())
NOBODY = "127.0.0.1:1"


class Mocking(random.Random):
    """Chance that is always the same."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


@implementer(IStreamClientEndpoint)
class Dialled:
    """An endpoint that counts, as a channel of SSH would be given to the client."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._endpoint = HostnameEndpoint(reactor, host, int(port))
        self.times = 0
        self.protocols: list[Any] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        self.times += 1
        return self._endpoint.connect(factory).addCallback(self._made)

    def _made(self, protocol: Any) -> Any:
        self.protocols.append(protocol)
        return protocol


def member_of(world: World) -> ClientTLS:
    return world.trusting(world.tls_credentials("host", UUID, ("node",)))


def client_of(
    world: World,
    addresses: list[str | Dialled],
    tls: ClientTLS | None = None,
    clock: Clock | None = None,
    **options: Any,
) -> AuthClient:
    client = AuthClient(clock or reactor, addresses, tls or member_of(world), chance=Mocking(0.5), **options)
    world.clients.append(client)
    return client


@test
async def test_addresses_in_turn(world: World) -> None:
    """With several auth_servers the first that answers is used, and stays in use."""
    dead, alive = Dialled(NOBODY), Dialled(world.address)
    client = client_of(world, [dead, alive])
    assert (await client.api.status()).cluster == CLUSTER
    await client.api.status()
    assert (dead.times, alive.times) == (1, 1)
    alive.protocols[0].abortConnection()
    await until(lambda: client._broker is None)
    await client.api.status()
    assert (dead.times, alive.times) == (1, 2)


@test
async def test_nobody_answers(world: World) -> None:
    """The sentence names every address with its reason."""
    client = client_of(world, [NOBODY, "nosuch.invalid:3025"])
    with pytest.raises(ConnectionProblem) as caught:
        await client.api.status()
    assert f"{NOBODY}: connection refused; nosuch.invalid:3025: the name is not known" in str(caught.value)


@test
async def test_back_off(world: World) -> None:
    """While nobody answers, rounds are further and further apart, by chance; calls wait for it."""
    clock, dead = Clock(), Dialled(NOBODY)
    client = client_of(world, [dead], clock=clock, timeout=1000)
    waits = []
    for expected in range(1, 9):
        call = spawn(client.api.status())
        waited = 0.0
        while dead.times < expected:
            clock.advance(0.125)
            waited += 0.125
        with pytest.raises(ConnectionProblem):
            await call
        waits.append(waited)
    assert waits[1:] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0]


@test
async def test_one_round_for_all(world: World) -> None:
    """Many calls at once open one connection."""
    endpoint = Dialled(world.address)
    client = client_of(world, [endpoint])
    calls = [spawn(client.api.status()) for _ in range(100)]
    for each in calls:
        assert (await each).cluster == CLUSTER
    assert endpoint.times == 1


@test
async def test_loss_and_return(world: World) -> None:
    """The auth server is killed and comes back: the call in progress fails with a sentence, later ones succeed."""
    client = client_of(world, [world.address])
    ears = Ears()
    await client.api.watch(NODES, ears)
    gate: Deferred[None] = Deferred()

    class Slow:
        async def status(self) -> None:
            await gate

    world.factory.authorize = lambda identity: Slow()
    call = spawn(client.api.status())
    await until(lambda: client._broker.waitingForAnswers)
    port = port_of(world.port)
    await world.deafen()
    with pytest.raises(ConnectionProblem, match="lost before the answer"):
        await call
    gate.callback(None)
    await until(lambda: ears.ended == 1)
    with pytest.raises(ConnectionProblem, match="connection refused"):
        await client.api.status()
    await world.listen(port)
    assert (await client.api.status()).cluster == CLUSTER


@test
async def test_server_that_hangs(world: World) -> None:
    """An auth server that hangs is given up after the timeout, the connection with it, and dialled again."""
    clock, endpoint = Clock(), Dialled(world.address)
    client = client_of(world, [endpoint], clock=clock, timeout=30)
    await client.api.status()

    class Hanging:
        async def status(self) -> None:
            await Deferred()

    world.factory.authorize = lambda identity: Hanging()
    clock.advance(1)
    call = spawn(client.api.status())
    await until(lambda: client._broker.waitingForAnswers)
    clock.advance(30)
    with pytest.raises(ConnectionProblem, match="did not answer within 30 seconds"):
        await call
    del world.factory.authorize
    world.factory.authorize = world.authorized
    await until(lambda: client._broker is None)
    call = spawn(client.api.status())
    clock.advance(1)
    assert (await call).cluster == CLUSTER
    assert endpoint.times == 2


@test
async def test_silent_address(world: World) -> None:
    """An address that takes the connection and says nothing is left for the next one."""
    held = []

    class Holding(Protocol):
        def connectionMade(self) -> None:
            held.append(self)

    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Holding))
    client = client_of(world, [f"127.0.0.1:{port_of(port)}", world.address], connect_timeout=0.2)
    assert (await client.api.status()).cluster == CLUSTER
    await port.stopListening()
    assert held


@test
async def test_not_an_auth_server(world: World) -> None:
    """An address where SSH answers (a wrong port) is told as such."""

    class Banner(Protocol):
        def connectionMade(self) -> None:
            self.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Banner))
    client = client_of(world, [f"127.0.0.1:{port_of(port)}"])
    with pytest.raises(ConnectionProblem, match=r"does not speak TLS 1\.3 as an auth server does"):
        await client.api.status()
    await port.stopListening()


@test
async def test_another_clusters_server(world: World) -> None:
    """A server with another CA is refused before anything is sent, though its name is right."""
    for name, reason in (("other.example.com", "belongs to cluster other.example.com"), (CLUSTER, "is not the one")):
        other = World(cluster=name)
        await other.start()
        client = client_of(world, [other.address], tls=member_of(world))
        with pytest.raises(TrustError, match=reason):
            await client.api.status()
        await other.stop()


@test
async def test_a_node_is_no_auth_server(world: World) -> None:
    """A member's certificate of the right CA does not make its host an auth server."""
    for roles, names in ((("node",), ("teleport.cluster.local",)), (("auth",), ()), (("auth",), ("example.com",))):
        fake = world.tls_credentials("host", str(uuid.uuid4()), roles, names=names)
        world.credentials = server_credentials(fake.certificate, fake.private_key, world.trusted)
        for tls in (member_of(world), newcomer_tls(FirstContact((world.pin,), world.now).check)):
            with pytest.raises(TrustError, match="not its auth server"):
                await client_of(world, [world.address], tls=tls).api.status()


@test
async def test_wrong_pin(world: World) -> None:
    """A newcomer with the pin of another CA sends nothing, and is told both pins' story."""
    wrong = "sha256:" + "0" * 64
    with pytest.raises(TrustError, match="not the one that ca_pin asks for"):
        await world.newcomer(wrong).join(world.join_request())
    assert not [each async for each in world.backend.all("/hosts/")]
    assert (await world.newcomer(wrong, world.pin).join(world.join_request())).cluster == CLUSTER


@test
async def test_no_pin(world: World, log: Log) -> None:
    """Without a pin the server is believed, with a warning that says what to set."""
    await world.newcomer().join(world.join_request())
    (line,) = [each for each in log.events if each.get("pin")]
    assert line["pin"] == world.pin


@pytest.mark.parametrize(("off", "told"), [(-3700.0, "is not valid yet"), (31 * 86400.0, "has expired")])
@test
async def test_clock_skew(world: World, off: float, told: str) -> None:
    """A clock that is off is told as that, with by how much at least."""
    credentials = world.tls_credentials("host", UUID, ("node",))
    now = lambda: world.now() + off  # noqa: E731
    client = client_of(world, [world.address], tls=member_tls(lambda: credentials, lambda: world.trusted, now))
    with pytest.raises(ClockSkew, match=told) as caught:
        await client.api.status()
    assert ("1h" if off < 0 else "1d") in str(caught.value)
    assert world.address in str(caught.value)


@test
async def test_renewed_credentials(world: World) -> None:
    """After a renewal new calls show the new certificate; calls in progress end on the old connection."""
    shown, endpoint = [world.tls_credentials("host", UUID, ("node",))], Dialled(world.address)
    client = client_of(world, [endpoint], tls=member_tls(lambda: shown[-1], lambda: world.trusted, world.now))
    seen: list[Any] = []
    gates: list[Any] = []

    class Watching:
        async def get_node(self, name: str) -> None:
            gates.append(Deferred())
            await gates[-1]
            raise BadParameter("over")

    def authorize(identity: ApiIdentity) -> object:
        seen.append(identity)
        return Watching()

    world.factory.authorize = authorize
    old = spawn(client.api.get_node("x"))
    await until(lambda: gates)
    world.clock.advance(10)
    shown.append(world.tls_credentials("host", UUID, ("node",)))
    client.renewed()
    new = spawn(client.api.get_node("x"))
    await until(lambda: len(gates) == 2)
    assert seen[1].expires == seen[0].expires + 10
    for gate, call in zip(gates, (old, new), strict=True):
        gate.callback(None)
        with pytest.raises(BadParameter):
            await call
    await until(lambda: len(world.factory.protocols) == 1)
    assert endpoint.times == 2


@test
async def test_closed(world: World) -> None:
    """A closed client fails what waits, and whatever comes later, with a sentence."""
    clock = Clock()
    client = client_of(world, [Dialled(NOBODY)], clock=clock, timeout=1000)
    with pytest.raises(ConnectionProblem):
        await client.api.status()
    waiting = spawn(client.api.status())
    client.close()
    client.close()
    for call in (waiting, spawn(client.api.status())):
        with pytest.raises(ConnectionProblem, match="closed here"):
            await call


@test
async def test_closed_with_all_that_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls wait when a client is closed, all fail with a sentence."""
    monkeypatch.setattr(client_module, "_WAITING_MAX", 10_000)
    client = client_of(world, [Dialled(NOBODY)], clock=Clock(), timeout=1000)
    calls = [spawn(client.api.status()) for _ in range(5000)]
    client.close()
    for call in calls:
        with pytest.raises(TeleconchError, match="closed here"):
            await call
    assert not client._turns.waiting
    assert client._turns.tokens == client._turns.limit


@test
async def test_unusable_files(world: World) -> None:
    """A damaged certificate or key is told as that, not as a network's fault."""
    good = world.tls_credentials("host", UUID, ("node",))
    for bad in (evolve(good, certificate="rubbish"), evolve(good, private_key=Secret("rubbish"))):
        with pytest.raises(TrustError, match="cannot be read"):
            await client_of(world, [world.address], tls=world.trusting(bad)).api.status()


def test_addresses() -> None:
    """Hosts, ports and IPv6 addresses are read as people write them; nonsense is refused with a sentence."""
    for text, port in (("auth", 3025), ("auth:1", 1), ("[::1]", 3025), ("[::1]:7", 7)):
        assert f"{port}" in repr(endpoint_of(reactor, text, 1))
    for wrong in ("auth:x", "auth:0", "auth:70000", "", ":1", "[::1", "[::1]x"):
        with pytest.raises(BadParameter):
            endpoint_of(reactor, wrong, 1)
    with pytest.raises(TeleconchError):
        AuthClient(reactor, [], newcomer_tls(lambda chain: None))


def test_other_authority_is_other() -> None:
    """Two authorities of one name have different pins."""
    assert other_world()[1].tls_certs != other_world()[1].tls_certs
