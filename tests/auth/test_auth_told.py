"""What the auth server decides is told once, by an event that says who asked, from where, and why it was refused."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import defer

from teleconch.audit.emitter import Memory
from teleconch.audit.events import (
    APIDenied,
    CertRenew,
    JoinTokenCreate,
    JoinTokenDelete,
    NodeJoin,
    NodeLeave,
    UserCreate,
    UserDelete,
    UserLogin,
    UserReset,
    UserSignup,
    UserUnlock,
    UserUpdate,
)
from teleconch.errors import TeleconchError
from teleconch.resources.host import RenewRequest
from teleconch.resources.secret import Secret
from teleconch.resources.user import User
from tests.worlds.auth import PASSWORD, STATIC, Cluster, code, new_uuid
from tests.worlds.logs import add_observer, remove_observer

HERE, NEXT_DOOR, ELSEWHERE = "2001:db8::7", "2001:db8::8", "2001:db8:1::7"


@pytest.fixture
def told(cluster: Cluster) -> list[Any]:
    """The events of the cluster's auth server, from its start on."""
    emitter = Memory()
    cluster.server = cluster.another(emitter=emitter)
    pytest_twisted.blockon(defer.ensureDeferred(cluster.server.start()))
    emitter.events.clear()
    return emitter.events


async def failed(awaitable: Awaitable[object]) -> str:
    with pytest.raises(TeleconchError) as caught:
        await awaitable
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_logins(cluster: Cluster, told: list[Any]) -> None:
    """Each login makes one event, with the very address that it came from and the reason that the user is not told; no
    line of the log says it again. Addresses of one IPv6 network are one source to lock-outs all the same."""
    secret = await cluster.signed_up()
    told.clear()
    lines: list[Any] = []
    add_observer(lines.append)
    try:
        otp = code(secret, cluster.clock.seconds())
        await cluster.server.login(cluster.login_request(otp=otp, source=HERE))
        await failed(cluster.server.login(cluster.login_request("nobody", otp=otp, source=HERE)))
        await failed(cluster.server.login(cluster.login_request(otp=otp, source=HERE)))
        await failed(cluster.server.login(cluster.login_request(source=HERE, ttl=float("nan"))))
        for _ in range(5):
            await failed(cluster.server.login(cluster.login_request(password="wrong", source=HERE)))
        cluster.clock.advance(30)
        otp = code(secret, cluster.clock.seconds())
        await failed(cluster.server.login(cluster.login_request(otp=otp, source=NEXT_DOOR)))
        await cluster.server.login(cluster.login_request(otp=otp, source=ELSEWHERE))
    finally:
        remove_observer(lines.append)
    assert [(event.user, event.addr_remote, event.error) for event in told] == [
        ("alice", HERE, ""),
        ("nobody", HERE, "no such user"),
        ("alice", HERE, "wrong or used code"),
        ("alice", HERE, "The certificate's life (--ttl) must be a time such as 8h."),
        *[("alice", HERE, "wrong password")] * 4,
        ("alice", HERE, "too many wrong answers were given"),
        ("alice", NEXT_DOOR, "too many wrong answers were given"),
        ("alice", ELSEWHERE, ""),
    ]
    assert {type(event) for event in told} == {UserLogin}
    assert lines == []


