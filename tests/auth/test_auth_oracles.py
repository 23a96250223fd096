"""What a stranger could learn from how the auth server answers, beyond what it says."""

from __future__ import annotations

import itertools

import pytest_twisted
from auth_fixtures import spawn
from twisted.internet.defer import DeferredList

from teleconch.auth.lockout import _WAITING_MAX, counter


@pytest_twisted.ensureDeferred
async def test_a_crowd_before_one_name_tells_nothing_of_another(cluster):
    """Who keeps an unknown name busy cannot tell by another name's answer, or its delay, whether there is that user."""
    await cluster.signed_up("alice")
    shared = counter("alice", False)
    busy, unknown = itertools.islice(
        (name for name in (f"nobody{number}" for number in itertools.count()) if counter(name, False) == shared), 2
    )
    crowd = [spawn(cluster.server.login(cluster.login_request(busy))) for _ in range(_WAITING_MAX)]
    asked = [spawn(cluster.server.login(cluster.login_request(name, "wrong"))) for name in ("alice", unknown)]
    (_, alice), (_, nobody) = await DeferredList(asked, consumeErrors=True)
    assert (alice.type, alice.getErrorMessage()) == (nobody.type, nobody.getErrorMessage())
    await DeferredList(crowd, consumeErrors=True)
