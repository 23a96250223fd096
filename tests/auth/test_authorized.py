"""Who may call what: one table, walked against the API's interface."""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Callable
from typing import Any, cast

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.task import Clock

from teleconch.api import interface
from teleconch.api.codec import METHODS
from teleconch.api.interface import AuthAPI
from teleconch.api.perspectives import PERSPECTIVES, methods_of
from teleconch.audit.emitter import Memory
from teleconch.audit.events import APIDenied
from teleconch.auth.authorized import RULES, WATCHES, checked
from teleconch.auth.settings import AuthSettings
from teleconch.backend.memory import MemoryBackend
from teleconch.errors import AccessDenied
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.kind import KINDS, NODES, Kind
from teleconch.resources.node import Node
from teleconch.service.auth import auth_server

test = pytest_twisted.ensureDeferred
NOW = 1_700_000_000.0
UUID = str(uuid.uuid4())


def host(*roles: str) -> ApiIdentity:
    return ApiIdentity("host", UUID, roles, "example.com", NOW + 60)


USER = ApiIdentity("user", "alice", ("user",), "example.com", NOW + 60)
WHO = {
    "anonymous": ANONYMOUS,
    "node": host("node"),
    "proxy": host("proxy"),
    "user": USER,
    "admin": host("admin"),
}
MAY = {
    "anonymous": {"join"},
    "node": {
        "join status authorities renew heartbeat goodbye list_nodes get_node watch",
    },
    "proxy": {
        "join status authorities renew heartbeat goodbye list_nodes get_node watch login start_signup finish_signup",
    },
    "user": {"status authorities list_nodes get_node"},
    "admin": {
        "status authorities list_nodes get_node watch delete_node create_token list_tokens delete_token"
        " create_user upsert_user reset_user unlock_user get_user list_users list_lockouts delete_user sign_user"
        " sign_host",
    },
}
IN_PERSON = {"join", "renew", "heartbeat", "goodbye"}
NODE = Node(UUID, "web1", "example.com", "192.0.2.7:3022")


