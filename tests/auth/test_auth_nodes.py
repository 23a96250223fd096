"""Heartbeats, the list of nodes, and watching it."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from teleconch import defaults
from teleconch.api.interface import AuthAPI
from teleconch.audit.emitter import Memory
from teleconch.auth.authorized import checked
from teleconch.auth.hosts import CALLS_AT_ONCE
from teleconch.ca.tls import identity_of
from teleconch.errors import AccessDenied, AlreadyJoined, BadParameter, LimitExceeded, NotFound, Unavailable
from teleconch.resources.host import HostCertificates, RenewRequest
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.kind import NODES, Change
from tests.worlds.auth import CLUSTER, Cluster, new_uuid
from tests.worlds.reactor import reactor
from tests.worlds.waiting import spawn

OFFLINE = 2.5 * 60


async def refused(awaitable: Awaitable[object], kind: Any) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return str(caught.value)


async def settled(cluster: Cluster, seconds: float | int = 0.0) -> None:
    """Some time later, and when what the store has to tell was told."""
    for _ in range(int(seconds // 2)):
        cluster.clock.advance(2)
        await deferLater(reactor, 0.001)
    cluster.clock.advance(seconds % 2)
    await deferLater(reactor, 0.01)
    await cluster.backend.put("/test/mark", b"")


class Ears:
    """A receiver that remembers."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[Any] = []
        self.wholes = self.ended = 0
        self.fails = fails

    def changes(self, changes: tuple[Change[Any], ...]) -> None:
        self.calls.append(changes)
        if self.fails:
            raise RuntimeError("a receiver's slip")

    def whole(self) -> None:
        self.wholes += 1
        if self.fails:
            raise RuntimeError("a receiver's slip")

    def watch_ended(self) -> None:
        self.ended += 1

    def take(self) -> list[tuple[str, None] | tuple[str, bool]]:
        """What came since the last call: (uuid, online) or (uuid, None) for gone."""
        changes = [change for call in self.calls for change in call]
        self.calls.clear()
        return [(change.key, change.value and change.value.online) for change in changes]


# Heartbeats


@pytest_twisted.ensureDeferred
async def test_a_node_that_pings_is_online(cluster: Cluster) -> None:
    """A new node is in the list after its first ping, and learns when to ping next and what time it is."""
    uuid = await cluster.joined()
    assert (await cluster.server.list_nodes("", 10)).nodes == ()
    ping = await cluster.ping(uuid)
    assert (ping.interval, ping.time) == (60.0, cluster.clock.seconds())
    status = await cluster.server.get_node(uuid)
    assert status.online
    assert (status.node.nodename, status.node.labels, status.node.roles) == ("web1", {"env": "prod"}, ("node",))
    assert (status.last_seen, status.expires) == (cluster.clock.seconds(), cluster.clock.seconds() + 600)
    cluster.clock.advance(60)
    await cluster.ping(uuid, labels={"env": "test"})
    assert (await cluster.server.get_node(uuid)).node.labels == {"env": "test"}


@pytest_twisted.ensureDeferred
async def test_a_silent_node_is_offline_then_gone(cluster: Cluster) -> None:
    """Two and a half pings after its last sign a node is offline, with the time; after ten minutes it is gone."""
    uuid = await cluster.joined()
    await cluster.ping(uuid)
    seen = cluster.clock.seconds()
    cluster.clock.advance(OFFLINE)
    assert (await cluster.server.get_node(uuid)).online
    cluster.clock.advance(1)
    status = await cluster.server.get_node(uuid)
    assert (status.online, status.last_seen) == (False, seen)
    cluster.clock.advance(600 - OFFLINE - 1)
    assert "tctl nodes ls" in await refused(cluster.server.get_node(uuid), NotFound)
    assert (await cluster.server.list_nodes("", 10)).nodes == ()
    await cluster.ping(uuid)
    assert (await cluster.server.get_node(uuid)).online


