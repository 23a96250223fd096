"""Who has to go where too many connect: those who have come least far, of the source that has most, oldest first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from teleconch.admission import Admission, Bounds, Queue, Room, source_of
from teleconch.ssh.server_limits import Limits


class Connection:
    def __init__(self, admission: Admission) -> None:
        self.aborted = False
        self._admission = admission

    def abortConnection(self) -> None:
        self.aborted = True
        self._admission.gone(self)


def at(host: str) -> Any:
    return IPv4Address("TCP", host, 1)


def admits(connections: int = 1000, steps: int = 3, total: int = 10, per_source: int = 4, **more: Any) -> Admission:
    bounds = Bounds(connections=connections, steps=(Room(total, per_source),) * steps, **more)
    return Admission(bounds, lambda: 0.0, "test")


def crowd(admission: Admission, hosts: list[str], step: int = 0) -> list[Connection]:
    made = []
    for host in hosts:
        assert admission.may_connect(at(host))
        made.append(one := Connection(admission))
        admission.connected(one, at(host))
        if step:
            admission.advanced(one, step)
    return made


def test_sources() -> None:
    """One source is an IPv4 address or an IPv6 /64, also where IPv4 arrives through an IPv6 socket."""
    assert source_of("10.0.0.1") == source_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9") != source_of("2001:db8:1:3::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2") != ""
    assert source_of("") == source_of("localhost") == ""


def test_all_addresses_of_a_host_are_one_source() -> None:
    """A host that takes new IPv6 addresses has the room of one source; what has no address shares one."""
    admission = admits(per_source=2)
    six = []
    for address in (IPv6Address("TCP", f"2001:db8::{number}", 1) for number in range(1, 5)):
        six.append(one := Connection(admission))
        admission.connected(one, address)
    assert [one.aborted for one in six] == [True, True, False, False]
    admission.connected(Connection(admission), None)
    assert len(admission) == 3


def test_the_oldest_of_too_many_goes() -> None:
    """A flood of connections that never log in closes its own oldest ones, and others still get in."""
    admission = admits()
    (friend,) = crowd(admission, ["10.0.0.9"])
    assert admission.authenticated(friend, "alice")
    flood = crowd(admission, ["10.0.0.1"] * 100)
    assert [one.aborted for one in flood] == [True] * 96 + [False] * 4
    many = crowd(admission, [f"10.0.1.{number}" for number in range(100)])
    assert sum(not one.aborted for one in (*flood, *many)) == 10
    assert not friend.aborted
    for one in (*flood, *many, friend):
        admission.gone(one)
        admission.gone(one)
    assert len(admission) == admission.waiting() == 0
    assert not any((admission._sources, admission._by_source, admission._step, len(admission._known)))
    assert not any(queue._by_source or queue._crowds or queue._most for queue in (*admission._steps, admission._known))


def test_who_has_come_further_outlives_who_says_nothing() -> None:
    """A crowd that says nothing pushes out nobody who speaks or has keys, even of its own source; nor the reverse."""
    admission = admits()
    friends = [*crowd(admission, ["10.0.0.1"], 1), *crowd(admission, ["10.0.0.1"], 2)]
    crowd(admission, ["10.0.0.1"] * 1000)
    crowd(admission, [f"10.0.{number}.1" for number in range(100)])
    assert not any(friend.aborted for friend in friends)
    admission = admits()
    (newest,) = crowd(admission, ["10.0.0.1"])
    crowd(admission, ["10.0.0.7"] * 1000, 1)
    assert not newest.aborted
    assert not any(friend.aborted for friend in friends)


def test_the_biggest_crowd_goes_first() -> None:
    """Few sources with many connections cannot push out the one connection of another source."""
    admission = admits()
    (lonely,) = crowd(admission, ["10.0.0.9"])
    floods = crowd(admission, [f"10.0.0.{number % 4}" for number in range(1000)])
    assert not lonely.aborted
    assert sum(not one.aborted for one in floods) == 9


def test_totals() -> None:
    """Beyond the limits, in total and for one source, connections are not taken."""
    admission = Admission(Bounds(connections=3, steps=(Room(9, 9),), per_source=2), lambda: 0.0, "test")
    crowd(admission, ["10.0.0.1"] * 2)
    assert not admission.may_connect(at("10.0.0.1"))
    crowd(admission, ["10.0.0.2"])
    assert not admission.may_connect(at("10.0.0.3"))


def test_identities() -> None:
    """One identity holds so many connections: the next is refused, or its own oldest unused one makes room."""
    admission = admits(per_identity=2)
    mine = crowd(admission, ["10.0.0.1"] * 3)
    assert [admission.authenticated(one, "alice") for one in mine] == [True, True, False]
    (other,) = crowd(admission, ["10.0.0.1"])
    assert admission.authenticated(other, "bob")
    admission = admits(per_identity=2, oldest_goes=True)
    mine = crowd(admission, ["10.0.0.1"] * 3)
    for one in mine[:2]:
        assert admission.authenticated(one, "alice")
    admission.used(mine[0])
    assert admission.authenticated(mine[2], "alice")
    assert [one.aborted for one in mine] == [False, True, False]


def test_the_biggest_owner_makes_room() -> None:
    """Where identities lose their oldest, a full listener has it from the one that holds most."""
    admission = admits(connections=5, steps=1, total=1, per_identity=4, oldest_goes=True)
    (friend,) = crowd(admission, ["10.0.0.9"])
    assert admission.authenticated(friend, "alice")
    for number in range(100):
        (one,) = crowd(admission, ["10.0.0.1"])
        assert admission.authenticated(one, "bob" if number % 2 else "eve")
    assert not friend.aborted


def test_a_flood_does_not_fill_the_log() -> None:
    """Ten thousand refused connections are a line a minute, with their number."""
    clock = Clock()
    admission = Admission(Bounds(connections=0, steps=(Room(1, 1),)), clock.seconds, "test")
    with capturedLogs() as log:
        for _ in range(10_000):
            admission.may_connect(at("10.0.0.1"))
        clock.advance(61)
        admission.may_connect(at("10.0.0.1"))
    assert [event["count"] for event in log] == [1, 10_000]
    assert "event" not in log[0]  # a count of connections that nobody owned is no audit event


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), st.booleans()), max_size=200))
def test_queue_is_what_it_says(acts: list[tuple[int, int, bool]]) -> None:
    """Against a plain list: whoever is over the bounds is the oldest of the fullest source."""
    queue: Queue[int] = Queue(Room(6, 3))
    plain: list[tuple[int, str]] = []
    for number, (source, other, leaves) in enumerate(acts):
        if leaves and plain:
            one, its = plain.pop(other % len(plain))
            assert queue.remove(one) == its
            continue
        name = str(source)
        leaving = queue.add(number, name)
        plain.append((number, name))
        counts = {each: sum(its == each for _, its in plain) for _, each in plain}
        if counts[name] > 3:
            assert leaving == next(one for one, its in plain if its == name)
        elif len(plain) > 6:
            most = [each for each, count in counts.items() if count == max(counts.values())]
            assert leaving in {next(one for one, its in plain if its == each) for each in most}
        else:
            assert leaving is None
        if leaving is not None:
            queue.remove(leaving)
            plain = [each for each in plain if each[0] != leaving]
        assert len(queue) == len(plain)


@pytest.mark.parametrize("per_identity", [0, 2])
def test_no_login_ends_one_that_is_in(per_identity: int) -> None:
    """At a full SSH server whoever has logged in stays, however many more log in as the same user or others."""
    limits = Limits(max_connections=9, max_connections_per_user=per_identity)
    admission = Admission(limits.bounds(), lambda: 0.0, "test")
    known = []
    for number in range(200):
        if not admission.may_connect(at(f"10.0.0.{number % 5}")):
            continue
        (one,) = crowd(admission, [f"10.0.0.{number % 5}"])
        if admission.authenticated(one, ("alice", "bob")[number % 2]):
            known.append(one)
        else:
            admission.gone(one)
    assert len(known) == (2 * per_identity or 9)
    assert not any(one.aborted for one in known)
