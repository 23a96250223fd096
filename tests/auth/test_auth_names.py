"""Names are owned: whatever a member of the cluster says, it is not reached, and not believed, under another's name."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Coroutine
from typing import Any
from unittest import mock

import pytest
import pytest_twisted
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from teleconch import defaults
from teleconch.auth.records import HostRecord, Presence, encode, presence_key
from teleconch.backend.memory import MemoryBackend
from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
from teleconch.ca.ssh import certificate_summary
from teleconch.errors import AccessDenied, AlreadyJoined, BadParameter, LimitExceeded, TeleconchError
from teleconch.proxy.directory import Directory
from teleconch.proxy.router import Router
from teleconch.proxy.target import Target
from teleconch.resources.host import HostCertificates, JoinRequest, RenewRequest
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.kind import Change
from teleconch.resources.secret import Secret
from tests.worlds.auth import CLUSTER, STATIC, Cluster, new_uuid
from tests.worlds.waiting import spawn

HERE = evolve(ANONYMOUS, address="127.0.0.1", here=True)
KEYS = new_ssh_key()[1], new_tls_key()[1]


def principals(certificates: HostCertificates) -> set[str]:
    return set(certificate_summary(public_blob(certificates.ssh_cert)).principals)


def own(uuid: str) -> set[str]:
    return {uuid, f"{uuid}.{CLUSTER}"}


async def refused(awaitable: Awaitable[object], kind: Any = AccessDenied) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return str(caught.value)


async def proxy(
    cluster: Cluster,
    *addresses: str,
    uuid: str | None = None,
    nodename: str = "proxy1",
    caller: ApiIdentity = ANONYMOUS,
) -> tuple[str, HostCertificates]:
    token = await cluster.server.create_token(("proxy",), 60, None)
    request = cluster.request(
        uuid=uuid or new_uuid(), role="proxy", nodename=nodename, addresses=addresses, token=token.value
    )
    return request.uuid, await cluster.server.join(request, caller)


async def routed(cluster: Cluster) -> Router:
    """A proxy's router with what the auth server tells now."""
    directory = Directory(cluster.clock.seconds)
    page = await cluster.server.list_nodes("", 500)
    directory.apply([Change(status.node.uuid, status) for status in page.nodes])
    directory.whole()
    return Router(directory, CLUSTER)


def target_of(router: Router, name: str, port: int = 0) -> str | None:
    try:
        return router.resolve(Target(name, port)).node.uuid
    except TeleconchError:
        return None


# Joining


@pytest.mark.parametrize(
    "changes",
    [
        {"nodename": f"one.{CLUSTER}"},
        {"nodename": f"ONE.{CLUSTER.upper()}"},
        {"nodename": f"one.{CLUSTER}."},
        {"nodename": f"one.{CLUSTER}.{CLUSTER}"},
        {"nodename": "one."},
        {"nodename": "db.example.org"},
        {"nodename": "proxy.example.com"},
        {"nodename": "proxy"},
        {"nodename": "auth.example.com"},
        {"addresses": ("one",)},
        {"addresses": ("One",)},
        {"addresses": (f"one.{CLUSTER}",)},
        {"addresses": ("DB.example.org.",)},
        {"addresses": ("proxy.example.com",)},
        {"addresses": ("proxy1",)},
        {"addresses": ("auth.example.com",)},
        {"addresses": ("localhost",)},
        {"addresses": ("127.0.0.1",)},
        {"addresses": ("127.1.2.3",)},
        {"addresses": ("::1",)},
        {"addresses": ("::ffff:127.0.0.1",)},
        {"addresses": ("a.localhost.",)},
    ],
)
@pytest_twisted.ensureDeferred
async def test_names_of_others_are_refused(cluster: Cluster, changes: dict[str, Any]) -> None:
    """A host with a join token does not become another member, the proxy, the auth server or this machine."""
    cluster.server.own_identity(new_uuid(), ("auth.example.com", "192.0.2.1"))
    one = await cluster.joined("one", addresses=("db.example.org", "192.0.2.7"))
    await proxy(cluster, "proxy.example.com")
    before = await cluster.stored()
    request = cluster.request(**{"nodename": "two", "addresses": (), **changes})
    told = await refused(cluster.server.join(request))
    assert await cluster.stored() == before, "a refusal has written nothing"
    if "one" in str(changes) or "db." in str(changes).lower():
        assert f"`tctl rm node/{one}`" in told


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_addresses_of_nobody_are_refused(cluster: Cluster, address: str) -> None:
    """What leads to no machine of the cluster, in whatever spelling, is in no certificate; not even from here."""
    for caller in (ANONYMOUS, HERE):
        await refused(cluster.server.join(cluster.request(addresses=(address,)), caller), BadParameter)