@pytest_twisted.ensureDeferred
async def test_a_host_speaks_for_itself_only(cluster: Cluster) -> None:
    """A node cannot register another node's address, name or cluster, nor can anyone else."""
    uuid, other, namesake = [await cluster.joined(name) for name in ("web1", "web2", "web1")]
    node = cluster.node(uuid)
    for identity, told in (
        (cluster.identity(other), node),
        (cluster.identity(namesake), node),
        (cluster.identity(uuid), evolve(node, nodename="web2")),
        (cluster.identity(uuid), evolve(node, cluster="other.com")),
        (cluster.identity(uuid, "proxy"), node),
        (cluster.identity(uuid, "admin"), node),
        (ApiIdentity("user", uuid, ("node",), CLUSTER, 9e9), node),
        (cluster.identity(new_uuid()), node),
    ):
        await refused(cluster.server.heartbeat(told, "one", identity), AccessDenied)
    assert (await cluster.server.list_nodes("", 10)).nodes == ()
    sentence = await refused(cluster.ping(uuid, nodename="db1"), AccessDenied)
    assert "joined as 'web1'" in sentence
    assert f"tctl rm node/{uuid}" in sentence


@pytest_twisted.ensureDeferred
async def test_roles_come_from_the_certificate(cluster: Cluster) -> None:
    """A node cannot show itself as a proxy, nor as nothing at all."""
    uuid = await cluster.joined()
    await refused(cluster.ping(uuid, roles=("auth", "proxy")), AccessDenied)
    await cluster.ping(uuid, roles=())
    assert (await cluster.server.get_node(uuid)).node.roles == ("node",)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_shown_or_dialled_is_refused(cluster: Cluster) -> None:
    """Nothing that a node says of itself steers a terminal, breaks a table, or fills the auth server's memory."""
    uuid = await cluster.joined(addresses=("2001:db8::1", "web1.example.com", "192.0.2.7"))
    for changes in (
        {"addr": "192.0.2.7"},
        {"addr": "192.0.2.7:"},
        {"addr": "192.0.2.7:0"},
        {"addr": "192.0.2.7:65536"},
        {"addr": "192.0.2.7:٣"},
        {"addr": ":3022"},
        {"addr": "2001:db8::1:3022"},
        {"addr": "[web1]:3022"},
        {"addr": "a b:3022"},
        {"addr": "-oProxyCommand=x:22"},
        {"addr": "[2001:db8::1%eth0]:22"},
        {"public_addrs": ("web1\n",)},
        {"public_addrs": ("web1",) * 33},
        {"labels": {"": "x"}},
        {"labels": {"a b": "x"}},
        {"labels": {"a=b": "x"}},
        {"labels": {"a": "\x1b[2J"}},
        {"labels": {"a\n": "b"}},
        {"labels": {"a": "x" * 1025}},
        {"labels": {"x" * 256: ""}},
        {"labels": {f"k{n}": "" for n in range(129)}},
        {"labels": {f"k{n}": "x" * 1000 for n in range(40)}},
        {"version": "1\n2"},
        {"version": "x" * 65},
    ):
        await refused(cluster.ping(uuid, **changes), BadParameter)
    upper = cluster.node(uuid.upper())
    await refused(cluster.server.heartbeat(upper, "one", cluster.identity(uuid)), BadParameter)
    for instance in ("", "x" * 65, "a b", "a/b"):
        await refused(cluster.ping(uuid, instance), BadParameter)
        await refused(cluster.server.goodbye(instance, cluster.identity(uuid)), BadParameter)
    for good in ("[2001:db8::1]:22", "web1.example.com:1", "192.0.2.7:65535"):
        await cluster.ping(
            uuid, addr=good, public_addrs=("web1", "2001:db8::1", good), labels={"ä/é.x*": "größe 1, 2=3"}
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"uuid": new_uuid()},
        {"cluster": "other.example.com"},
        {"roles": ("node", "proxy")},
        {"roles": ("auth",)},
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_host_speaks_for_itself(cluster: Cluster, changes: dict[str, Any]) -> None:
    """CVE-2021-41393 is of this kind: a node cannot ping as another host, for another cluster or in another role."""
    uuid = await cluster.joined()
    api = checked(AuthAPI, cluster.server, cluster.identity(uuid), cluster.clock.seconds, Memory())
    before = await cluster.stored()
    told = await refused(api.heartbeat(evolve(cluster.node(uuid), **changes), "one"), AccessDenied)
    assert told.endswith(f"cannot come from host {uuid} (node).")
    assert await cluster.stored() == before