class Reached:
    """Stands where the auth server stands, and tells what reached it. Not a fake of it: nothing is answered."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.standing: list[Any] = []
        self.removed = False

    async def check_standing(self, identity: ApiIdentity) -> None:
        self.standing.append(identity)
        if self.removed:
            raise AccessDenied("Removed.")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any) -> None:
            self.calls.append((name, arguments))

        return call


def arguments_of(method: str, role: str = "node") -> list[Any]:
    """Something for every parameter; what is checked in it is right."""
    parameters = inspect.signature(vars(METHODS[method].noun)[method]).parameters
    return [
        {"node": evolve(NODE, roles=(role,)), "instance": "one", "kind": NODES}.get(name, name)
        for name in parameters
        if name != "self"
    ]


def walked() -> list[str]:
    return [
        name
        for noun in interface.NOUNS
        for name, each in vars(noun).items()
        if inspect.isfunction(each) and not name.startswith("_")
    ]


def new_server() -> Any:
    clock = Clock()
    settings = AuthSettings("example.com", "off")
    return auth_server(MemoryBackend(clock.seconds), settings, clock=clock, emitter=Memory())


def test_every_method_has_a_rule() -> None:
    """A method that is added to the API without a rule, a check or a use case does not go unnoticed."""
    assert sorted(RULES) == sorted(walked())
    server = new_server()
    api = checked(AuthAPI, server, USER, lambda: NOW, Memory())
    for name in walked():
        assert name in vars(type(api)), f"{name} is not checked"
        assert name in vars(server), f"{name} does nothing"
    public = {name for name in vars(type(api)) if not name.startswith("_")}
    assert public == set(walked())


def test_every_kind_that_is_watched_has_a_rule_and_a_source() -> None:
    """A kind of resource that is added does not go without a rule and a source; both are for known kinds only."""
    assert sorted(WATCHES) == sorted(KINDS)
    assert sorted(new_server().watches.kinds) == sorted(KINDS)
    assert RULES["watch"].who == frozenset().union(*WATCHES.values())


@test
async def test_each_kind_is_watched_by_its_own() -> None:
    """Whoever may watch one kind may not watch every other; a kind without a rule is watched by nobody."""
    server = Reached()
    for who, identity in WHO.items():
        api = checked(AuthAPI, server, identity, lambda: NOW, Memory())
        with pytest.raises(AccessDenied, match=r"'watch locks' is not for|'watch' is not for"):
            await api.watch(Kind("locks", str), cast("Any", object()))
        if who in WATCHES["nodes"]:
            await api.watch(NODES, cast("Any", object()))
    assert {arguments[0] for _, arguments in server.calls} == {NODES}


def test_signatures() -> None:
    """The checked API takes what the interface says; the server takes the caller last where a host speaks."""
    server = new_server()
    api = checked(AuthAPI, server, USER, lambda: NOW, Memory())
    for noun, name in ((noun, name) for noun in interface.NOUNS for name in walked() if name in vars(noun)):
        promised = list(inspect.signature(vars(noun)[name]).parameters)
        assert list(inspect.signature(vars(type(api))[name]).parameters) == promised
        served = list(inspect.signature(vars(server)[name]).parameters)
        if RULES[name].in_person:
            assert served.pop() == "caller"
        assert ["self", *served] == promised
    assert {name for name, rule in RULES.items() if rule.in_person} == IN_PERSON


def test_perspectives_show_what_rules_give() -> None:
    """Both gates agree: who may call a method sees it, and nobody sees a noun of which it may call nothing."""
    for who, identity in WHO.items():
        allowed = {name for name, rule in RULES.items() if who in rule.who}
        assert allowed == set(" ".join(MAY[who]).split())
        assert allowed <= methods_of(identity)
        for noun in PERSPECTIVES[who]:
            assert allowed & set(vars(noun)), f"{who} sees {noun.__name__} for nothing"


@pytest.mark.parametrize(("who", "method"), list(itertools.product(WHO, RULES)))
@test
async def test_matrix(who: str, method: str) -> None:
    """Each kind of caller reaches just its methods; everything else is denied before the server, and logged."""
    server, emitter = Reached(), Memory()
    api = checked(AuthAPI, server, evolve(WHO[who], address="192.0.2.1"), lambda: NOW, emitter)
    arguments = arguments_of(method, who)
    if method in set(" ".join(MAY[who]).split()):
        await getattr(api, method)(*arguments)
        passed = [*arguments, WHO[who]] if method in IN_PERSON else arguments
        assert (server.calls, emitter.events) == ([(method, tuple(passed))], [])
        return
    with pytest.raises(AccessDenied) as caught:
        await getattr(api, method)(*arguments)
    assert server.calls == []
    assert str(caught.value).endswith(".")
    told = APIDenied(
        method=method,
        user="alice" if who == "user" else "",
        server_id=UUID if who in ("node", "proxy", "admin") else "",
        addr_remote="192.0.2.1",
        error=str(caught.value),
    )
    assert emitter.events == [told]


@pytest.mark.parametrize(("who", "method"), [(who, name) for who in MAY for name in " ".join(MAY[who]).split()])
@test
async def test_who_was_removed(who: str, method: str) -> None:
    """A user or host that was removed may do nothing more, however long its certificate lives."""
    server = Reached()
    server.removed = True
    api = checked(AuthAPI, server, WHO[who], lambda: NOW, Memory())
    if method in IN_PERSON:  # the server decides, together with what is written
        await getattr(api, method)(*arguments_of(method, who))
        return
    with pytest.raises(AccessDenied, match="Removed"):
        await getattr(api, method)(*arguments_of(method, who))
    assert (server.calls, server.standing) == ([], [WHO[who]])


@pytest.mark.parametrize("who", [each for each in WHO if each != "anonymous"])
@test
async def test_expiry(who: str) -> None:
    """An identity that expires while its connection lives may do nothing more, and is told what to do."""
    clock, server = Clock(), Reached()
    clock.advance(NOW)
    api = checked(AuthAPI, server, WHO[who], clock.seconds, Memory())
    await api.status()
    clock.advance(60)
    for method in RULES:
        with pytest.raises(AccessDenied, match="not valid"):
            await getattr(api, method)(*arguments_of(method))
    endless = checked(AuthAPI, server, evolve(WHO[who], expires=None), clock.seconds, Memory())
    with pytest.raises(AccessDenied, match="not valid"):
        await endless.status()
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "identity",
    [
        host(),
        host("user"),
        host("Admin"),
        host("administrator"),
        host("anonymous"),
        evolve(USER, roles=("admin",)),
        evolve(USER, name="admin", roles=("node", "proxy", "auth")),
        ApiIdentity(cast("Any", "robot"), "x", ("admin",), "example.com", NOW + 60),
    ],
)
@test
async def test_roles_are_exact(identity: ApiIdentity) -> None:
    """Neither a host of an unknown role nor a user who bears a host's role gets more than a user."""
    api, server = checked(AuthAPI, Reached(), identity, lambda: NOW, Memory()), set()
    for method in RULES:
        try:
            await getattr(api, method)(*arguments_of(method))
        except AccessDenied:
            continue
        server.add(method)
    assert server == (set(" ".join(MAY["user"]).split()) if identity.kind == "user" else set())
