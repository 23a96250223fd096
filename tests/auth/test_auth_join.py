"""Join and renew: every refusal is its own sentence, and has written nothing."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import DeferredList

from teleconch import defaults
from teleconch.backend.interface import Backend
from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
from teleconch.ca.ssh import certificate_summary, check_host_certificate
from teleconch.ca.tls import identity_of
from teleconch.errors import AccessDenied, AlreadyJoined, BadParameter, ClockSkew, NotFound
from teleconch.resources.host import RenewRequest
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.secret import Secret
from tests.worlds.auth import CLUSTER, STATIC, Cluster, new_uuid
from tests.worlds.waiting import spawn


async def refused(cluster: Cluster, awaitable: Awaitable[object], kind: Any) -> str:
    """The sentence of a refusal that wrote nothing."""
    before = await cluster.stored()
    with pytest.raises(kind) as caught:
        await awaitable
    assert await cluster.stored() == before
    assert type(caught.value) is kind
    return str(caught.value)


def tls_names(pem: str) -> set[str]:
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in names.value}


@pytest_twisted.ensureDeferred
async def test_a_host_joins(cluster: Cluster) -> None:
    """A node with a valid token gets certificates with every name by which it is reached. They end when it has to have
    pinged; a renewal makes that 30 days."""
    request = cluster.request()
    certs = await cluster.server.join(request)
    now = cluster.clock.seconds()
    assert (certs.cluster, certs.valid_after, certs.valid_before) == (CLUSTER, now - 60, now + 6 * 3600)
    names = {request.uuid, f"{request.uuid}.{CLUSTER}", "web1", f"web1.{CLUSTER}", "192.0.2.7"}
    summary = certificate_summary(public_blob(certs.ssh_cert))
    assert (set(summary.principals), summary.key_id) == (names, request.uuid)
    assert (summary.valid_after, summary.valid_before) == (certs.valid_after, certs.valid_before)
    assert tls_names(certs.tls_cert) == names
    for name in names:
        check_host_certificate(public_blob(certs.ssh_cert), authorities=certs.authorities, host=name, now=now)
    der = x509.load_pem_x509_certificate(certs.tls_cert.encode()).public_bytes(Encoding.DER)
    identity = identity_of(der, certs.authorities, now)
    assert (identity.kind, identity.name, identity.roles) == ("host", request.uuid, ("node",))


@pytest_twisted.ensureDeferred
async def test_an_auth_server_that_joins_gets_the_api_name(cluster: Cluster) -> None:
    """Hosts find a second auth server under the name that they check; nobody else has it in a certificate."""
    token = await cluster.server.create_token(("auth", "proxy"), 60, None)
    for role in ("auth", "proxy"):
        certs = await cluster.server.join(cluster.request(role=role, token=token.value))
        assert (defaults.API_SERVER_NAME in tls_names(certs.tls_cert)) == (role == "auth")


@pytest_twisted.ensureDeferred
async def test_tokens_that_do_not_fit_are_told_apart(cluster: Cluster) -> None:
    """Unknown, expired, for another role: each says what to do."""
    for value in ("never made", "", "x" * 1000, "lone \ud800", STATIC + "x", STATIC[:-1], STATIC.upper()):
        told = await refused(cluster, cluster.server.join(cluster.request(token=Secret(value))), AccessDenied)
        assert "not known" in told
        assert "tctl nodes add" in told
    told = await refused(cluster, cluster.server.join(cluster.request(role="proxy")), AccessDenied)
    assert "join as node, not as proxy" in told
    assert "tctl nodes add --roles=proxy" in told
    token = await cluster.server.create_token(("node",), 60, None)
    cluster.clock.advance(60 + 125)
    told = await refused(cluster, cluster.server.join(cluster.request(token=token.value)), AccessDenied)
    assert "expired 2m5s ago" in told
    assert "tctl nodes add" in told


@pytest_twisted.ensureDeferred
async def test_a_dynamic_token_joins_its_roles_until_it_ends(cluster: Cluster) -> None:
    """`tctl nodes add --roles=node,proxy --ttl=1m` is good for both roles, for a minute."""
    token = await cluster.server.create_token(("node", "proxy"), 60, None)
    await cluster.server.join(cluster.request(token=token.value))
    cluster.clock.advance(59.9)
    await cluster.server.join(cluster.request(token=token.value, role="proxy"))
    assert "as node or proxy, not as auth" in await refused(
        cluster, cluster.server.join(cluster.request(token=token.value, role="auth")), AccessDenied
    )
    cluster.clock.advance(0.1)
    await refused(cluster, cluster.server.join(cluster.request(token=token.value)), AccessDenied)


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_off_is_told_by_how_much(cluster: Cluster) -> None:
    """A machine whose clock is wrong hears so, rather than "access denied" later."""
    now = cluster.clock.seconds()
    for off, words in ((61, "1m1s ahead of"), (-61, "1m1s behind"), (7200, "2h ahead of"), (-now, "behind")):
        told = await refused(cluster, cluster.server.join(cluster.request(time=now + off)), ClockSkew)
        assert words in told
        assert "set the clock" in told
    for off in (60, -60):
        await cluster.server.join(cluster.request(time=now + off))
    for time in (math.nan, math.inf):
        await refused(cluster, cluster.server.join(cluster.request(time=time)), BadParameter)


@pytest_twisted.ensureDeferred
async def test_a_clone_and_a_reinstalled_machine_hear_what_to_do(cluster: Cluster) -> None:
    """A second machine with a UUID that is taken is refused with the name of the first, and harms it in nothing."""
    first = cluster.request()
    await cluster.server.join(first)
    clone = cluster.request(uuid=first.uuid, nodename="web2")
    told = await refused(cluster, cluster.server.join(clone), AlreadyJoined)
    for words in ("'web1'", "not seen in the last 10m", "delete the file host_uuid", f"tctl rm node/{first.uuid}"):
        assert words in told
    await cluster.ping(first.uuid)
    cluster.clock.advance(90)
    assert "last seen 1m30s ago" in await refused(
        cluster, cluster.server.join(cluster.request(uuid=first.uuid)), AlreadyJoined
    )
    for changes in ({"ssh_public_key": clone.ssh_public_key}, {"tls_public_key": clone.tls_public_key}):
        changed = cluster.request(
            **{
                "uuid": first.uuid,
                "ssh_public_key": first.ssh_public_key,
                "tls_public_key": first.tls_public_key,
                **changes,
            }
        )
        await refused(cluster, cluster.server.join(changed), AlreadyJoined)
    await cluster.server.delete_node(first.uuid)
    await cluster.server.join(cluster.request(uuid=first.uuid, nodename="web2"))


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_may_be_asked_for_again(cluster: Cluster) -> None:
    """A node whose connection broke during the join simply tries again, with the same keys."""
    from attrs import evolve

    request = cluster.request()
    await cluster.server.join(request)
    before = await cluster.stored()
    cluster.clock.advance(5)
    again = evolve(
        request, time=cluster.clock.seconds(), ssh_public_key=request.ssh_public_key + " a comment", version="0.2.0"
    )
    certs = await cluster.server.join(again)
    assert certs.valid_after == cluster.clock.seconds() - 60
    assert await cluster.stored() == before
    told = await refused(cluster, cluster.server.join(evolve(again, nodename="proxy1")), AlreadyJoined)
    assert "'web1' with other names" in told
    assert f"tctl rm node/{request.uuid}" in told


@pytest_twisted.ensureDeferred
async def test_of_two_machines_at_once_one_joins(cluster: Cluster) -> None:
    """Two clones that start together: one is in, the other hears so."""
    uuid = new_uuid()
    results = await DeferredList(
        [spawn(cluster.server.join(cluster.request(uuid=uuid))) for _ in range(5)], consumeErrors=True
    )
    assert sum(success for success, _ in results) == 1
    assert all(result.check(AlreadyJoined) for success, result in results if not success)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_a_host_is_refused_first(cluster: Cluster) -> None:
    """Names with which others could be impersonated or certificates confused never get into one (CVE-2021-41393)."""
    other = new_uuid()
    for changes in (
        {"uuid": "not-a-uuid"},
        {"uuid": other.upper()},
        {"uuid": ""},
        {"nodename": ""},
        {"nodename": "web1,web2"},
        {"nodename": "web 1"},
        {"nodename": "web1\n"},
        {"nodename": "*"},
        {"nodename": "x" * 250},
        {"nodename": other},
        {"nodename": other.replace("-", "")},
        {"nodename": f"{other}.{CLUSTER}"},
        {"nodename": defaults.API_SERVER_NAME},
        {"nodename": "Teleport.Cluster.LOCAL"},
        {"addresses": (defaults.API_SERVER_NAME,)},
        {"addresses": (defaults.API_SERVER_NAME + ".",)},
        {"addresses": (other.upper(),)},
        {"addresses": ("192.0.2.1:22",)},
        {"addresses": ("*.example.com",)},
        {"addresses": ("",)},
        {"addresses": tuple(f"a{n}" for n in range(34))},
        {"role": "admin"},
        {"role": "signup"},
        {"role": ""},
        {"version": "x" * 65},
        {"version": "1\x1b[2J"},
        {"ssh_public_key": "ssh-ed25519 AAAA"},
        {"ssh_public_key": "x" * 20_000},
        {"tls_public_key": new_ssh_key()[1]},
    ):
        await refused(cluster, cluster.server.join(cluster.request(**changes)), BadParameter)


@pytest_twisted.ensureDeferred
async def test_the_api_name_cannot_be_composed(state_backend: Backend, cluster: Cluster) -> None:
    """In a cluster named cluster.local no node is called teleport: its certificate would be an auth server's."""
    from teleconch.backend.memory import MemoryBackend

    cluster.backend = MemoryBackend(cluster.clock.seconds)
    server = cluster.another(cluster="cluster.local")
    await server.start()
    await refused(cluster, server.join(cluster.request(nodename="teleport")), BadParameter)
    await server.join(cluster.request(nodename="web1"))
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_host_certificate_is_no_host_key(cluster: Cluster) -> None:
    """A certificate offered as the public key to sign is refused."""
    certs = await cluster.server.join(cluster.request())
    await refused(cluster, cluster.server.join(cluster.request(ssh_public_key=certs.ssh_cert)), BadParameter)