@pytest_twisted.ensureDeferred
async def test_a_machine_of_a_name_that_is_taken_still_joins(cluster: Cluster) -> None:
    """Fleets reuse host names and addresses: the second is reached by its UUID, and is nobody else."""
    for nodename in ("one", "localhost", "ip-10-0-0-1"):
        first = await cluster.server.join(cluster.request(nodename=nodename, addresses=()))
        request = cluster.request(nodename=nodename.upper(), addresses=("192.0.2.7",))
        second = await cluster.server.join(request)
        names = set() if nodename == "localhost" else {nodename, f"{nodename}.{CLUSTER}"}
        assert names <= principals(first)
        assert not {nodename, f"{nodename}.{CLUSTER}"} & principals(second)
        assert own(request.uuid) <= principals(second)
        await cluster.ping(request.uuid, nodename=nodename.upper())
    request = cluster.request(nodename="three", addresses=("192.0.2.7",))
    assert principals(await cluster.server.join(request)) == own(request.uuid) | {"three", f"three.{CLUSTER}"}


@pytest_twisted.ensureDeferred
async def test_a_name_is_free_again(cluster: Cluster) -> None:
    """After `tctl rm node/UUID` the name goes to who joins next; a host that joins again has its own all the time."""
    request = cluster.request(nodename="one")
    await cluster.server.join(request)
    await cluster.server.join(request)
    await cluster.server.delete_node(request.uuid)
    assert not [key for key in await cluster.stored() if key.startswith(("/names/", "/hosts/", "/presence/"))]
    other = cluster.request(nodename="one")
    assert "one" in principals(await cluster.server.join(other))
    assert "one" not in principals(await cluster.server.join(cluster.request(uuid=request.uuid, nodename="one")))


@pytest_twisted.ensureDeferred
async def test_of_two_at_once_one_gets_the_name(cluster: Cluster) -> None:
    """Two hosts that join in the same moment do not both get the name."""
    first, second = cluster.request(nodename="one"), cluster.request(nodename="one")
    cluster.meanwhile(lambda: cluster.server.join(second))
    assert "one" not in principals(await cluster.server.join(first))
    assert "one" in principals(await cluster.server.join(second))


@pytest_twisted.ensureDeferred
async def test_proxies_share_the_address_before_them(cluster: Cluster) -> None:
    """Several proxies behind one balancer have its name; a node never does, even if it shares a machine with one."""
    first, given = await proxy(cluster, "proxy.example.com")
    second, also = await proxy(cluster, "proxy.example.com", nodename="proxy2")
    for each in (given, also):
        assert "proxy.example.com" in principals(each)
    node = cluster.request(uuid=first, addresses=("proxy.example.com",), nodename="proxy1")
    await refused(cluster.server.join(node, cluster.identity(first, "proxy")))
    await cluster.server.delete_node(first)
    await refused(cluster.server.join(cluster.request(addresses=("proxy.example.com",))))
    await cluster.server.delete_node(second)
    await cluster.server.join(cluster.request(addresses=("proxy.example.com",)))