@pytest_twisted.ensureDeferred
async def test_public_addresses_are_those_that_it_joined_with(cluster: Cluster) -> None:
    """A stolen node cannot make other nodes' names ambiguous, so that nobody reaches them by name any more."""
    await cluster.joined("db1", addresses=("db1.example.com",))
    uuid = await cluster.joined("web1", addresses=("Web1.example.org", "192.0.2.7"))
    for foreign in (
        "db1",
        "db1.example.com",
        "db1.example.com:3022",
        "192.0.2.8:3022",
        "[2001:db8::1]:22",
        "localhost",
    ):
        sentence = await refused(cluster.ping(uuid, public_addrs=("web1.example.org:3022", foreign)), AccessDenied)
        assert "did not join as" in sentence
    with pytest.raises(NotFound):
        await cluster.server.get_node(uuid)
    await cluster.ping(uuid, public_addrs=("WEB1.example.org:3022", "192.0.2.7:22", "web1", f"{uuid}.{CLUSTER}"))


@pytest_twisted.ensureDeferred
async def test_goodbye_is_offline_at_once(cluster: Cluster) -> None:
    """A node that was stopped in good order is shown offline since its last ping, and back when it starts again."""
    uuid = await cluster.joined()
    await cluster.ping(uuid)
    seen = cluster.clock.seconds()
    cluster.clock.advance(10)
    await cluster.server.goodbye("one", cluster.identity(uuid))
    await cluster.server.goodbye("one", cluster.identity(uuid))
    status = await cluster.server.get_node(uuid)
    assert (status.online, status.last_seen, status.expires) == (False, seen, seen + 600)
    await cluster.ping(uuid, "two")
    assert (await cluster.server.get_node(uuid)).online
    await cluster.server.goodbye("one", cluster.identity(uuid))  # the old process was slow to say it
    assert (await cluster.server.get_node(uuid)).online
    await cluster.server.goodbye("one", cluster.identity(new_uuid()))
    for identity in (cluster.identity(uuid, "admin"), ApiIdentity("user", uuid, ("node",), CLUSTER, 9e9)):
        await refused(cluster.server.goodbye("two", identity), AccessDenied)


@pytest_twisted.ensureDeferred
async def test_two_processes_with_one_uuid_are_told(cluster: Cluster) -> None:
    """Two machines that take turns under one UUID: the older one hears what to do, the newer one stays."""
    uuid = await cluster.joined()
    await cluster.ping(uuid, "one")
    cluster.clock.advance(30)
    await cluster.ping(uuid, "two", addr="192.0.2.7:3122")
    for _ in range(5):
        cluster.clock.advance(30)
        told = await refused(cluster.ping(uuid, "one"), AlreadyJoined)
        assert "192.0.2.7:3122" in told
        assert "delete host_uuid" in told
        cluster.clock.advance(30)
        await cluster.ping(uuid, "two", addr="192.0.2.7:3122")
    assert (await cluster.server.get_node(uuid)).node.addr == "192.0.2.7:3122"


@pytest_twisted.ensureDeferred
async def test_three_processes_with_one_uuid_are_told(cluster: Cluster) -> None:
    """Of several clones all but the newest are refused."""
    uuid = await cluster.joined()
    for instance in ("one", "two", "three"):
        await cluster.ping(uuid, instance)
    for instance in ("one", "two", "one"):
        await refused(cluster.ping(uuid, instance), AlreadyJoined)
    await cluster.ping(uuid, "three")


@pytest_twisted.ensureDeferred
async def test_restarts_are_never_taken_for_clones(cluster: Cluster) -> None:
    """A node that is restarted again and again, killed or stopped, pings as soon as it is back."""
    uuid = await cluster.joined()
    for number in range(30):
        await cluster.ping(uuid, f"run{number}")
        cluster.clock.advance(number % 3)
        if number % 2:
            await cluster.server.goodbye(f"run{number}", cluster.identity(uuid))
    record = json.loads((await cluster.stored())[f"/presence/{uuid}"])
    assert len(record["replaced"]) == 8


@pytest_twisted.ensureDeferred
async def test_a_replaced_process_may_come_back_when_the_other_is_silent(cluster: Cluster) -> None:
    """When the clone was stopped or has crashed, the first machine's node goes on without anybody's help."""
    uuid = await cluster.joined()
    await cluster.ping(uuid, "one")
    await cluster.ping(uuid, "two")
    cluster.clock.advance(OFFLINE)
    await refused(cluster.ping(uuid, "one"), AlreadyJoined)
    cluster.clock.advance(1)
    await cluster.ping(uuid, "one")
    await refused(cluster.ping(uuid, "two"), AlreadyJoined)
    await cluster.server.goodbye("one", cluster.identity(uuid))
    await cluster.ping(uuid, "two")


