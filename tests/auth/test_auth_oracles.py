"""What a stranger could learn from how the auth server answers, beyond what it says."""

from __future__ import annotations

import json

import pytest_twisted
from twisted.internet.defer import DeferredList

from teleconch.auth.lockout import attempts_key
from tests.worlds.auth import PASSWORD, Cluster, code
from tests.worlds.waiting import spawn


@pytest_twisted.ensureDeferred
async def test_a_crowd_before_one_name_tells_nothing_of_another(cluster: Cluster) -> None:
    """Who keeps a name busy cannot tell by another name's answer whether there is that user."""
    await cluster.signed_up("alice")
    crowd = [
        spawn(cluster.server.login(cluster.login_request(busy, source="192.0.2.1")))
        for busy in ("alice", "nobody")
        for _ in range(40)
    ]
    asked = [
        spawn(cluster.server.login(cluster.login_request(name, "wrong", source="192.0.2.2")))
        for name in ("alice", "unknown")
    ]
    (_, alice), (_, nobody) = await DeferredList(asked, consumeErrors=True)
    assert (alice.type, alice.getErrorMessage()) == (nobody.type, nobody.getErrorMessage())
    await DeferredList(crowd, consumeErrors=True)


@pytest_twisted.ensureDeferred
async def test_what_is_stored_of_wrong_answers_is_alike(cluster: Cluster) -> None:
    """The same wrong answers leave the same records, at every step, whether or not there is such a user."""
    secret = await cluster.signed_up("alice")
    right = code(secret, cluster.clock.seconds())
    for source in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1"):
        for name in ("alice", "nobody"):
            revision = await cluster.backend.put("/test/mark", b"")
            request = cluster.login_request(name, "wrong password", right, source=source)
            (found,) = await DeferredList([spawn(cluster.server.login(request))], consumeErrors=True)
            assert not found[0]
            assert await cluster.backend.put("/test/mark", b"") - revision == 3
        stored = await cluster.stored()
        assert json.loads(stored[attempts_key("alice")]) == json.loads(stored[attempts_key("nobody")])
    assert PASSWORD not in repr(stored)
