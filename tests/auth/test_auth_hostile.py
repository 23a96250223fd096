"""Whatever a member sends within the wire's types, the auth server answers with a value or a kind of error."""

from __future__ import annotations

import typing
from collections.abc import Coroutine, Mapping
from types import NoneType
from typing import Any

import pytest
from attrs import fields, has, resolve_types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from teleconch.api.codec import METHODS, decode_arguments, encode_arguments, encode_result
from teleconch.backend.memory import MemoryBackend
from teleconch.errors import TeleconchError
from teleconch.resources.secret import Secret
from tests.worlds.auth import Cluster

ODD = [
    "",
    "\0",
    "a\nb",
    "../x",
    "a" * 300,
    "\u2028",
    "52e3e46a-372f-494b-bdd9-a1d25b9d6dec",
    "ssh-ed25519 AAAA",
    "node",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(ODD)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -1.0, 1.0, 3600.0, 1e18, 1e300])
WHOLE = st.integers(-(10**17), 10**17)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of one annotation, as the wire lets them through."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if has(kind):
        resolve_types(kind)
        return st.fixed_dictionaries({each.name: values(each.type) for each in fields(kind)})
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is Mapping:
        return st.dictionaries(TEXTS, values(arguments[1]), max_size=3)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if NoneType in arguments:
        return st.none() | values(arguments[0])
    return {str: TEXTS, float: NUMBERS, int: WHOLE, bool: st.booleans(), Secret: TEXTS}.get(kind, st.none())


CALLS = sorted(name for name, method in METHODS.items() if not method.streams)
OF_A_HOST = ("renew", "heartbeat", "goodbye")


@pytest.mark.parametrize("name", CALLS)
def test_any_arguments(name: str) -> None:
    """No call ends in anything but an answer that can be sent or a sentence."""
    import json

    clock = Clock()
    clock.advance(1_700_000_010)
    cluster = Cluster(
        clock, MemoryBackend(clock.seconds), in_thread=lambda function, *arguments: _done(function(*arguments))
    )
    _run(cluster.server.start())
    host = (cluster.identity("52e3e46a-372f-494b-bdd9-a1d25b9d6dec"),) if name in OF_A_HOST else ()
    method = METHODS[name]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*(values(kind) for _, kind in method.parameters)))
    def check(arguments: tuple[Any, ...]) -> None:
        try:
            given_arguments = decode_arguments(method, json.dumps(arguments).encode())
            answer = _run(getattr(cluster.server, name)(*given_arguments, *host))
        except TeleconchError as error:
            said = str(error)
        else:
            encode_result(method, answer)
            encode_arguments(method, given_arguments)
            return
        assert said
        said.encode()

    check()
    _run(cluster.server.stop())


def _done(value: bool) -> Deferred[Any]:
    later: Deferred[Any] = Deferred()
    later.callback(value)
    return later


def _run(coroutine: Coroutine[Any, Any, object]) -> Any:
    """The result of what needs no reactor."""
    results: list[Any] = []
    failures: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, failures.append)
    for failure in failures:
        failure.raiseException()
    return results[0]