# Renew


@pytest_twisted.ensureDeferred
async def test_a_host_renews_as_whom_it_joined(cluster: Cluster) -> None:
    """New keys, 30 more days, and the recorded names, whatever the host may call itself by now."""
    uuid = await cluster.joined()
    await cluster.ping(uuid)
    cluster.clock.advance(15 * 86400)
    ssh, tls = new_ssh_key()[1], new_tls_key()[1]
    request = RenewRequest(ssh, tls, cluster.clock.seconds() + 500, "0.2.0")
    certs = await cluster.server.renew(request, cluster.identity(uuid))
    assert certs.valid_before == cluster.clock.seconds() + 30 * 86400
    names = {uuid, f"{uuid}.{CLUSTER}", "web1", f"web1.{CLUSTER}", "192.0.2.7"}
    assert set(certificate_summary(public_blob(certs.ssh_cert)).principals) == names
    rejoin = cluster.request(uuid=uuid, ssh_public_key=ssh, tls_public_key=tls)
    await cluster.server.join(rejoin)  # the renewed keys are the ones on record now


@pytest_twisted.ensureDeferred
async def test_a_removed_host_is_not_renewed(cluster: Cluster) -> None:
    """After `tctl rm node/UUID` a host cannot prolong its membership, and hears how to come back."""
    uuid = await cluster.joined()
    request = RenewRequest(new_ssh_key()[1], new_tls_key()[1], cluster.clock.seconds(), "0.1.0")
    await cluster.server.delete_node(uuid)
    told = await refused(cluster, cluster.server.renew(request, cluster.identity(uuid)), AccessDenied)
    assert "removed" in told
    assert "join token" in told


