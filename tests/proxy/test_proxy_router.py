"""What a user may ask the proxy for, and what the refusals say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.errors import BadParameter, NotFound, TeleconchError
from teleconch.proxy.directory import Directory
from teleconch.proxy.router import Router
from teleconch.proxy.target import Target, brief, parse_host, parse_subsystem
from tests.worlds.proxy import CLUSTER, new_uuid, node, router, status

WEB = node(1, "web", "10.0.0.1:3022", public_addrs=("web.example.org:3022", "203.0.113.5:2200"), labels={"role": "web"})
DB = node(2, "db", "10.0.0.2:3122", labels={"role": "db", "env": "prod"})
CACHE = node(3, "cache", "10.0.0.3:3022", labels={"role": "cache", "env": "prod"})


@pytest.mark.parametrize(
    ("host", "port", "nodename"),
    [
        ("web", 22, "web"),
        ("WEB", 22, "web"),
        (f"web.{CLUSTER}", 22, "web"),
        (f"Web.{CLUSTER.upper()}", 0, "web"),
        (new_uuid(2), 22, "db"),
        (new_uuid(2).upper(), 0, "db"),
        (f"{new_uuid(2)}.{CLUSTER}", 3022, "db"),
        ("db", 3122, "db"),
        ("role=db", 22, "db"),
        ("ROLE=DB", 22, "db"),
        (f"role=db.{CLUSTER}", 22, "db"),
        ("env=prod,role=db", 22, "db"),
        ("ROLE=Cache,ENV=Prod", 22, "cache"),
        (f"role=db,env=prod.{CLUSTER}", 22, "db"),
        ("web.example.org", 22, "web"),
        ("web.example.org", 3022, "web"),
        ("web", 2200, "web"),
        ("203.0.113.5", 2200, "web"),
        ("203.0.113.5", 0, "web"),
        ("10.0.0.1", 3022, "web"),
    ],
)
def test_found(host: str, port: int, nodename: str) -> None:
    """Every way to name a node leads to it."""
    assert router(WEB, DB, CACHE).resolve(Target(host, port)).node.nodename == nodename


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 3025),
        ("127.0.0.1", 22),
        ("169.254.169.254", 80),
        ("localhost", 22),
        ("localhost", 0),
        ("::1", 3025),
        ("10.0.0.1", 22),
        ("10.0.0.1", 80),
        ("10.0.0.1", 3122),
        ("203.0.113.5", 22),
        ("auth.example.org", 3025),
        ("nope", 22),
        ("role=nope", 22),
        ("=", 22),
        ("role=", 22),
        (f".{CLUSTER}", 22),
        ("0x7f000001", 22),
        ("2130706433", 3025),
    ],
)
def test_only_registered_nodes(host: str, port: int) -> None:
    """Nothing but a registered node is dialled: not loopback, not metadata, not auth (GHSA-hw4x-mcx5-9q36)."""
    with pytest.raises(NotFound, match=r"is registered in example\.test: see `tsh ls`"):
        router(WEB, DB, CACHE).resolve(Target(host, port))


def test_wrong_port() -> None:
    """A port that is not the node's is refused, and the right one is said."""
    with pytest.raises(BadParameter, match=r"reaches db on port 3122 only, not 80: leave the port out, or use 3122\."):
        router(WEB, DB).resolve(Target("db", 80))


def test_two_nodes_of_one_name() -> None:
    """A name that two nodes have is refused with both, never led to one of them."""
    twins = node(7, "twin", "10.0.0.7:3022"), status(node(8, "twin", "10.0.0.8:3122"), online=False)
    for port in (0, 22, 3022, 80):
        with pytest.raises(BadParameter) as refused:
            router(*twins).resolve(Target("twin", port))
        told = str(refused.value)
        assert told.startswith("2 nodes match twin")
        assert "use the UUID of the one you mean" in told
        assert f"twin {new_uuid(7)} 10.0.0.7:3022;" in told
        assert f"twin {new_uuid(8)} 10.0.0.8:3122 (offline)." in told
    assert router(*twins).resolve(Target("twin", 3122)).node.uuid == new_uuid(8)
    assert router(*twins).resolve(Target(new_uuid(7), 22)).node.uuid == new_uuid(7)


def test_same_name_on_many() -> None:
    """With hundreds of candidates the sentence stays readable."""
    crowd = [node(n, "crowd", f"10.0.1.{n}:3022") for n in range(1, 200)]
    with pytest.raises(BadParameter, match=r"199 nodes match crowd; .* and 191 more\."):
        router(*crowd).resolve(Target("crowd", 22))