@pytest_twisted.ensureDeferred
async def test_heartbeats_at_once_do_not_lose_each_other(cluster: Cluster) -> None:
    """A label change and the regular ping that meet are both answered."""
    uuid = await cluster.joined()
    results = await DeferredList([spawn(cluster.ping(uuid, "one")) for _ in range(10)], consumeErrors=True)
    assert all(success for success, _ in results)


@pytest_twisted.ensureDeferred
async def test_a_certificate_ends_with_its_membership(cluster: Cluster) -> None:
    """After a removal the host may be reinstalled and keep its UUID: the keys of before may do nothing for it."""
    request = cluster.request()
    certificates = await cluster.server.join(request)

    def identity(certificates: HostCertificates) -> ApiIdentity:
        certificate = x509.load_pem_x509_certificate(certificates.tls_cert.encode())
        der = certificate.public_bytes(Encoding.DER)
        return identity_of(der, certificates.authorities, cluster.clock.seconds())

    old = identity(certificates)
    await cluster.server.heartbeat(cluster.node(request.uuid), "one", old)
    await cluster.server.delete_node(request.uuid)
    cluster.clock.advance(1)
    again = identity(await cluster.server.join(cluster.request(uuid=request.uuid)))
    renewal = RenewRequest(request.ssh_public_key, request.tls_public_key, cluster.clock.seconds(), "0.1.0")
    for call in (
        lambda who: cluster.server.heartbeat(cluster.node(request.uuid), "one", who),
        lambda who: cluster.server.renew(renewal, who),
        cluster.server.check_standing,
    ):
        await refused(call(old), AccessDenied)
        await call(again)


@pytest_twisted.ensureDeferred
async def test_pings_at_once_are_few(cluster: Cluster) -> None:
    """A node that was taken over and sends thousands of pings at once has few served: each would be tried again for
    each of the others, for minutes in which nobody else's comes through. Others, and its next one, are served."""
    uuid, other = await cluster.joined(), await cluster.joined()
    real = cluster.backend.commit
    waiting: list[Any] = []
    gate: Deferred[None] = Deferred()

    async def commit(*changes: Any) -> int:
        waiting.append(changes)
        await gate
        return await real(*changes)

    cluster.backend.commit = commit
    pings = [spawn(cluster.ping(uuid)) for _ in range(500)]
    results = DeferredList(pings, consumeErrors=True)
    others = spawn(cluster.ping(other))
    while len(waiting) < CALLS_AT_ONCE + 1:
        await deferLater(reactor, 0.001)
    cluster.backend.commit = real
    gate.callback(None)
    outcomes: list[Any] = await results
    assert sum(success for success, _ in outcomes) == CALLS_AT_ONCE
    assert all(failure.check(LimitExceeded) for success, failure in outcomes if not success)
    await others
    await cluster.ping(uuid)


@pytest_twisted.ensureDeferred
async def test_no_ping_is_lost_or_resurrects_what_changed_meanwhile(cluster: Cluster) -> None:
    """Whatever happens between reading and writing counts: a removal, a goodbye, another process."""
    uuid = await cluster.joined()
    cluster.meanwhile(lambda: cluster.server.delete_node(uuid))
    await refused(cluster.ping(uuid), AccessDenied)
    assert not [key for key in await cluster.stored() if uuid in key]
    uuid = await cluster.joined()
    await cluster.ping(uuid, "one")
    await cluster.ping(uuid, "two")
    cluster.meanwhile(lambda: cluster.ping(uuid, "three"))
    await refused(cluster.ping(uuid, "two"), AlreadyJoined)
    cluster.meanwhile(lambda: cluster.ping(uuid, "four"))
    await cluster.server.goodbye("three", cluster.identity(uuid))
    assert (await cluster.server.get_node(uuid)).online
    cluster.meanwhile(lambda: cluster.ping(uuid, "four"))
    await cluster.server.delete_node(uuid)
    assert not [key for key in await cluster.stored() if uuid in key]


# Lists