@pytest_twisted.ensureDeferred
async def test_one_machine_has_one_name_in_both_roles(cluster: Cluster) -> None:
    """Node and proxy of one host are called alike, and the name stays the host's until neither is there."""
    uuid = await cluster.joined("main1")
    _, given = await proxy(cluster, uuid=uuid, nodename="main1", caller=cluster.identity(uuid))
    assert "main1" in principals(given)
    await cluster.server.forget_host(uuid, "node")
    other = cluster.request(nodename="main1")
    assert "main1" not in principals(await cluster.server.join(other))
    await cluster.server.forget_host(uuid, "proxy")
    await cluster.server.delete_node(other.uuid)
    assert "main1" in principals(await cluster.server.join(other))


@pytest_twisted.ensureDeferred
async def test_as_many_names_as_there_may_be(cluster: Cluster) -> None:
    """A node with 32 public addresses joins, is found at its own besides, and leaves nothing when it is removed."""
    public = tuple(f"a{number}.example.org" for number in range(32))
    before = await cluster.stored()
    uuid = await cluster.joined(addresses=(*public, "192.0.2.9"))
    await cluster.ping(uuid, addr="192.0.2.9:3022", public_addrs=public)
    assert {*public, "192.0.2.9"} <= set((await cluster.server.get_node(uuid)).node.names)
    await cluster.server.delete_node(uuid)
    assert await cluster.stored() == before


@pytest_twisted.ensureDeferred
async def test_a_second_role_is_the_same_host(cluster: Cluster) -> None:
    """Who has a token, and has read a UUID in `tsh ls` or a certificate, gets none of that host's names by it."""
    uuid, _ = await proxy(cluster, "proxy.example.com")
    one = await cluster.joined("one", addresses=("db.example.org",))
    cluster.server.own_identity(own_uuid := new_uuid())
    before = await cluster.stored()
    strangers = (
        ANONYMOUS,
        HERE,
        cluster.identity(one),
        cluster.identity(uuid, "node"),  # of a role in which it is no member
        evolve(cluster.identity(uuid, "proxy"), kind="user"),
    )
    for caller in strangers:
        for names in (("proxy.example.com",), ()):
            request = cluster.request(uuid=uuid, nodename="evil", addresses=names)
            assert "host_uuid" in await refused(cluster.server.join(request, caller), AlreadyJoined)
    for nodename in ("evil", "one"):
        token = await cluster.server.create_token(("node", "proxy"), 60, Secret("both"))
        request = cluster.request(uuid=one, role="proxy", nodename=nodename, token=token.value)
        await refused(cluster.server.join(request, cluster.identity(uuid, "proxy")), AlreadyJoined)
        await cluster.server.delete_token(token.value)
    assert await cluster.stored() == before
    request = cluster.request(uuid=uuid, nodename="proxy1", addresses=("proxy.example.com",))
    given = await cluster.server.join(request, cluster.identity(uuid, "proxy"))
    assert "proxy.example.com" in principals(given)
    await cluster.server.join(cluster.request(uuid=own_uuid, nodename="main"), HERE)
    await proxy(cluster, uuid=own_uuid, nodename="main", caller=HERE)


@pytest_twisted.ensureDeferred
async def test_localhost_is_a_name_on_the_auth_servers_machine_only(cluster: Cluster) -> None:
    """`make start` and several processes on one machine are reached as localhost; nobody else is, and none owns it."""
    for nodename in ("one", "two"):
        request = cluster.request(nodename=nodename, addresses=("localhost", "127.0.0.1", "::1"))
        assert {"localhost", "127.0.0.1", "::1"} <= principals(await cluster.server.join(request, HERE))
        keys = RenewRequest(*KEYS, cluster.clock.seconds(), "0.1.0")
        identity = cluster.identity(request.uuid)
        assert not {"localhost", "127.0.0.1"} & principals(await cluster.server.renew(keys, identity))
        assert "localhost" in principals(await cluster.server.renew(keys, evolve(identity, here=True)))
    assert not [key for key in await cluster.stored() if "127.0.0.1" in key or "localhost" in key]


@pytest_twisted.ensureDeferred
async def test_the_auth_servers_uuid_is_its_own(cluster: Cluster) -> None:
    """A host elsewhere does not join as the auth server's host; a second process on its machine does."""
    uuid = new_uuid()
    cluster.server.own_identity(uuid)
    assert "host_uuid" in await refused(cluster.server.join(cluster.request(uuid=uuid)))
    await cluster.server.join(cluster.request(uuid=uuid), HERE)