@pytest_twisted.ensureDeferred
async def test_a_host_that_is_removed_while_it_renews_stays_removed(cluster: Cluster) -> None:
    """A renewal that was under way does not bring a removed host back."""
    uuid = await cluster.joined()
    request = RenewRequest(new_ssh_key()[1], new_tls_key()[1], cluster.clock.seconds(), "0.1.0")
    cluster.meanwhile(lambda: cluster.server.delete_node(uuid))
    with pytest.raises(AccessDenied):
        await cluster.server.renew(request, cluster.identity(uuid))
    assert not [key for key in await cluster.stored() if uuid in key]


@pytest_twisted.ensureDeferred
async def test_only_members_renew_and_only_in_their_role(cluster: Cluster) -> None:
    """No identity but a host's own in its own role gets a host certificate."""
    uuid = await cluster.joined()
    request = RenewRequest(new_ssh_key()[1], new_tls_key()[1], cluster.clock.seconds(), "0.1.0")
    for identity in (
        ANONYMOUS,
        ApiIdentity("user", uuid, ("node",), CLUSTER, 9e9),
        cluster.identity(uuid, "proxy"),
        cluster.identity(uuid, "auth"),
        cluster.identity(uuid, "admin"),
        cluster.identity(uuid, "node", "proxy"),
        ApiIdentity("host", uuid, (), CLUSTER, 9e9),
        cluster.identity(new_uuid()),
    ):
        await refused(cluster, cluster.server.renew(request, identity), AccessDenied)
    await refused(cluster, cluster.server.renew(request, cluster.identity("no-uuid")), BadParameter)
    bad = RenewRequest("ssh-ed25519 AAAA", new_tls_key()[1], cluster.clock.seconds(), "0.1.0")
    await refused(cluster, cluster.server.renew(bad, cluster.identity(uuid)), BadParameter)


# tctl nodes add, tctl tokens


