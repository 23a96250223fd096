"""Arguments and results as JSON: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any

import pytest
from attrs import fields, has, resolve_types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teleconch.api import interface
from teleconch.api.client import AuthClient
from teleconch.api.codec import (
    CHUNK,
    METHODS,
    REQUEST_MAX,
    decode_arguments,
    decode_changes,
    decode_result,
    encode_arguments,
    encode_changes,
    encode_result,
)
from teleconch.api.tls import newcomer_tls
from teleconch.errors import BadParameter, LimitExceeded
from teleconch.resources.kind import KINDS, NODES, Change, Kind
from teleconch.resources.node import Node, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.user import User
from tests.worlds.reactor import reactor

text = st.text(max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False)
name = st.from_regex(r"[A-Za-z0-9._@][A-Za-z0-9._@-]{0,20}", fullmatch=True)


def values(kind: Any) -> Any:
    """Values of one annotation."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Kind:
        return st.sampled_from(list(KINDS.values()))
    if kind is User:
        traits = st.dictionaries(text, st.lists(name, max_size=3).map(tuple), max_size=3)
        return st.builds(User, name=name, roles=st.lists(name, max_size=2).map(tuple), traits=traits)
    if has(kind):
        resolve_types(kind)
        return st.builds(kind, **{each.name: values(each.type) for each in fields(kind)})
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(text, values(arguments[1]), max_size=3)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if NoneType in arguments:
        return st.none() | values(arguments[0])
    return {
        str: text,
        float: number,
        int: st.integers(-(10**17), 10**17),
        bool: st.booleans(),
        Secret: text.map(Secret),
    }.get(kind, st.none())


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    """What a caller passes is what the server gets, and likewise its answer; labels in any language included."""
    for method in METHODS.values():
        arguments = tuple(data.draw(values(kind)) for _, kind in method.parameters)
        assert decode_arguments(method, encode_arguments(method, arguments)) == arguments
        if not method.streams:
            result = data.draw(values(method.result))
            assert decode_result(method, encode_result(method, result)) == result


@given(st.lists(st.builds(Change, key=text, value=st.none() | values(NodeStatus)), max_size=5).map(tuple))
@settings(max_examples=30, deadline=None)
def test_changes_round_trip(changes: tuple[Change[Any], ...]) -> None:
    """A watcher sees the changes that were told."""
    assert decode_changes(NODES, encode_changes(changes)) == changes


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[[]]", b'["ab"]', b'[["a"]]', b"[[1,null]]", b'[["a",1]]', b'[["a",{}]]']
)
def test_changes_that_are_none(data: bytes) -> None:
    """A watcher takes nothing but pairs of a key and a value of its kind."""
    with pytest.raises(BadParameter):
        decode_changes(NODES, data)