@pytest_twisted.ensureDeferred
async def test_a_removed_host_frees_however_many_names(cluster: Cluster) -> None:
    """A host with more names than one commit holds leaves nothing behind."""
    addresses = tuple(f"a{number}.example.org" for number in range(32))
    uuid = await cluster.joined("one", addresses=addresses)
    others = tuple(f"b{number}.example.org" for number in range(32))
    await proxy(cluster, *others, uuid=uuid, nodename="one", caller=cluster.identity(uuid))
    await cluster.server.delete_node(uuid)
    assert not [key for key in await cluster.stored() if key.startswith(("/names/", "/hosts/"))]


# Where a node is dialled


@pytest_twisted.ensureDeferred
async def test_addr_is_the_hosts_own(cluster: Cluster) -> None:
    """A node is dialled under a name with which it joined, or where its pings come from, and nowhere else."""
    await cluster.joined("two", addresses=("two.example.org", "192.0.2.8"))
    uuid = await cluster.joined("one", addresses=("one.example.org", "2001:db8::1"))

    def ping(addr: str, address: str = "198.51.100.5", here: bool = False) -> Coroutine[Any, Any, Any]:
        identity = evolve(cluster.identity(uuid), address=address, here=here)
        return cluster.server.heartbeat(cluster.node(uuid, nodename="one", addr=addr), "one", identity)

    for addr in ("one:22", f"One.{CLUSTER}:22", "one.example.org:3022", "[2001:db8::1]:22", "198.51.100.5:3022"):
        await ping(addr)
    await ping("198.51.100.5:22", "::ffff:198.51.100.5")
    await ping("[2001:db8:0::1]:22", "")
    for addr in (
        f"two:22 two.example.org:22 192.0.2.8:22 10.9.9.9:5432 two.{CLUSTER}:22 169.254.169.254:80 127.0.0.1:3025"
        " localhost:22 [::1]:22 [::ffff:127.0.0.1]:22 0.0.0.0:22 2130706433:22 127.1:22 [fe80::1]:22 224.0.0.1:22"
        " [::]:22 0x7f.1:22"
    ).split():
        told = await refused(ping(addr))
        assert "advertise_ip" in told
        assert f"`tctl rm node/{uuid}`" in told
        await refused(ping(addr, ""))
    await refused(ping("169.254.169.254:80", "169.254.169.254"))
    await refused(ping("127.0.0.2:22", "127.0.0.2"))  # through a proxy beside the auth server
    await ping("127.0.0.1:3022", "127.0.0.1", here=True)
    await refused(ping("169.254.169.254:80", "127.0.0.1", here=True))


# What ends


@pytest_twisted.ensureDeferred
async def test_memberships_end(cluster: Cluster) -> None:
    """A host that never came, and one whose certificates have ended, are forgotten with their names."""
    never, silent, alive = [await cluster.joined(name) for name in ("never", "silent", "alive")]
    given = await cluster.server.join(cluster.request(nodename="newcomer"))
    assert given.valid_before <= cluster.clock.seconds() + defaults.FIRST_PING_WITHIN, "it ends when its name is free"
    for uuid, nodename in ((silent, "silent"), (alive, "alive")):
        await cluster.ping(uuid, nodename=nodename)
    cluster.clock.advance(defaults.FIRST_PING_WITHIN)
    await cluster.backend.sweep()
    keys = set(await cluster.stored())
    assert {f"/hosts/{silent}/node", f"/hosts/{alive}/node", "/names/silent", "/names/alive"} <= keys
    assert not {f"/hosts/{never}/node", "/names/never"} & keys
    cluster.clock.advance(15 * defaults.DAY)
    await cluster.server.renew(RenewRequest(*KEYS, cluster.clock.seconds(), "0.1.0"), cluster.identity(alive))
    cluster.clock.advance(16 * defaults.DAY)
    await cluster.backend.sweep()
    keys = set(await cluster.stored())
    assert {f"/hosts/{alive}/node", "/names/alive"} <= keys
    assert not {f"/hosts/{silent}/node", "/names/silent"} & keys
    assert "alive" not in principals(await cluster.server.join(cluster.request(nodename="alive")))
    assert "silent" in principals(await cluster.server.join(cluster.request(nodename="silent")))


