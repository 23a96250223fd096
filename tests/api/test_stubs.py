"""A noun of the API costs its declaration: the client and the checks are made from it."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
import pytest_twisted

from teleconch.api.codec import Method, decode_arguments, decode_result, encode_arguments, encode_result
from teleconch.api.stubs import stub
from teleconch.audit.emitter import Memory
from teleconch.auth import authorized
from teleconch.auth.authorized import Rule, checked
from teleconch.errors import AccessDenied
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.node import Node

test = pytest_twisted.ensureDeferred


class Locks(Protocol):
    """A noun of tomorrow."""

    async def lock(self, node: Node, reason: str, hours: float = 1.0) -> tuple[str, ...]:
        """Lock a node."""

    async def unlock(self, reason: str) -> None:
        """And free it."""


class InOneProcess:
    """What the wire does with a call, without a wire."""

    def __init__(self, server: object) -> None:
        self.server = server

    async def call(self, method: Method, arguments: tuple[Any, ...]) -> Any:
        values = decode_arguments(method, encode_arguments(method, arguments))
        return decode_result(method, encode_result(method, await getattr(self.server, method.name)(*values)))


class Server:
    """The use cases of that noun, and of no other."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def check_standing(self, identity: ApiIdentity) -> None:
        self.calls.append(("standing", identity.name))

    async def lock(self, node: Node, reason: str, hours: float) -> tuple[str, ...]:
        self.calls.append((node, reason, hours))
        return reason, str(hours)

    async def unlock(self, reason: str, caller: ApiIdentity) -> None:
        self.calls.append((reason, caller.name))


NODE = Node("6c6b7a3e-8e5c-4f6c-9d3c-0123456789ab", "web1", "example.com", "192.0.2.7:3022")


@test
async def test_a_new_noun_crosses_the_wire() -> None:
    """Arguments by place, by name and by default come out in the order of the declaration; others are a TypeError."""
    server = Server()
    locks: Locks = stub(Locks, InOneProcess(server).call)
    assert await locks.lock(NODE, "maintenance", 2.0) == ("maintenance", "2.0")
    assert await locks.lock(hours=3.0, node=NODE, reason="later") == ("later", "3.0")
    assert await locks.lock(NODE, "short") == ("short", "1.0")
    assert server.calls == [(NODE, "maintenance", 2.0), (NODE, "later", 3.0), (NODE, "short", 1.0)]
    wrong: Any = locks
    for call in (lambda: wrong.lock(NODE), lambda: wrong.unlock("a", "b"), lambda: wrong.unlock(why="a")):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(AttributeError):
        _ = wrong.steal
    assert len(server.calls) == 3


@test
async def test_a_new_noun_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of a new noun is refused until it has a rule; then it is checked as every other."""
    server, admin = Server(), ApiIdentity("host", "h", ("admin",), "example.com", 60.0)
    locks = checked(Locks, server, admin, lambda: 0.0, Memory())
    with pytest.raises(AccessDenied, match="'lock' is not for host h"):
        await locks.lock(NODE, "maintenance", 2.0)
    assert server.calls == []
    rules = {"lock": Rule(frozenset(("admin",))), "unlock": Rule(frozenset(("admin",)), in_person=True)}
    monkeypatch.setattr(authorized, "RULES", rules)
    await locks.lock(NODE, "maintenance", 2.0)
    await locks.unlock("done")
    assert server.calls == [("standing", "h"), (NODE, "maintenance", 2.0), ("done", "h")]
    user = checked(Locks, server, ApiIdentity("user", "alice", ("user",), "example.com", 60.0), lambda: 0.0, Memory())
    with pytest.raises(AccessDenied, match="not for user alice"):
        await user.unlock("please")
