"""Peers that do not keep to the rules, at the auth server's port."""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from teleconch.api import watching
from teleconch.api.codec import METHODS, REQUEST_MAX, encode_arguments
from teleconch.api.server import APILimits
from teleconch.api.tls import ClientTLS
from teleconch.api.watching import PushedWatch
from teleconch.api.wire import Exposed, read_answer
from teleconch.ca.authority import trusted
from teleconch.errors import AccessDenied, BadParameter, ConnectionProblem, LimitExceeded, TeleconchError, TrustError
from teleconch.resources.authority import CertAuthority
from teleconch.resources.host import JoinRequest
from teleconch.resources.kind import NODES, Change, Kind
from teleconch.resources.login import ClusterStatus
from teleconch.resources.secret import Secret
from teleconch.resources.user import User
from tests.worlds.api import CLUSTER, START, Ears, Log, World, other_world
from tests.worlds.reactor import reactor
from tests.worlds.waiting import spawn, until

test = pytest_twisted.ensureDeferred
UUID = str(uuid.uuid4())


async def called(world: World, tls: ClientTLS, name: str, *arguments: Any) -> Any:
    """One call below ``AuthClient``: what the server answers, or the TeleconchError that it told."""
    broker, root = await world.raw(tls)
    try:
        return read_answer(await broker.call(root, name, *arguments))
    finally:
        broker.close()
        await broker.lost


@pytest.mark.parametrize("method", [*(name for name in METHODS if name != "join"), "remote_join", "__init__", "answer"])
@test
async def test_anonymous_may_only_join(world: World, log: Log, method: str) -> None:
    """A peer without a certificate reaches nothing but `join`, whatever it asks for; each try is logged."""
    with pytest.raises(AccessDenied, match="a peer without a certificate"):
        await called(world, world.anonymous_tls(), method, b"[]")
    (line,) = log.refusals()
    assert (line["event"], line["method"], line["addr_remote"]) == ("auth.api", method, "127.0.0.1")


@pytest.mark.parametrize("method", ["create_user", "create_token", "delete_node", "sign_user", "list_tokens", "login"])
@test
async def test_node_calls_an_admins_method(world: World, log: Log, method: str) -> None:
    """A node's TLS identity cannot do what administrators do, nor pass on logins; each try is logged with its UUID."""
    tls = world.trusting(world.tls_credentials("host", UUID, ("node",)))
    with pytest.raises(AccessDenied, match=f"host {UUID}"):
        await called(world, tls, method, f'["{UUID}"]'.encode())
    (line,) = log.refusals()
    assert (line["method"], line["server_id"], line["addr_remote"]) == (method, UUID, "127.0.0.1")


@test
async def test_a_gate_behind_the_perspective(world: World) -> None:
    """Were the perspective too wide, the table still denies: a node that is shown the whole API."""
    world.factory.authorize = lambda identity: world.authorized(evolve(identity, roles=("node",)))
    tls = world.trusting(world.tls_credentials("host", UUID, ("admin",)))
    with pytest.raises(AccessDenied, match="'list_users' is not for host"):
        await called(world, tls, "list_users", b"[]")


def nested(world: World) -> CertAuthority:
    """A host certificate that signs as if it were the host authority."""
    credentials = world.tls_credentials("host", UUID, ("node",))
    real = world.cas["host"]
    return CertAuthority(
        "host", CLUSTER, real.ssh_public_key, real.ssh_private_key, real.tls_cert, credentials.private_key, START
    )