@pytest_twisted.ensureDeferred
async def test_nodes_are_listed_in_pages(cluster: Cluster) -> None:
    """`tctl nodes ls` shows each node once, in order, whatever the size of the pages."""
    uuids = sorted([await cluster.joined(f"web{n}") for n in range(5)])
    for uuid in uuids:
        member = json.loads((await cluster.stored())[f"/hosts/{uuid}/node"])
        await cluster.ping(uuid, nodename=member["nodename"])
    first = await cluster.server.list_nodes("", 2)
    second = await cluster.server.list_nodes(first.next, 2)
    third = await cluster.server.list_nodes(second.next, 2)
    assert [status.node.uuid for page in (first, second, third) for status in page.nodes] == uuids
    assert third.next is None
    assert [status.node.uuid for status in (await cluster.server.list_nodes("", 10**9)).nodes] == uuids
    for after, limit in (("../users", 5), ("x", 5), ("", 0), ("", -1)):
        await refused(cluster.server.list_nodes(after, limit), BadParameter)
    await refused(cluster.server.get_node("x/../y"), BadParameter)
    await refused(cluster.server.delete_node(""), BadParameter)


@pytest_twisted.ensureDeferred
async def test_a_removed_node_is_gone_in_every_role(cluster: Cluster) -> None:
    """After `tctl rm node/UUID` nothing of the host is left, its pings are refused, and others are untouched."""
    uuid, other = await cluster.joined(), await cluster.joined()
    token = await cluster.server.create_token(("proxy",), 60, None)
    await cluster.server.join(cluster.request(uuid=uuid, role="proxy", token=token.value), cluster.identity(uuid))
    await cluster.ping(uuid)
    await cluster.ping(other)
    await cluster.server.delete_node(uuid)
    assert not [key for key in await cluster.stored() if uuid in key]
    told = await refused(cluster.ping(uuid), AccessDenied)
    assert "removed from the cluster" in told
    assert "auth_token" in told
    await refused(cluster.server.delete_node(uuid), NotFound)
    assert [status.node.uuid for status in (await cluster.server.list_nodes("", 9)).nodes] == [other]


@pytest_twisted.ensureDeferred
async def test_a_ping_that_races_with_the_removal_leaves_no_ghost(cluster: Cluster) -> None:
    """A node that pings while it is being removed does not come back into the list."""
    for _ in range(10):
        uuid = await cluster.joined()
        pings = [spawn(cluster.ping(uuid)) for _ in range(3)]
        removal = spawn(cluster.server.delete_node(uuid))
        await DeferredList([*pings, removal], consumeErrors=True)
        assert not [key for key in await cluster.stored() if uuid in key]


# Watching


@pytest_twisted.ensureDeferred
async def test_a_watcher_is_told_all_then_each_change(cluster: Cluster) -> None:
    """A proxy that connects knows every node at once, and each new or changed one as it comes."""
    first, second = await cluster.joined(), await cluster.joined()
    await cluster.ping(first)
    await settled(cluster)
    ears = Ears()
    watch = await cluster.server.watch(NODES, ears)
    assert ears.take() == [(first, True)]
    await cluster.ping(second)
    await settled(cluster)
    assert ears.take() == [(second, True)]
    await cluster.ping(first, labels={"env": "test"})
    await settled(cluster)
    assert ears.calls[0][0].value.node.labels == {"env": "test"}
    assert ears.take() == [(first, True)]
    await cluster.server.goodbye("one", cluster.identity(first))
    await settled(cluster)
    assert ears.take() == [(first, False)]
    await cluster.server.delete_node(second)
    await settled(cluster)
    assert ears.take() == [(second, None)]
    watch.stop()
    watch.stop()
    await cluster.ping(first)
    await settled(cluster)
    assert ears.take() == []
    assert ears.ended == 0


@pytest_twisted.ensureDeferred
async def test_an_empty_directory_is_told_too(cluster: Cluster) -> None:
    """A proxy in a new cluster knows that there are no nodes, rather than waiting."""
    ears = Ears()
    await cluster.server.watch(NODES, ears)
    assert (ears.calls, ears.wholes) == ([], 1)


@pytest_twisted.ensureDeferred
async def test_offline_and_gone_are_told_by_the_clock(cluster: Cluster) -> None:
    """A node that crashed is shown offline, then disappears, though nobody says anything."""
    uuid = await cluster.joined()
    await cluster.ping(uuid)
    ears = Ears()
    await settled(cluster)
    await cluster.server.watch(NODES, ears)
    ears.take()
    await settled(cluster, OFFLINE - 2)
    assert ears.take() == []
    await settled(cluster, 6)
    assert ears.take() == [(uuid, False)]
    await settled(cluster, 600 - OFFLINE - 10)
    assert ears.take() == []
    await settled(cluster, 10)
    assert ears.take() == [(uuid, None)]