def test_label_of_several() -> None:
    """A label that two nodes have is refused with both."""
    with pytest.raises(BadParameter, match=r"2 nodes match env=prod; .*: db .*; cache "):
        router(WEB, DB, CACHE).resolve(Target("env=prod", 22))


@pytest.mark.parametrize(
    "host", ["env=prod,role=web", "env=prod,x", "env=prod,", ",env=prod", "=,=", ",".join(["a=b"] * 9)]
)
def test_labels_that_no_node_has_together(host: str) -> None:
    """Of several labels a node has to have all."""
    with pytest.raises(NotFound):
        router(WEB, DB, CACHE).resolve(Target(host, 22))


def test_a_value_with_a_comma() -> None:
    """A label whose value has a comma in it is found as it is."""
    odd = node(4, "odd", "10.0.0.4:3022", labels={"role": "db,env=prod"})
    assert router(DB, odd).resolve(Target("role=db,env=prod", 22)).node.nodename == "odd"


def test_name_that_is_anothers_address() -> None:
    """A node that calls itself by another one's public name makes it ambiguous; it does not take it over."""
    thief = node(9, "web.example.org", "10.0.0.9:3022")
    with pytest.raises(BadParameter, match="2 nodes match"):
        router(WEB, thief).resolve(Target("web.example.org", 22))
    uuid_thief = node(9, new_uuid(1), "10.0.0.9:3022")
    assert router(WEB, uuid_thief).resolve(Target(new_uuid(1), 22)).node.nodename == "web"


def test_other_cluster() -> None:
    """Another cluster's name is refused with this one's; this cluster's own is fine in any case of letters."""
    assert router(WEB).resolve(Target("web", 22, CLUSTER.upper())).node.nodename == "web"
    with pytest.raises(NotFound, match=r"does not know the cluster leaf; it serves example\.test"):
        router(WEB).resolve(Target("web", 22, "leaf"))


def test_says_how_old_it_is() -> None:
    """Who does not find a node while auth is away is told that the list is old, or not there yet."""
    now = 0.0
    directory = Directory(lambda: now)
    with pytest.raises(NotFound, match="has not yet received the list of nodes"):
        Router(directory, CLUSTER).resolve(Target("web"))
    directory.whole()
    directory.lost()
    now = 125.0
    with pytest.raises(NotFound, match="list is 2m5s old"):
        Router(directory, CLUSTER).resolve(Target("web"))


@pytest.mark.parametrize(
    ("text", "host", "port", "cluster"),
    [
        (b"proxy:web:22", "web", 22, ""),
        (b"proxy:web:", "web", 0, ""),
        (b"proxy:web", "web", 0, ""),
        (b"proxy:web:0@default@leaf", "web", 0, "leaf"),
        (b"proxy:web:3022@leaf", "web", 3022, "leaf"),
        (b"proxy:web@leaf", "web", 0, "leaf"),
        (b"proxy:mail=a@b:22@leaf", "mail=a@b", 22, "leaf"),
        (b"proxy:role=db:22", "role=db", 22, ""),
        (b"proxy:::1:22", "::1", 22, ""),
        (b"proxy:[fd00::1]:22@c", "fd00::1", 22, "c"),
    ],
)
def test_subsystem(text: bytes, host: str, port: int, cluster: str) -> None:
    """The subsystem's name is read as OpenSSH's and Teleport 4.2's clients write it."""
    assert parse_subsystem(text) == Target(host, port, cluster)


@pytest.mark.parametrize(
    "text",
    [b"", b"sftp", b"proxy:", b"proxy", b"proxy:web:99999", b"proxy:\xff:22", b"proxy:a\nb:22", b"proxy:" + b"a" * 999],
)
def test_no_subsystem(text: bytes) -> None:
    """What is no target is refused, not guessed at."""
    with pytest.raises(BadParameter):
        parse_subsystem(text)


@given(st.binary(max_size=80))
def test_hostile_names(raw: bytes) -> None:
    """Whatever bytes a user sends as a name, the answer is one printable line of a known kind."""
    for make in (lambda: parse_subsystem(b"proxy:" + raw), lambda: Target(parse_host(raw), 22)):
        told = ""
        try:
            router(WEB).resolve(make())
        except TeleconchError as error:
            told = str(error)
        assert told.isprintable()


def test_brief() -> None:
    """Names from a peer cannot steer a terminal or split a log line."""
    assert brief("a\x1b[2J\r\nb\u202e") == "a?[2J??b?"
    assert len(brief("x" * 9999)) == 255
