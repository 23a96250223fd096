"""What a proxy does not dial, whatever a node has registered, and what is told of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast
from unittest import mock

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from teleconch.access.permit import permit_api, permit_dial
from teleconch.errors import BadParameter, ConnectionProblem, NotFound
from teleconch.proxy.dial import RELAY_SOURCE, Dialler, _relay_source
from teleconch.proxy.roads import Roads
from teleconch.proxy.target import Target
from teleconch.resources.addresses import no_other_machine, oddly_spelled, plain_ip, stem
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node
from tests.worlds.proxy import CLUSTER, new_uuid, node, router
from tests.worlds.reactor import port_of, reactor
from tests.worlds.waiting import reply

JOE = SSHIdentity("joe", ("root",), (), {}, CLUSTER, frozenset(), 9e9, 1, b"")


@implementer(IHostnameResolver)
class Rebound:
    """Every name leads to ``literals`` by now."""

    def __init__(self, *literals: str) -> None:
        self.literals = literals

    def resolveHostName(
        self,
        receiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver.resolutionBegan(cast("IHostResolution", self))
        for literal in self.literals:
            kind = IPv6Address if ":" in literal else IPv4Address
            receiver.addressResolved(kind("TCP", literal, portNumber))
        receiver.resolutionComplete()
        return cast("IHostResolution", receiver)


class SSH(Protocol):
    peers: list[Any]

    def connectionMade(self) -> None:
        self.peers.append(self.transport.getPeer())
        self.transport.write(b"SSH-2.0-x\r\n")


class Listener:
    """An SSH server, as far as a proxy looks."""

    def __init__(self) -> None:
        self.peers: list[Any] = []

    async def listen(self) -> int:
        peers = self.peers
        factory = Factory.forProtocol(type("Known", (SSH,), {"peers": peers}))
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        return port_of(self.port)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    pytest_twisted.blockon(made.port.stopListening())


async def dialled(dialler: Dialler, addr: str) -> str:
    """Why it was not, or ``connected``."""
    try:
        end = await Roads(reactor, [dialler]).open(permit_dial(JOE, Node(new_uuid(1), "web", CLUSTER, addr), 0))
    except ConnectionProblem as error:
        return str(error)
    gone: Deferred[None] = Deferred()
    end.when_gone = lambda: gone.callback(None)
    end.abort()
    await gone
    return "connected"


@pytest.mark.parametrize(
    "literal",
    ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"],
)
@pytest_twisted.ensureDeferred
async def test_names_that_lead_here_today(listener: Listener, literal: str) -> None:
    """A name with which a node joined, and which now leads to loopback or to a cloud's metadata, is not dialled."""
    port = await listener.listen()
    before = reactor.installNameResolver(Rebound(literal))
    try:
        why = await dialled(Dialler(reactor, ()), f"web.example.org:{port}")
    finally:
        reactor.installNameResolver(before)
    assert why.startswith(f"it leads to the {no_other_machine(literal)} address")
    assert not listener.peers


