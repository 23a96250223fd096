"""The proxy's copy of the node directory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from hypothesis import given
from hypothesis import strategies as st

from teleconch.proxy.directory import Directory, host_and_port, own_ports
from teleconch.resources.kind import Change
from teleconch.resources.node import NodeStatus
from tests.worlds.proxy import new_uuid, node, status, told


def names(found: Iterable[NodeStatus]) -> list[str]:
    return [each.node.nodename for each in found]


def test_found_by_everything() -> None:
    """A node is found by UUID, nodename, address, public name and label, in any case of letters."""
    directory = Directory(lambda: 0.0)
    directory.apply(
        told(
            node(1, "Web-1", "10.0.0.7:3022", public_addrs=("web.example.org:443",), labels={"role": "DB"}),
            node(2, "web-2", "[fd00::7]:3022", labels={"role": "db"}),
        )
    )
    assert directory.by_uuid(new_uuid(1).upper()).node.nodename == "Web-1"
    assert names(directory.by_name("wEB-1")) == ["Web-1"]
    assert names(directory.by_host("web.EXAMPLE.org")) == ["Web-1"]
    assert names(directory.by_host("fd00::7")) == ["web-2"]
    assert names(directory.by_endpoint("10.0.0.7", 3022)) == ["Web-1"]
    assert names(directory.by_endpoint("10.0.0.7", 443)) == []
    # Letter by letter where that gives something, else in any case: ssh lower-cases what was typed.
    assert names(directory.by_label("role", "db")) == ["web-2"]
    assert names(directory.by_label("ROLE", "Db")) == ["Web-1", "web-2"]


def test_changes_leave_nothing_behind() -> None:
    """A node that was renamed, moved or removed is no longer found under what it was before."""
    directory = Directory(lambda: 0.0)
    directory.apply(told(node(1, "old", "10.0.0.1:3022", labels={"a": "b"})))
    directory.apply(told(node(1, "new", "10.0.0.2:3022")))
    assert not directory.by_name("old")
    assert not directory.by_host("10.0.0.1")
    assert not directory.by_label("a", "b")
    assert names(directory.by_name("new")) == ["new"]
    directory.apply([Change(new_uuid(1), None)])
    assert not directory.by_name("new")
    assert len(directory) == 0
    assert directory._names._uuids == directory._hosts._uuids == directory._labels._uuids == {}


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["a", "b"]), st.sampled_from(["x:1", "y:1", "x:2", "z"]),
                  st.booleans()),
        max_size=30,
    )
)  # fmt: skip
def test_indexes_say_what_a_walk_would(changes: list[tuple[int, str, str, bool]]) -> None:
    """Whatever comes and goes, each index finds exactly the nodes that a walk over all of them would find."""
    directory = Directory(lambda: 0.0)
    for number, name, addr, there in changes:
        found = status(node(number, name, addr, labels={"l": name})) if there else None
        directory.apply([Change(new_uuid(number), found)])
    for name in ("a", "b"):
        walked = {each.node.uuid for each in directory.values.values() if each.node.nodename == name}
        assert {each.node.uuid for each in directory.by_name(name)} == walked
        assert {each.node.uuid for each in directory.by_label("l", name)} == walked
    for addr in ("x:1", "y:1", "x:2"):
        walked = {each.node.uuid for each in directory.values.values() if each.node.addr == addr}
        assert {each.node.uuid for each in directory.by_endpoint(addr[0], int(addr[2]))} == walked


def test_what_a_new_watch_does_not_tell_is_forgotten() -> None:
    """A node that was removed while auth was away does not stay in the proxy's list for ever."""
    directory = Directory(lambda: 0.0)
    directory.begin()
    directory.apply(told(node(1, "stays"), node(2, "goes")))
    directory.begin()
    directory.apply(told(node(1, "stays")))
    assert names(directory.values.values()) == ["stays", "goes"] or names(directory.values.values()) == [
        "goes",
        "stays",
    ], "not before all was told"
    directory.whole()
    assert names(directory.values.values()) == ["stays"]


def test_age() -> None:
    """While auth is away the directory says since when, and nothing of it is lost."""
    now = 100.0
    directory = Directory(lambda: now)
    directory.apply(told(node(1, "web")))
    directory.whole()
    assert directory.age() is None
    directory.lost()
    now = 160.0
    directory.lost()
    assert directory.age() == 60.0
    assert names(directory.by_name("web")) == ["web"]
    directory.whole()
    assert directory.age() is None


def test_addresses() -> None:
    """IPv4, IPv6, names, with and without port are told apart."""
    assert host_and_port("Web.example:3022") == ("web.example", 3022)
    assert host_and_port("[FD00::1]:22") == ("fd00::1", 22)
    assert host_and_port("fd00::1") == ("fd00::1", None)
    assert host_and_port("[fd00::1]") == ("fd00::1", None)
    assert host_and_port("web") == ("web", None)
    assert host_and_port("web:") == ("web:", None)
    assert own_ports(node(1, "a", "h:1", public_addrs=("p:2", "q"))) == {1, 2}


class _Counted(dict[Any, Any]):
    """Counts what is looked at."""

    looks = 0

    def get(self, *arguments: Any) -> Any:
        type(self).looks += 1
        return super().get(*arguments)

    def __getitem__(self, key: str) -> Any:
        type(self).looks += 1
        return super().__getitem__(key)

    def __iter__(self) -> NoReturn:
        raise AssertionError("a lookup walked over the nodes")

    items = values = keys = __iter__


def test_lookups_are_flat() -> None:
    """A connect takes the same number of steps with one node as with ten thousand."""
    steps = []
    for count in (1, 10_000):
        directory = Directory(lambda: 0.0)
        directory.apply(
            told(*(node(n, f"node-{n}", f"127.0.0.1:{10_000 + n}", labels={"n": str(n)}) for n in range(count)))
        )
        directory.values = _Counted(directory.values)
        for index in (directory._names, directory._hosts, directory._endpoints, directory._labels):
            index._uuids = _Counted(index._uuids)
        _Counted.looks = 0
        assert names(directory.by_name("node-0")) == ["node-0"]
        assert names(directory.by_endpoint("127.0.0.1", 10_000)) == ["node-0"]
        assert names(directory.by_label("n", "0")) == ["node-0"]
        assert directory.by_uuid(new_uuid(0)) is not None
        steps.append(_Counted.looks)
    assert steps[0] == steps[1] < 10