@pytest_twisted.ensureDeferred
async def test_a_token_lets_so_many_join_at_once(cluster: Cluster) -> None:
    """Who finds a token does not fill the cluster in seconds; a fleet that is many waits and joins, others do not."""
    elsewhere = evolve(ANONYMOUS, address="198.51.100.5")
    with mock.patch.object(defaults, "JOINS_AT_ONCE", 3):
        cluster.server = cluster.another()
        await cluster.server.start()
        for number in range(3):
            await cluster.server.join(cluster.request(nodename=f"a{number}"), elsewhere)
        for _ in range(3):
            assert "tctl tokens rm" in await refused(cluster.server.join(cluster.request(), elsewhere), LimitExceeded)
        await cluster.server.join(cluster.request(nodename="b"), evolve(elsewhere, address="198.51.100.6"))
        token = await cluster.server.create_token(("node",), 60, None)
        await cluster.server.join(cluster.request(nodename="c", token=token.value), elsewhere)
        for number in range(10):
            await cluster.server.join(cluster.request(nodename=f"d{number}"), HERE)
        for number in range(3):
            await cluster.server.join(cluster.request(nodename=f"v{number}"), evolve(elsewhere, address="2001:db8::5"))
        neighbour = evolve(elsewhere, address="2001:db8::aa:6")  # addresses of one /64 are one machine's to take
        await refused(cluster.server.join(cluster.request(), neighbour), LimitExceeded)
        await refused(
            cluster.server.join(cluster.request(), evolve(elsewhere, address="::ffff:198.51.100.5")), LimitExceeded
        )
        cluster.clock.advance(1 / defaults.JOINS_PER_SECOND)
        await cluster.server.join(cluster.request(nodename="e"), elsewhere)
        await refused(cluster.server.join(cluster.request(), elsewhere), LimitExceeded)


# A state from before


def old_record(
    nodename: str, joined: float, addresses: tuple[str, ...] = (), role: str = "node", uuid: str | None = None
) -> tuple[str, bytes, str]:
    record = {
        "version": 1, "uuid": uuid or new_uuid(), "role": role, "nodename": nodename, "addresses": list(addresses),
        "ssh_public_key": KEYS[0], "tls_public_key": KEYS[1], "joined": joined, "renewed": joined,
    }  # fmt: skip
    return f"/hosts/{record['uuid']}/{role}", json.dumps(record).encode(), str(record["uuid"])


@pytest_twisted.ensureDeferred
async def test_a_state_from_before_goes_on(cluster: Cluster) -> None:
    """Hosts that joined before names were owned keep them, the first of a name has it, and newcomers take none."""
    now = cluster.clock.seconds()
    uuids = []
    for nodename, age, addresses, role in (
        ("one", 30, (), "node"),
        ("one", 20, ("db.example.org", "localhost"), "node"),
        (f"one.{CLUSTER}", 40, (), "node"),
        ("localhost", 40, (), "node"),
        ("p1", 10, ("proxy.example.com", "127.0.0.1"), "proxy"),
        ("p2", 10, ("proxy.example.com",), "proxy"),
    ):
        key, value, uuid = old_record(nodename, now - age, addresses, role)
        await cluster.backend.put(key, value)
        uuids.append(uuid)
    later = cluster.another()
    await later.start()
    await later.stop()
    before = await cluster.stored()
    later = cluster.another()
    await later.start()
    await later.stop()
    assert await cluster.stored() == before, "it is done once"
    cluster.server = later

    async def renewed(uuid: str, role: str = "node") -> set[str]:
        keys = RenewRequest(*KEYS, cluster.clock.seconds(), "0.1.0")
        return principals(await cluster.server.renew(keys, cluster.identity(uuid, role)))

    assert f"one.{CLUSTER}" in await renewed(uuids[2])
    assert await renewed(uuids[0]) == own(uuids[0])
    assert await renewed(uuids[1]) == own(uuids[1]) | {"db.example.org"}
    assert await renewed(uuids[3]) == own(uuids[3])
    for uuid in uuids[4:]:
        assert {"proxy.example.com", f"p{uuids.index(uuid) - 3}"} <= await renewed(uuid, "proxy")
    for uuid, nodename in ((uuids[0], "one"), (uuids[2], f"one.{CLUSTER}"), (uuids[3], "localhost")):
        identity = evolve(cluster.identity(uuid), address="198.51.100.5")
        await cluster.server.heartbeat(cluster.node(uuid, nodename=nodename, addr="198.51.100.5:22"), "i", identity)
    router = await routed(cluster)
    assert target_of(router, "one") == target_of(router, f"one.{CLUSTER}") == uuids[2]
    assert target_of(router, uuids[0]) == uuids[0]
    await refused(cluster.server.join(cluster.request(addresses=("db.example.org",))))
    cluster.clock.advance(31 * defaults.DAY)
    await cluster.backend.sweep()
    assert not [key for key in await cluster.stored() if key.startswith(("/names/", "/hosts/"))]