CERTIFICATES: dict[str, Callable[[World], tuple[str, dict[str, Any], str]]] = {
    "another cluster": lambda world: (
        "host",
        {"ca": other_world("other.example.com")[0]},
        "not signed by an authority",
    ),
    "a cluster of the same name": lambda world: ("host", {"ca": other_world()[0]}, "not signed by an authority"),
    "signed by a host": lambda world: ("host", {"ca": nested(world)}, "not signed by an authority"),
    "expired": lambda world: ("host", {"begin": -7200, "end": -1}, "expired at"),
    "not valid yet": lambda world: ("host", {"begin": 3600, "end": 7200}, "not valid before"),
    "expired user": lambda world: ("user", {"begin": -7200, "end": -1}, "expired at"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
@test
async def test_certificate_refused(world: World, log: Log, case: str) -> None:
    """Each certificate that is not a member's is refused with its reason, which is logged; the connection ends."""
    kind, options, reason = CERTIFICATES[case](world)
    credentials = world.tls_credentials(kind, UUID, ("admin",), **options)
    broker, root = await world.raw(world.trusting(credentials))
    for name in ("status", "join"):
        with pytest.raises((TrustError, ConnectionProblem)) as caught:
            read_answer(await broker.call(root, name, b"[]"))
    await broker.lost
    assert isinstance(caught.value, ConnectionProblem)  # the second call found the connection gone
    (line,) = log.refusals()  # once, for the handshake and the calls together
    assert (line["event"], line["method"], line["addr_remote"]) == ("auth.api", "", "127.0.0.1")
    assert reason in line["error"]


@test
async def test_chain_of_a_member(world: World) -> None:
    """A leaf signed by a host's key gains nothing by showing that host's certificate with it."""
    between = world.tls_credentials("host", UUID, ("node",))
    leaf = world.tls_credentials("host", str(uuid.uuid4()), ("admin",), ca=nested(world))
    chain = evolve(leaf, certificate=leaf.certificate + between.certificate)
    with pytest.raises(TrustError, match="not signed by an authority"):
        await called(world, world.trusting(chain), "status", b"[]")


@test
async def test_user_presented_as_host(world: World) -> None:
    """A user whose name is a host's UUID and whose roles are a host's is still a user."""
    tls = world.trusting(world.tls_credentials("user", UUID, ("admin", "node", "proxy")))
    with pytest.raises(AccessDenied, match=f"user {UUID}"):
        await called(world, tls, "create_user", b"[]")
    with pytest.raises(AccessDenied, match=f"user {UUID}"):
        await called(world, tls, "heartbeat", b"[]")
    status = await world.client(tls).status()
    assert status.cluster == CLUSTER


@test
async def test_certificate_without_its_key(world: World) -> None:
    """A member's certificate, which is public, is worth nothing with another key; a mix-up of files is told so."""
    mine, theirs = (world.tls_credentials("host", UUID, ("admin",)) for _ in range(2))
    with pytest.raises(TrustError, match="do not belong together"):
        await world.raw(world.trusting(evolve(theirs, private_key=mine.private_key)))


@test
async def test_expiry_during_a_connection(world: World, log: Log) -> None:
    """A connection that outlives its certificate may do nothing more, and its watch ends."""
    client = world.member("host", UUID, ("node",), end=60)
    ears = Ears()
    await client.watch(NODES, ears)
    assert (await client.status()).cluster == CLUSTER
    world.clock.advance(61)
    with pytest.raises(TrustError, match="expired at"):
        await client.status()
    await until(lambda: ears.ended == 1)
    assert log.refusals()


@test
async def test_dropped_authority(world: World) -> None:
    """A member of an authority that the cluster no longer trusts is refused on its running connection."""
    client = world.member("host", UUID, ("node",))
    await client.status()
    world.trusted = tuple(each for each in world.trusted if each.type == "user")
    with pytest.raises(TrustError, match="not signed by an authority"):
        await client.status()


@test
async def test_old_tls_is_refused(world: World) -> None:
    """TLS 1.2 is not spoken."""
    host, port = world.address.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def attempt() -> None:
        with socket.create_connection((host, int(port)), 5) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw)

    await deferToThread(attempt)


class Bytes(Protocol):
    """Sends what it likes inside TLS."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


async def sent(world: World, tls: ClientTLS, data: bytes) -> None:
    from twisted.internet.endpoints import wrapClientTLS

    host, port = world.address.split(":")
    protocol = Bytes(data)
    endpoint = wrapClientTLS(tls, HostnameEndpoint(reactor, host, int(port)))
    await endpoint.connect(Factory.forProtocol(lambda: protocol))
    await protocol.gone


PB = b"\x02\x82pb"  # the dialect's name, as a client chooses it


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        b"\xff" * 100,
        PB + b"\x05\x81",
        PB + b"\x01\x80\x82",
        PB + b"\x00\x80",
        PB + b"\x01\x80\x05\x82login",
        PB + b"\x01\x80\x04\x82quit",
        PB + b"\x02\x80\x13\x87\x63\x81",
        PB + b"\x7f\x87",
        PB + b"\x02\x80\x1e\x87\x04\x82root" + b"\x02\x80\x1e\x87\x04\x82root",
        PB + b"\x03\x80\x1b\x87\x01\x81\x04\x82none",
        PB + b"\x07\x80\x1a\x87\x01\x81\x04\x82root\x04\x82join\x01\x81\x01\x82x\x01\x82y",
        PB + b"\x01\x80" * 40_000,
        PB + b"\x7f\x7f\x7f\x80" + b"\x81" * 200_000,
        PB + b"\x00\x00\x28\x82" + b"a" * 100_000,
        b"\x01" * 70 + b"\x82",
    ],
)
@test
async def test_garbage(world: World, log: Log, data: bytes) -> None:
    """Bytes that are no call end the connection with one line in the log, and never with a traceback."""
    await sent(world, world.anonymous_tls(), data)
    assert all("log_failure" not in each for each in log.events)
    (line,) = [each for each in log.events if "error" in each and each["log_level"] is LogLevel.warn]
    assert line["addr_remote"].startswith("127.0.0.1:")
    assert (await world.member("host", UUID, ("node",)).status()).cluster == CLUSTER


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((), BadParameter),
        ((b"[]", b"[]"), BadParameter),
        ((b"[{}]",), BadParameter),
        ((b"a" * (REQUEST_MAX + 1),), BadParameter),
        ((b"a" * (REQUEST_MAX * 2),), ConnectionProblem),
        (((b"[]",),), BadParameter),
        ((Exposed(),), BadParameter),
    ],
    ids=["none", "two", "fields", "large", "larger", "nested", "reference"],
)
@test
async def test_wrong_arguments(
    world: World, log: Log, arguments: tuple[Any, ...], kind: type[BadParameter] | type[ConnectionProblem]
) -> None:
    """Wrong, too many or too large arguments are refused by a code; the server lives."""
    with pytest.raises(kind):
        await called(world, world.anonymous_tls(), "join", *arguments)
    assert len([each for each in log.events if "addr_remote" in each and "error" in each]) == 1
    assert all("log_failure" not in each for each in log.events)


@test
async def test_unknown_method(world: World, log: Log) -> None:
    """A member that asks for what does not exist is told so; names of Python's own reach nothing."""
    tls = world.trusting(world.tls_credentials("host", UUID, ("admin",)))
    for name in ("fly", "authorize", "__class__", "_server", "x" * 1000, "a\nb"):
        with pytest.raises(BadParameter, match="has no"):
            await called(world, tls, name, b"[]")
    assert all(len(each["method"]) <= 80 for each in log.refusals())


@test
async def test_faults_stay_inside(world: World, log: Log) -> None:
    """An error that nobody expected tells the peer neither its class nor its text; the log has all of it."""

    class Broken:
        async def status(self) -> None:
            raise RuntimeError("password=correct horse")

    world.factory.authorize = lambda identity: Broken()
    with pytest.raises(TeleconchError) as caught:
        await world.member("host", UUID, ("node",)).status()
    assert type(caught.value) is TeleconchError
    assert "Runtime" not in str(caught.value)
    assert "horse" not in str(caught.value)
    assert any("log_failure" in each for each in log.events)


@test
async def test_no_class_crosses(world: World, log: Log) -> None:
    """No class of Python is made from what a peer sends, though Perspective Broker would make a failure."""
    broker, _ = await world.raw(world.anonymous_tls())
    broker.sendCall(
        b"message", 1, b"root", b"join", 1,
        [b"tuple", [b"twisted.spread.pb.CopyableFailure", [b"dictionary"]]], [b"dictionary"],
    )  # fmt: skip
    await broker.lost
    (line,) = [each for each in log.events if "error" in each]
    assert "InsecureJelly" in line["error"]


@test
async def test_many_calls_at_once(world: World) -> None:
    """A peer without a certificate that floods calls gets a few served and the others refused."""
    waiting: list[Any] = []

    class Slow:
        async def join(self, request: JoinRequest) -> None:
            waiting.append(Deferred())
            await waiting[-1]
            raise AccessDenied("no")

    world.factory.authorize = lambda identity: Slow()
    broker, root = await world.raw(world.anonymous_tls())
    data = encode_arguments(METHODS["join"], (world.join_request(),))
    answers = [broker.call(root, "join", data) for _ in range(20)]
    for answer in answers[2:]:
        with pytest.raises(LimitExceeded):
            read_answer(await answer)
    for each in waiting:
        each.callback(None)
    for answer in answers[:2]:
        with pytest.raises(AccessDenied):
            read_answer(await answer)
    broker.close()
    await broker.lost


@pytest.mark.parametrize("limits", [{"anonymous_calls_in_total": 3}, {"anonymous_calls_of_one_source": 3}])
@test
async def test_joins_in_total(limits: dict[str, int]) -> None:
    """Many peers that join at once from many connections are bounded, in total and for one source."""
    world = World(limits=APILimits(**limits))
    await world.start()
    waiting: Deferred[None] = Deferred()
    running: list[Any] = []

    class Slow:
        async def join(self, request: JoinRequest) -> None:
            running.append(request)
            gate: Deferred[None] = Deferred()
            waiting.addCallback(gate.callback)
            await gate
            raise AccessDenied("no")

    world.factory.authorize = lambda identity: Slow()
    joins = [spawn(world.newcomer(world.pin).join(world.join_request())) for _ in range(4)]
    await until(lambda: len(running) == 3)
    await until(lambda: any(each.called for each in joins))
    (refused,) = [each for each in joins if each.called]
    with pytest.raises(LimitExceeded):
        await refused
    waiting.callback(None)
    for each in joins:
        if each is not refused:
            with pytest.raises(AccessDenied):
                await each
    await world.stop()


class Silent(Protocol):
    """Connects and says nothing."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


def _factory_of(protocol: Protocol) -> Factory[Any]:
    return Factory.forProtocol(lambda: protocol)


async def silent(world: World, count: int) -> list[Silent]:
    host, port = world.address.split(":")
    made = []
    for _ in range(count):
        protocol = Silent()
        await HostnameEndpoint(reactor, host, int(port)).connect(_factory_of(protocol))
        made.append(protocol)
    return made


@test
async def test_half_open_crowd() -> None:
    """Hundreds of half-open connections from one address do not keep a member out."""
    world = World(limits=APILimits(visitors_per_address=64))
    await world.start()
    crowd = await silent(world, 300)
    client = world.member("host", UUID, ("node",))
    assert (await client.status()).cluster == CLUSTER
    assert sum("dataReceived" in vars(each) for each in world.factory.protocols) == 1, "no turns after the handshake"
    await until(lambda: sum(each.gone.called for each in crowd) >= 300 - world.limits.visitors_per_address)
    assert world.factory.admission.waiting() <= world.limits.visitors_per_address
    assert (await client.status()).cluster == CLUSTER
    world.clock.advance(world.limits.handshake)
    await gatherResults([each.gone for each in crowd])
    assert world.factory.admission.waiting() == 0
    await world.stop()


@test
async def test_deadlines(world: World) -> None:
    """Neither a stalled handshake nor an idle peer without a certificate stays for long."""
    (stalled,) = await silent(world, 1)
    idle, _ = await world.raw(world.anonymous_tls())
    member, root = await world.raw(world.trusting(world.tls_credentials("host", UUID, ("node",), end=1e6)))
    world.clock.advance(world.limits.handshake)
    await stalled.gone
    assert not idle.disconnected
    world.clock.advance(world.limits.anonymous)
    await idle.lost
    for _ in range(3):
        world.clock.advance(world.limits.idle - 1)
        assert read_answer(await member.call(root, "status", b"[]"))
    world.clock.advance(world.limits.idle)
    await member.lost


@test
async def test_connections_in_total() -> None:
    """Where members have too many in all, whoever has most loses the oldest unused one; the others stay."""
    world = World(limits=APILimits(connections=8))
    await world.start()
    friend, _ = await world.raw(world.trusting(world.tls_credentials("host", UUID, ("node",))))
    crowd = world.trusting(world.tls_credentials("user", "alice", ("user",)))
    held = [(await world.raw(crowd))[0] for _ in range(30)]
    await until(lambda: sum(not each.disconnected for each in held) <= 3)
    assert not friend.disconnected
    assert not held[-1].disconnected
    await world.stop()


@test
async def test_calls_wait_for_a_peer_that_takes_its_answers(world: World) -> None:
    """Small calls with big answers, from one who does not read them: few are served until the peer reads on."""
    served = []

    class Big:
        async def status(self) -> ClusterStatus:
            served.append(1)
            return ClusterStatus("main", "0", "off", (), ("x" * 1000,) * 250, 0.0)

    world.factory.authorize = lambda identity: Big()
    broker, root = await world.raw(world.trusting(world.tls_credentials("host", UUID, ("node",))))
    broker.transport.pauseProducing()
    answers = [broker.call(root, "status", b"[]") for _ in range(250)]
    count = -1
    while count != len(served):
        count = len(served)
        await deferLater(reactor, 0.3)
    assert 0 < count < 120, "what the kernel's buffers take, and a few"
    broker.transport.resumeProducing()
    for each in answers:
        assert read_answer(await each)
    assert len(served) == 250


@test
async def test_connections_of_one_member() -> None:
    """One member's connections are bounded; the next is served, and the one that was used longest ago goes."""
    world = World(limits=APILimits(per_member=3))
    await world.start()
    tls = world.trusting(world.tls_credentials("user", "alice", ("user",)))
    held = [await world.raw(tls) for _ in range(3)]
    assert read_answer(await held[0][0].call(held[0][1], "status", b"[]"))
    other, _ = await world.raw(world.trusting(world.tls_credentials("user", "bob", ("user",))))
    newest, root = await world.raw(tls)
    assert read_answer(await newest.call(root, "status", b"[]"))
    await until(lambda: held[1][0].disconnected)
    assert not any(each.disconnected for each in (held[0][0], held[2][0], other, newest))
    await world.stop()


class Told:
    """An API whose watch tells what the test wants."""

    def __init__(self) -> None:
        self.receiver: Any = None
        self.stopped = 0

    async def watch(self, kind: Kind[Any], receiver: PushedWatch) -> Told:
        assert kind is NODES
        self.receiver = receiver
        return self

    def stop(self) -> None:
        self.stopped += 1


class Deaf(Exposed):
    """A receiver that acknowledges only when the test lets it."""

    def __init__(self) -> None:
        self.pending: list[Any] = []
        self.names: list[Any] = []

    async def answer(self, name: str, arguments: tuple[bytes]) -> tuple[bytes]:
        self.names.append(name)
        gate: Deferred[None] = Deferred()
        self.pending.append(gate)
        await gate
        return (b"ok",)


def events(count: int) -> tuple[Change[Any], ...]:
    return tuple(Change(str(number), None) for number in range(count))


@test
async def test_watch_waits_for_its_peer(world: World) -> None:
    """A slow watcher gets one call at a time, in order, and costs a bounded queue; past it the watch ends."""
    told, deaf = Told(), Deaf()
    world.factory.authorize = lambda identity: told
    broker, root = await world.raw(world.trusting(world.tls_credentials("host", UUID, ("node",))))
    read_answer(await broker.call(root, "watch", b'["nodes"]', deaf))
    for _ in range(10):
        told.receiver.changes(events(1000))
    await until(lambda: deaf.names)
    await deferLater(reactor, 0.05)
    assert deaf.names == ["changes"]
    deaf.pending[0].callback(None)
    await until(lambda: len(deaf.names) == 2)
    for _ in range(watching.QUEUE_MAX // 1000):
        told.receiver.changes(events(1000))
    assert told.stopped == 1
    await until(lambda: deaf.names[-1] == "watch_ended")
    told.receiver.changes(events(1000))
    broker.close()
    await broker.lost
    assert deaf.names == ["changes", "changes", "watch_ended"]


@test
async def test_watch_of_an_expired_certificate(world: World) -> None:
    """A watcher whose certificate has expired is told nothing more, though it calls nothing itself."""
    told, ears = Told(), Ears()
    world.factory.authorize = lambda identity: told
    await world.member("host", UUID, ("node",), end=60).watch(NODES, ears)
    told.receiver.changes(events(1))
    await until(lambda: ears.events)
    world.clock.advance(61)
    told.receiver.changes(events(5))
    await until(lambda: ears.ended)
    assert (len(ears.events), told.stopped) == (1, 1)


@test
async def test_watches_end_with_their_connection(world: World) -> None:
    """A watcher that is gone costs nothing: its watch is stopped; a fifth watch on a connection is refused."""
    told = Told()
    world.factory.authorize = lambda identity: told
    broker, root = await world.raw(world.trusting(world.tls_credentials("host", UUID, ("node",))))
    handles = [read_answer(await broker.call(root, "watch", b'["nodes"]', Deaf())) for _ in range(4)]
    with pytest.raises(LimitExceeded):
        read_answer(await broker.call(root, "watch", b'["nodes"]', Deaf()))
    (handle,) = handles[0]
    with pytest.raises(BadParameter):
        read_answer(await broker.call(handle, "changes", b"[]"))
    read_answer(await broker.call(handle, "stop"))
    assert told.stopped == 1
    read_answer(await broker.call(root, "watch", b'["nodes"]', Deaf()))
    for wrong in ((), (b'["nodes"]',), (Deaf(), Deaf()), (b'["locks"]', Deaf()), (b"[]", Deaf())):
        with pytest.raises((BadParameter, LimitExceeded)):
            read_answer(await broker.call(root, "watch", *wrong))
    broker.abort()
    await until(lambda: told.stopped == 5)


@test
async def test_slow_reader(world: World) -> None:
    """A member that calls and does not read its answers is not served without end."""
    served = []

    class Wide:
        async def list_users(self) -> tuple[User, ...]:
            served.append(1)
            return tuple(world_user(number) for number in range(1000))

    world.factory.authorize = lambda identity: Wide()
    tls = world.trusting(world.tls_credentials("host", UUID, ("admin",), end=1e6))
    broker, root = await world.raw(tls)
    broker.transport.pauseProducing()
    answers = [broker.call(root, "list_users", b"[]") for _ in range(60)]
    await until(lambda: len(served) > 5)
    quiet = 0
    while quiet < 5:
        before = len(served)
        await deferLater(reactor, 0.05)
        quiet = quiet + 1 if len(served) == before else 0
    more = [broker.call(root, "list_users", b"[]") for _ in range(300)]
    await deferLater(reactor, 0.3)
    assert len(served) < 250
    broker.transport.resumeProducing()
    for answer in answers + more:
        answer.addErrback(lambda _: None)
    broker.abort()
    await broker.lost


def world_user(number: int) -> User:
    from teleconch.resources.user import User

    return User(f"user{number}", traits={"logins": ("root",) * 10})


@test
async def test_secrets_stay_out_of_logs(world: World) -> None:
    """Neither a token nor a password shows in what the API logs, whatever goes wrong."""
    with Log() as log:
        with pytest.raises(AccessDenied):
            await world.newcomer(world.pin).join(world.join_request(token=Secret("hunter2-token")))
        data = encode_arguments(METHODS["join"], (world.join_request(token=Secret("hunter2-token")),))
        with pytest.raises(BadParameter):
            await called(world, world.anonymous_tls(), "join", data.replace(b'"role"', b'"roll"'))
    assert log.events
    assert "hunter2" not in repr(log.events)


def test_trusted_form_is_public() -> None:
    """What is told of an authority holds no private key."""
    authority, public = other_world()
    assert authority.tls_private_key.reveal() not in repr(public)
    assert trusted(authority) == public