@pytest.mark.parametrize("data", [b'["locks"]', b"[null]", b'[["nodes"]]', b"[]"])
def test_kinds_that_are_none(data: bytes) -> None:
    """A kind of resource that is not known on this side cannot be asked for."""
    with pytest.raises(BadParameter):
        decode_arguments(METHODS["watch"], data)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("create_user", b""),
        ("create_user", b"nonsense"),
        ("create_user", b"\xff\xfe"),
        ("create_user", b"{}"),
        ("create_user", b"[]"),
        ("create_user", b"[1, 2]"),
        ("create_user", b'[{"name": "alice"}, "60"]'),
        ("create_user", b'[{"name": "alice"}, true]'),
        ("create_user", b'[{"name": "alice"}, 1e999]'),
        ("create_user", b'[{"name": "alice"}, NaN]'),
        ("create_user", b'[{"name": "alice"}, 1' + b"0" * 400 + b"]"),
        ("create_user", b'[{"name": "alice"}, 1, 2]'),
        ("create_user", b'[{"name": "alice", "root": true}, 60]'),
        ("create_user", b'[{"name": "alice", "roles": "admin"}, 60]'),
        ("create_user", b'[{"name": "alice", "traits": {"logins": "root"}}, 60]'),
        ("create_user", b'[{"name": "alice", "traits": {"logins": ["a,b"]}}, 60]'),
        ("create_user", b'[{"name": null}, 60]'),
        ("create_user", b'[{"name": "a\\ud800"}, 60]'),
        ("create_user", b'[{"name": "alice", "name": "bob"}, 60]'),
        ("create_user", b'[{"name": "alice", "traits": {"\\udc00": ["a"]}}, 60]'),
        ("create_user", b'\xef\xbb\xbf[{"name": "alice"}, 60]'),
        ("create_user", '[{"name": "alice"}, 60]'.encode("utf-16")),
        ("list_nodes", b'["", 9' + b"9" * 5000 + b"]"),
        ("create_user", b"[" * 30_000),
        ("create_user", b'[{"name": ' + b"[" * 300 + b"]" * 300 + b"}, 60]"),
        ("create_user", b'[{"name": "' + b"a" * REQUEST_MAX + b'"}, 60]'),
        ("list_nodes", b'["", 1.5]'),
        ("list_nodes", b'["", true]'),
        ("status", b"[1]"),
    ],
)
def test_strict(method: str, data: bytes) -> None:
    """A request with wrong types, unknown fields, depth or size is refused with a sentence, never with a traceback."""
    with pytest.raises(BadParameter) as caught:
        decode_arguments(METHODS[method], data)
    assert str(caught.value).endswith(".")


def test_secrets_are_not_quoted() -> None:
    """A password in a request of the wrong shape does not come back in the sentence, which is logged."""
    data = json.dumps([{"password": ["correct horse"], "user": "alice", "otp": "correct horse", "x": "correct horse"}])
    with pytest.raises(BadParameter) as caught:
        decode_arguments(METHODS["login"], data.encode())
    assert "horse" not in str(caught.value)


def test_answers_of_a_newer_server() -> None:
    """An old client understands a newer server's answer: it skips what it does not know."""
    assert decode_result(METHODS["get_user"], (b'{"name": "alice", "shoe": 43}',)) == User("alice")


def test_chunks() -> None:
    """Long answers cross in pieces that Perspective Broker takes."""
    users = tuple(User(f"user{number}", traits={"logins": ("root",) * 20}) for number in range(3000))
    chunks = encode_result(METHODS["list_users"], users)
    assert len(chunks) > 1
    assert max(map(len, chunks)) <= CHUNK
    assert decode_result(METHODS["list_users"], chunks) == users


def test_too_large_to_send() -> None:
    """A request beyond the limit is refused where it is made, with its size."""
    node = Node("u", "n", "c", "a", labels={"x": "y" * REQUEST_MAX})
    with pytest.raises(LimitExceeded, match="heartbeat is too large"):
        encode_arguments(METHODS["heartbeat"], (node, "one"))


@pytest.mark.parametrize("argument", ["a\udcff", "\ud800"])
def test_what_cannot_be_sent(argument: str) -> None:
    """`tctl users reset` with bytes that are not UTF-8 is told so, and shows no traceback."""
    with pytest.raises(BadParameter, match="not UTF-8"):
        encode_arguments(METHODS["get_user"], (argument,))


def test_every_noun_is_on_the_wire() -> None:
    """A method that is added to the interface crosses the wire, and the client has it."""
    client = type(AuthClient(reactor, ["127.0.0.1:1"], newcomer_tls(lambda chain: None)).api)
    for noun in interface.NOUNS:
        for method in [each for each in vars(noun) if not each.startswith("_")]:
            assert METHODS[method].noun is noun
            assert method in vars(client)
            promised = typing.get_type_hints(vars(noun)[method])
            assert typing.get_type_hints(vars(client)[method]) == promised


def test_statuses_keep_their_order() -> None:
    """Nodes come in the order in which the server listed them."""
    statuses = tuple(
        NodeStatus(Node(str(number), "n", "c", "a"), float(number), True, float(number)) for number in range(5)
    )
    changes = tuple(Change(each.node.uuid, each) for each in statuses)
    assert decode_changes(NODES, encode_changes(changes)) == changes