@pytest_twisted.ensureDeferred
async def test_sign_ups(cluster: Cluster, told: list[Any]) -> None:
    """A sign-up link that leads to nobody, a wrong code and a sign-up are one event each, with the address."""
    token = await cluster.server.create_user(User("alice", traits={"logins": ("root",)}), 3600)
    signup = await cluster.server.start_signup(token.value, HERE)
    right = code(signup.otp_secret, cluster.clock.seconds())
    await failed(cluster.server.start_signup(Secret("never made"), ELSEWHERE))
    await failed(cluster.server.finish_signup(Secret("never made"), Secret(PASSWORD), right, ELSEWHERE))
    await failed(cluster.server.finish_signup(token.value, Secret("short"), right, HERE))
    await failed(cluster.server.finish_signup(token.value, Secret(PASSWORD), "nonsense", HERE))
    await cluster.server.finish_signup(token.value, Secret(PASSWORD), right, HERE)
    assert told.pop(0) == UserCreate(user="alice", logins=("root",))
    assert [(event.user, event.addr_remote, event.success) for event in told] == [
        ("", ELSEWHERE, False),
        ("", ELSEWHERE, False),
        ("alice", HERE, False),
        ("alice", HERE, False),
        ("alice", HERE, True),
    ]
    assert {type(event) for event in told} == {UserSignup}
    everything = repr([event.fields() for event in told])
    for secret in (token.value.reveal(), signup.otp_secret.reveal(), PASSWORD, "never made"):
        assert secret not in everything


@pytest_twisted.ensureDeferred
async def test_administration(cluster: Cluster, told: list[Any]) -> None:
    """What an administrator does is told when it is stored, and not where it was refused."""
    alice = User("alice", traits={"logins": ("root",)})
    await cluster.server.create_user(alice, 3600)
    await failed(cluster.server.create_user(alice, 3600))
    await cluster.server.upsert_user(evolve(alice, traits={"logins": ("alice",)}), True)
    await failed(cluster.server.upsert_user(alice, False))
    await cluster.server.reset_user("alice", 3600)
    await cluster.server.unlock_user("alice")
    await cluster.server.delete_user("alice")
    for act in (cluster.server.delete_user, cluster.server.unlock_user):
        await failed(act("alice"))
    token = await cluster.server.create_token(("node", "proxy"), 60, None)
    await cluster.server.delete_token(token.value)
    await failed(cluster.server.delete_token(token.value))
    assert told == [
        UserCreate(user="alice", logins=("root",)),
        UserUpdate(user="alice", logins=("alice",)),
        UserReset(user="alice"),
        UserUnlock(user="alice"),
        UserDelete(user="alice"),
        JoinTokenCreate(roles=("node", "proxy"), expires=token.expires),
        JoinTokenDelete(),
    ]
    assert token.value.reveal() not in repr(told)


@pytest_twisted.ensureDeferred
async def test_hosts(cluster: Cluster, told: list[Any]) -> None:
    """Joins, renewals and pings: an event for each join and renewal, done or not; of pings only if refused."""
    request = cluster.request()
    identity = evolve(cluster.identity(request.uuid), address="192.0.2.7")
    await cluster.server.join(request, identity)
    await cluster.server.heartbeat(cluster.node(request.uuid), "one", identity)
    other = new_uuid()
    await failed(cluster.server.heartbeat(cluster.node(other), "one", identity))
    renewal = RenewRequest(request.ssh_public_key, request.tls_public_key, cluster.clock.seconds(), "0.1.0")
    await cluster.server.renew(renewal, identity)
    await cluster.server.delete_node(request.uuid)
    await failed(cluster.server.delete_node(request.uuid))
    sentence = await failed(cluster.server.renew(renewal, identity))
    await failed(cluster.server.join(evolve(request, token=Secret("wrong token")), identity))
    await cluster.server.forget_host(request.uuid, "node")
    refused_ping, refused_join = told[1], told[-1]
    assert isinstance(refused_ping, APIDenied)
    assert isinstance(refused_join, NodeJoin)
    assert (refused_ping.method, refused_ping.server_id, refused_ping.addr_remote) == (
        "heartbeat", request.uuid, "192.0.2.7",
    )  # fmt: skip
    assert "join token" in refused_join.error
    where = {"server_id": request.uuid, "role": "node", "addr_remote": "192.0.2.7"}
    assert told == [
        NodeJoin(nodename="web1", **where),
        refused_ping,
        CertRenew(**where),
        NodeLeave(server_id=request.uuid),
        CertRenew(error=sentence, **where),
        refused_join,
    ]
    assert STATIC not in repr(told)
    assert "wrong token" not in repr(told)