@pytest_twisted.ensureDeferred
async def test_tokens_are_made_listed_and_removed(cluster: Cluster) -> None:
    """`tctl tokens add|ls|rm` and `tctl nodes add` agree with each other."""
    made = await cluster.server.create_token(("node", "proxy"), 3600, None)
    assert len(made.value.reveal()) == 32
    assert int(made.value.reveal(), 16)
    own = await cluster.server.create_token(("auth",), 60, Secret("my-own_token.1"))
    assert own.expires == cluster.clock.seconds() + 60
    listed = await cluster.server.list_tokens()
    assert [(token.value.reveal(), token.roles, token.static) for token in listed] == [
        (STATIC, ("node",), True),
        ("my-own_token.1", ("auth",), False),
        (made.value.reveal(), ("node", "proxy"), False),
    ]
    await cluster.server.delete_token(made.value)
    await refused(cluster, cluster.server.join(cluster.request(token=made.value)), AccessDenied)
    assert "tctl tokens ls" in await refused(cluster, cluster.server.delete_token(made.value), NotFound)
    cluster.clock.advance(60)
    await refused(cluster, cluster.server.delete_token(own.value), NotFound)
    assert len(await cluster.server.list_tokens()) == 1
    told = await refused(cluster, cluster.server.delete_token(Secret(STATIC)), BadParameter)
    assert "auth_service.tokens" in told


@pytest_twisted.ensureDeferred
async def test_tokens_have_limits(cluster: Cluster) -> None:
    """No token lives for ever, none is for nothing, none can be mistaken for a shell's words (CVE-2022-36633)."""
    for roles, ttl, value in (
        (("node",), 48 * 3600 + 1, None),
        (("node",), 0, None),
        (("node",), -1, None),
        (("node",), math.nan, None),
        (("node",), math.inf, None),
        ((), 60, None),
        (("admin",), 60, None),
        (("signup",), 60, None),
        (("node", "user"), 60, None),
        (("node",), 60, "x" * 256),
        (("node",), 60, ""),
        (("node",), 60, "$(reboot)"),
        (("node",), 60, "a b"),
        (("node",), 60, "a\n"),
    ):
        awaitable = cluster.server.create_token(roles, ttl, None if value is None else Secret(value))
        await refused(cluster, awaitable, BadParameter)


@pytest_twisted.ensureDeferred
async def test_a_token_is_not_made_twice(cluster: Cluster) -> None:
    """A token that is in use does not get other roles behind its user's back; an expired value may be used again."""
    from teleconch.errors import AlreadyExists

    await cluster.server.create_token(("node",), 60, Secret("mine"))
    for value in ("mine", STATIC):
        await refused(cluster, cluster.server.create_token(("proxy",), 60, Secret(value)), AlreadyExists)
    cluster.clock.advance(60)
    results = await DeferredList(
        [spawn(cluster.server.create_token(("proxy",), 60, Secret("mine"))) for _ in range(3)], consumeErrors=True
    )
    assert sum(success for success, _ in results) == 1
    await cluster.server.join(cluster.request(token=Secret("mine"), role="proxy"))


@pytest_twisted.ensureDeferred
async def test_sign_up_tokens_are_listed_and_removed_by_their_hash(cluster: Cluster) -> None:
    """`tctl tokens ls` shows open sign-ups without giving the link away; `tctl tokens rm` closes one."""
    from teleconch.resources.user import User

    tokens = [await cluster.server.create_user(User(name), 3600) for name in ("alice", "bob")]
    listed = [token for token in await cluster.server.list_tokens() if token.roles == ("signup",)]
    assert sorted(token.user for token in listed) == ["alice", "bob"]
    (alices,) = [token for token in listed if token.user == "alice"]
    assert alices.value.reveal() != tokens[0].value.reveal()
    assert alices.expires == tokens[0].expires
    await refused(cluster, cluster.server.start_signup(alices.value), AccessDenied)
    await cluster.server.delete_token(alices.value)
    await cluster.server.delete_token(tokens[1].value)
    for token in tokens:
        await refused(cluster, cluster.server.start_signup(token.value), AccessDenied)
        await refused(cluster, cluster.server.delete_token(token.value), NotFound)
    assert len(await cluster.server.list_tokens()) == 1
    assert not [key for key in await cluster.stored() if key.startswith("/signups/")]


@pytest_twisted.ensureDeferred
async def test_a_sign_up_token_joins_no_host(cluster: Cluster) -> None:
    """A link for a person is worth nothing to a machine, and the reverse."""
    from teleconch.resources.user import User

    signup = await cluster.server.create_user(User("alice"), 60)
    await refused(cluster, cluster.server.join(cluster.request(token=signup.value)), AccessDenied)
    await refused(cluster, cluster.server.start_signup(Secret(STATIC)), AccessDenied)
    join = await cluster.server.create_token(("node",), 60, None)
    await refused(cluster, cluster.server.start_signup(join.value), AccessDenied)