# No sequence

LABELS = st.sampled_from(["one", "two", "db"])
SPELLINGS = (
    lambda name: name,
    str.upper,
    lambda name: f"{name}.{CLUSTER}",
    lambda name: f"{name}.{CLUSTER.upper()}.",
    lambda name: f"{name}.",
)
NAMES = st.one_of(
    st.builds(lambda name, spell: spell(name), LABELS, st.sampled_from(SPELLINGS)),
    st.sampled_from(["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "localhost", "127.0.0.1", "proxy.example.com"]),
)
HOSTS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("join"), HOSTS, NAMES, st.lists(NAMES, max_size=2), st.sampled_from(["node", "proxy"])),
    st.tuples(st.just("ping"), HOSTS, NAMES, st.lists(NAMES, max_size=1), st.sampled_from(["10.0.0.1", "10.0.0.9"])),
    st.tuples(st.just("renew"), HOSTS),
    st.tuples(st.just("remove"), HOSTS),
    st.tuples(st.just("wait"), st.sampled_from([60.0, 700.0, 7 * 3600.0, 20 * 86400.0])),
)


class Model:
    """Hosts that join, ping and go, and who was the first to be given each name."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.backend = MemoryBackend(self.clock.seconds)
        self.cluster = Cluster(self.clock, self.backend)
        self.uuids = [new_uuid() for _ in range(4)]
        self.requests: dict[int, JoinRequest] = {}
        self.addrs: dict[int, str] = {}

    async def run(self, steps: list[Any]) -> None:
        token = await self.cluster.server.create_token(("node", "proxy"), 48 * 3600, Secret("both"))
        for step in steps:
            try:
                await getattr(self, step[0])(*step[1:], **({"token": token.value} if step[0] == "join" else {}))
            except TeleconchError:
                pass
            await self.look()

    async def join(self, number: int, nodename: str, addresses: list[str], role: str, token: Secret) -> None:
        request = self.cluster.request(
            uuid=self.uuids[number], nodename=nodename, addresses=tuple(addresses), role=role, token=token,
            ssh_public_key=KEYS[0], tls_public_key=KEYS[1],
        )  # fmt: skip
        before = await self.owners()
        given = await self.cluster.server.join(request)
        if role == "node":
            self.requests[number] = request
        self.certified(number, role, given, before)

    async def ping(self, number: int, host: str, public: list[str], address: str) -> None:
        request = self.requests.get(number)
        if request is None:
            return
        addr = f"[{host}]:22" if ":" in host else f"{host}:22"
        node = self.cluster.node(request.uuid, nodename=request.nodename, addr=addr, public_addrs=tuple(public))
        identity = evolve(self.cluster.identity(request.uuid), address=address)
        await self.cluster.server.heartbeat(node, "one", identity)

    async def renew(self, number: int) -> None:
        before = await self.owners()
        keys = RenewRequest(*KEYS, self.clock.seconds(), "0.1.0")
        given = await self.cluster.server.renew(keys, self.cluster.identity(self.uuids[number]))
        self.certified(number, "node", given, before)

    async def remove(self, number: int) -> None:
        await self.cluster.server.delete_node(self.uuids[number])

    async def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def owners(self) -> dict[str, set[tuple[str, str]]]:
        """Canonical name -> {(uuid, role)}, as the hosts' records have it: what was granted, and not given back."""
        found: dict[Any, Any] = {}
        async for item in self.backend.all("/hosts/"):
            record = json.loads(item.value)
            for name in record["granted"]:
                found.setdefault(name, set()).add((record["uuid"], record["role"]))
        return found

    def certified(
        self, number: int, role: str, given: HostCertificates, before: dict[str, set[tuple[str, str]]]
    ) -> None:
        """No principal of a name that another owned already, but among proxies."""
        uuid = self.uuids[number]
        for name in principals(given) - own(uuid):
            assert name not in ("localhost", "127.0.0.1")
            bare = name.rstrip(".")
            while bare.endswith(f".{CLUSTER}"):
                bare = bare.removesuffix(f".{CLUSTER}").rstrip(".")
            bare = bare.removeprefix("::ffff:")
            others = {each for each in before.get(bare, ()) if each[0] != uuid}
            assert not others or (role == "proxy" and {kind for _, kind in others} == {"proxy"}), (name, others)

    async def look(self) -> None:
        owners = await self.owners()
        for name, holders in owners.items():
            uuids = {uuid for uuid, _ in holders}
            assert len(uuids) == 1 or {role for _, role in holders} == {"proxy"}, (name, holders)
        router = await routed(self.cluster)
        for name in ("one", "two", "db", "10.0.0.1", "10.0.0.2", "proxy.example.com"):
            for spell in SPELLINGS if name in ("one", "two", "db") else SPELLINGS[:1]:
                reached = target_of(router, spell(name), 22)
                assert reached is None or reached in {uuid for uuid, _ in owners.get(name, ())}, (name, owners)
        page = await self.cluster.server.list_nodes("", 500)
        for status in page.nodes:
            assert target_of(router, status.node.uuid) == status.node.uuid
            assert target_of(router, f"{status.node.uuid}.{CLUSTER}") == status.node.uuid


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_no_sequence_takes_a_name(steps: list[Any]) -> None:
    """Whatever joins, pings, renews, leaves and ends, in whatever order and spelling: who owns a name is who is reached
    by it and who is certified for it, and every node is reached by its UUID."""
    model = Model()

    async def story() -> None:
        await model.cluster.server.start()
        await model.run(steps)
        await model.cluster.server.stop()

    outcome: list[Any] = []
    spawn(story()).addBoth(outcome.append)
    assert outcome, "the memory store never waits"
    if outcome[0] is not None:
        outcome[0].raiseException()


@pytest_twisted.ensureDeferred
async def test_a_node_from_before_is_found_where_it_was(cluster: Cluster) -> None:
    """A node behind NAT that joined before addresses were owned goes on pinging with the address that it has."""
    key, value, uuid = old_record("one", cluster.clock.seconds() - 30)
    await cluster.backend.put(key, value)
    node = cluster.node(uuid, nodename="one", addr="192.0.2.9:3022")
    await cluster.backend.put(presence_key(uuid), encode(Presence(node, cluster.clock.seconds(), "i")))
    cluster.server = cluster.another()
    await cluster.server.start()
    nat = evolve(cluster.identity(uuid), address="198.51.100.5")
    await cluster.server.heartbeat(node, "i", nat)
    await refused(cluster.server.heartbeat(evolve(node, addr="192.0.2.10:3022"), "i", nat))
    await cluster.server.stop()


def test_old_records_are_read() -> None:
    """A record of before has no granted names."""
    _, value, uuid = old_record("one", 1.0)
    from teleconch.auth.records import decode

    record = decode("/hosts/x", value, HostRecord)
    assert (record.uuid, record.granted, record.pinged) == (uuid, None, False)
    assert STATIC