@pytest_twisted.ensureDeferred
async def test_pings_alone_are_told_rarely_but_in_time(cluster: Cluster) -> None:
    """Ten thousand pings a minute are not ten thousand messages to each proxy; yet no node seems to have ended."""
    uuid = await cluster.joined()
    await cluster.ping(uuid)
    await settled(cluster)
    ears = Ears()
    await cluster.server.watch(NODES, ears)
    expires = ears.calls[0][0].value.expires
    told = 0
    ears.calls.clear()
    for _ in range(30):
        cluster.clock.advance(60)
        await cluster.ping(uuid)
        await settled(cluster)
        for call in ears.calls:
            told += len(call)
            expires = call[-1].value.expires
        ears.calls.clear()
        assert expires > cluster.clock.seconds()
    assert 0 < told <= 6


@pytest_twisted.ensureDeferred
async def test_a_big_directory_is_told_in_pieces(cluster: Cluster) -> None:
    """The first news of a big cluster fits the wire."""
    from teleconch.auth.records import Presence, presence_key
    from teleconch.auth.state import put

    count = 2 * defaults.PAGE_SIZE + 1
    uuids = sorted(new_uuid() for _ in range(count))
    changes = [
        put(presence_key(uuid), Presence(cluster.node(uuid), cluster.clock.seconds(), "one"), expires=None)
        for uuid in uuids
    ]
    for start in range(0, count, 64):
        await cluster.backend.commit(*changes[start : start + 64])
    await settled(cluster)
    ears = Ears()
    await cluster.server.watch(NODES, ears)
    assert [len(call) for call in ears.calls] == [defaults.PAGE_SIZE, defaults.PAGE_SIZE, 1]
    assert [uuid for uuid, _ in ears.take()] == uuids
    assert ears.wholes == 1


@pytest_twisted.ensureDeferred
async def test_a_failing_receiver_harms_nobody(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks in the middle of the news is dropped; the other proxies go on."""
    uuid = await cluster.joined()
    bad, good = Ears(fails=True), Ears()
    await cluster.server.watch(NODES, bad)
    await cluster.server.watch(NODES, good)
    assert bad.ended == 1
    good.take()
    await cluster.ping(uuid)
    await settled(cluster)
    assert good.take() == [(uuid, True)]
    assert (bad.calls, bad.wholes) == ([], 1)


@pytest_twisted.ensureDeferred
async def test_watchers_are_told_when_the_server_stops(cluster: Cluster) -> None:
    """A proxy whose auth server stops learns it at once and looks for another."""
    server = cluster.another()
    ears = Ears()
    await refused(server.watch(NODES, ears), Unavailable)
    await server.start()
    watch = await server.watch(NODES, ears)
    await server.stop()
    assert ears.ended == 1
    watch.stop()
    await refused(server.watch(NODES, ears), Unavailable)


@pytest_twisted.ensureDeferred
async def test_the_directory_survives_falling_behind(cluster: Cluster) -> None:
    """When so much changes at once that the store drops the watch, the directory reads all again and tells it."""
    uuid, gone = await cluster.joined(), await cluster.joined()
    await cluster.ping(uuid)
    await cluster.ping(gone)
    await settled(cluster)
    ears = Ears()
    await cluster.server.watch(NODES, ears)
    ears.take()
    cluster.server._statuses._presences._watch.end("fell behind")
    await cluster.server.goodbye("one", cluster.identity(uuid))
    await cluster.server.delete_node(gone)
    await settled(cluster)
    assert ears.take() == []
    await settled(cluster, 2)
    await settled(cluster)
    assert sorted(ears.take(), key=str) == sorted([(uuid, False), (gone, None)], key=str)
    await cluster.ping(uuid)
    await settled(cluster)
    assert ears.take() == [(uuid, True)]


@pytest_twisted.ensureDeferred
async def test_another_auth_servers_nodes_are_told_here(cluster: Cluster) -> None:
    """With two auth servers on one state it does not matter to which one a node pings."""
    other = cluster.another()
    await other.start()
    ears = Ears()
    await other.watch(NODES, ears)
    ears.take()
    uuid = await cluster.joined()
    await cluster.ping(uuid)
    await settled(cluster)
    assert ears.take() == [(uuid, True)]
    await other.stop()