@pytest.mark.parametrize("spelled", ["2130706433", "127.1", "0x7f.1", "0177.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_spellings_of_loopback(listener: Listener, spelled: str) -> None:
    """Loopback spelled otherwise is loopback: dialled where the proxy shares the auth server's machine, else not."""
    port = await listener.listen()
    assert "loopback" in await dialled(Dialler(reactor, ("192.0.2.1:3025",)), f"{spelled}:{port}")
    assert not listener.peers


@pytest_twisted.ensureDeferred
async def test_loopback_is_a_node_beside_the_auth_server_only(listener: Listener) -> None:
    """One machine with all roles works; a proxy elsewhere does not take its own loopback for the auth server's."""
    port = await listener.listen()
    for auth in ("127.0.0.1:3025", "localhost:3025", "[::1]:3025"):
        assert await dialled(Dialler(reactor, (auth,)), f"127.0.0.1:{port}") == "connected"
    for auth in ("192.0.2.1:3025", "auth.invalid:3025"):
        for addr in (f"127.0.0.1:{port}", f"localhost:{port}"):
            assert "loopback" in await dialled(Dialler(reactor, ("127.0.0.1:3025", auth)), addr)


@pytest_twisted.ensureDeferred
async def test_addresses_are_not_looked_up(listener: Listener) -> None:
    """Most nodes register an address: a dial asks no resolver, and so no thread, for it."""
    port = await listener.listen()
    before = reactor.installNameResolver(Rebound())  # which knows nobody
    try:
        assert await dialled(Dialler(reactor, ("127.0.0.1:3025",)), f"127.0.0.1:{port}") == "connected"
        assert "not known" in await dialled(Dialler(reactor, ("127.0.0.1:3025",)), f"web.example.org:{port}")
    finally:
        reactor.installNameResolver(before)


@pytest_twisted.ensureDeferred
async def test_the_clusters_own_listeners(listener: Listener) -> None:
    """No node is the proxy's own SSH or web port, or the auth server, in whatever spelling."""
    port = await listener.listen()
    for host in ("127.0.0.1", "127.0.0.2", "localhost"):
        assert "own services" in await dialled(Dialler(reactor, (), own_ports=(port,)), f"{host}:{port}")
        assert await dialled(Dialler(reactor, (f"127.0.0.1:{port}",)), f"{host}:{port}") != "connected"
    for host in ("192.0.2.1", "[::ffff:192.0.2.1]", "[64:ff9b::192.0.2.1]"):
        assert await dialled(Dialler(reactor, (f"192.0.2.1:{port}",)), f"{host}:{port}") == "that is the auth server"
    assert not listener.peers


@pytest_twisted.ensureDeferred
async def test_relays_come_from_an_address_of_their_own(listener: Listener) -> None:
    """On the auth server's machine, a user's connection through the proxy is not taken for the machine's own."""
    port = await listener.listen()
    gone: Deferred[None] = Deferred()
    end = await Dialler(reactor, (f"localhost:{port}",)).auth(permit_api(JOE, 0), lambda: gone.callback(None))
    while not listener.peers:
        waited: Deferred[None] = Deferred()
        reactor.callLater(0, waited.callback, None)
        await waited
    assert [peer.host for peer in listener.peers] == [RELAY_SOURCE]
    end.abort()
    await gone


@pytest_twisted.ensureDeferred
async def test_relays_by_ipv6_come_from_another_address_too() -> None:
    """By IPv6 as well, no user's connection has one address at both ends: that would be a host of that machine."""
    factory = Listening()
    port = reactor.listenTCP(0, factory, interface="::")
    number = port_of(port)
    for host in ("[::1]", "127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        factory.accepted = Deferred()
        gone: Deferred[None] = Deferred()
        end = await Dialler(reactor, (f"{host}:{number}",)).auth(permit_api(JOE, 0), partial(gone.callback, None))
        own, peer = await factory.accepted
        assert plain_ip(peer) != plain_ip(own)
        assert str(plain_ip(peer)) == RELAY_SOURCE
        end.abort()
        await gone
    await reply(port.stopListening())
    with mock.patch("teleconch.proxy.dial.is_own", return_value=True):
        assert _relay_source("2001:db8::7", 3025) == ("::1", 0)
        with pytest.raises(ConnectError):
            _relay_source("::1", 3025)
    assert _relay_source("192.0.2.77", 3025) is None


SECOND_ADDRESS = """
import fcntl, socket, struct
from teleconch.proxy.dial import is_own
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for label, address in (b"lo:1", "192.0.2.1"), (b"lo:2", "192.0.2.2"):
    for what, value in (0x8916, address), (0x891C, "255.255.255.252"):  # SIOCSIFADDR, SIOCSIFNETMASK
        fcntl.ioctl(asking, what, struct.pack("16sHH4s8x", label, socket.AF_INET, 0, socket.inet_aton(value)))
    fcntl.ioctl(asking, 0x8914, struct.pack("16sH14x", label, 0x41))  # SIOCSIFFLAGS: UP, RUNNING
asking.connect(("192.0.2.2", 9))
assert asking.getsockname()[0] == "192.0.2.1", "the second one has the first one for its source"
own = [is_own(each) for each in ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.2", "127.0.0.1", "::1")]
assert own == [True] * 5, own
other = [is_own(each) for each in ("192.0.2.5", "2001:db8::1", "node.example.org")]
assert other == [False] * 3, other
"""


@pytest.mark.program("unshare")
@pytest.mark.root
def test_second_address_of_a_network_is_own() -> None:
    """Every address of the proxy's machine is known as its own, so that no node registers the cluster's own services
    at one of them. The kernel gives a connection to the second one in a network the first one for its source."""
    subprocess.run(["unshare", "--net", sys.executable, "-c", SECOND_ADDRESS], check=True)


class Listening(Factory):
    """Tells of each connection its own address and the peer's."""

    accepted: Deferred[Any]

    def buildProtocol(self, addr: object) -> Protocol:
        protocol = Protocol()
        protocol.connectionMade = lambda: self.accepted.callback(
            (protocol.transport.getHost().host, protocol.transport.getPeer().host)
        )
        return protocol


# The router, with what the auth server tells of owners

ONE = node(1, "one", "10.0.0.1:3022", names=("one", "10.0.0.1"))
TWIN = node(2, "one", "10.0.0.1:3022", names=())
THIEF = node(3, f"one.{CLUSTER}", "10.0.0.3:3022", public_addrs=("one:22", "10.0.0.1:3022"), names=("10.0.0.3",))


@pytest.mark.parametrize("typed", ["one", "ONE", f"one.{CLUSTER}", f"One.{CLUSTER.upper()}.", "one.", new_uuid(1)])
@pytest.mark.parametrize("port", [0, 22, 3022])
def test_a_name_leads_to_its_owner(typed: str, port: int) -> None:
    """However a user types a name, and whatever others call themselves, the owner is reached."""
    for order in ((ONE, TWIN, THIEF), (THIEF, TWIN, ONE)):
        assert router(*order).resolve(Target(typed, port)).node.uuid == new_uuid(1)


def test_addresses_lead_to_their_owner() -> None:
    """An address is its owner's as well; a node that listens there without owning it is not reached by it."""
    for typed in ("10.0.0.1", "::ffff:10.0.0.1"):
        assert router(TWIN, THIEF, ONE).resolve(Target(typed, 3022)).node.uuid == new_uuid(1)
        assert router(TWIN, THIEF, ONE).resolve(Target(typed)).node.uuid == new_uuid(1)
        for port in (0, 22, 3022):
            with pytest.raises(NotFound):
                router(TWIN, THIEF).resolve(Target(typed, port))


def test_namesakes_of_a_host_that_is_away() -> None:
    """While the owner is away nobody takes its place; who is called so as well is told with the UUID."""
    for typed in ("one", f"one.{CLUSTER}"):
        with pytest.raises(BadParameter) as refused:
            router(TWIN, THIEF).resolve(Target(typed))
        assert new_uuid(2) in str(refused.value)
        assert "by their UUID" in str(refused.value)
    assert router(TWIN).resolve(Target(new_uuid(2))).node.uuid == new_uuid(2)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.1", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("1.2.3", "1.2.0.3"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("64:ff9b::a00:1", "10.0.0.1"),
        ("2002:a00:1::", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("08.1", None),
        ("1.2.3.4.5", None),
        ("256.1.1.1", None),
        ("1.2.3.256", None),
        ("web", None),
        ("a.b", None),
        ("", None),
    ],
)
def test_spellings_of_addresses(host: str, address: str | None) -> None:
    """What getaddrinfo takes for an address is one, and one address however it is spelled."""
    found = plain_ip(host)
    assert (found and str(found)) == address
    assert oddly_spelled(host) == (address is not None and ":" not in host)


def test_stems() -> None:
    """NAME and NAME.CLUSTER, dots and letters, are one name; a number is no address."""
    for name in ("one", "One", "one.", "one.Main", "one.main.", "one.main.main", "ONE.MAIN.main.."):
        assert stem(name, "main") == "one"
    for name, found in (("main", "main"), ("main.main", "main"), ("2019", "2019"), ("127.1", "127.0.0.1")):
        assert stem(name, "main") == found
    assert stem("::FFFF:10.0.0.1", "main") == "10.0.0.1"
