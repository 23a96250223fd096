"""Wrong answers by strangers, and the user who logs in all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from teleconch import defaults
from teleconch.auth import lockout
from teleconch.auth.lockout import attempts_key
from teleconch.auth.login import DENIED
from teleconch.errors import AccessDenied, NotFound
from teleconch.resources.lockout import Lockout
from teleconch.resources.secret import Secret
from tests.worlds.auth import Cluster, code
from tests.worlds.waiting import spawn, until

HOME, AWAY, STRANGER = "192.0.2.1", "198.51.100.7", "203.0.113.9"


async def _is_let_in(cluster: Cluster, secret: Secret, source: str, **changes: Any) -> bool:
    """Whether the right answer is taken, with a code that was not used before."""
    cluster.clock.advance(30)
    request = cluster.login_request(otp=code(secret, cluster.clock.seconds()), source=source, **changes)
    try:
        await cluster.server.login(request)
    except AccessDenied as error:
        said = str(error)
    else:
        return True
    assert said == DENIED
    return False


async def _wrong(cluster: Cluster, source: str, times: int = 5, name: str = "alice", **changes: Any) -> None:
    for _ in range(times):
        request = cluster.login_request(name, source=source, **{"password": "wrong password", **changes})
        with pytest.raises(AccessDenied):
            await cluster.server.login(request)


@pytest_twisted.ensureDeferred
async def test_a_stranger_keeps_nobody_out(cluster: Cluster) -> None:
    """Five wrong answers from one address shut that address, and the user logs in from any other, known or not."""
    secret = await cluster.signed_up()
    await _wrong(cluster, STRANGER)
    assert not await _is_let_in(cluster, secret, STRANGER)
    assert await _is_let_in(cluster, secret, HOME)
    assert await _is_let_in(cluster, secret, AWAY)
    assert not await _is_let_in(cluster, secret, STRANGER)
    cluster.clock.advance(defaults.LOCKOUT_DURATION)
    assert await _is_let_in(cluster, secret, STRANGER)


@pytest_twisted.ensureDeferred
async def test_repeated_for_ever(cluster: Cluster) -> None:
    """A stranger who goes on for a day does not keep the user out for a moment."""
    secret = await cluster.signed_up()
    for _ in range(24):
        await _wrong(cluster, STRANGER, 6)
        assert await _is_let_in(cluster, secret, HOME)
        cluster.clock.advance(3600 - 30)


@pytest_twisted.ensureDeferred
async def test_a_known_source_is_shut_for_a_minute_only(cluster: Cluster) -> None:
    """Somebody in the same office who guesses a colleague's password holds them up for a minute at most."""
    secret = await cluster.signed_up()
    assert await _is_let_in(cluster, secret, HOME)
    await _wrong(cluster, HOME)
    assert not await _is_let_in(cluster, secret, HOME)
    cluster.clock.advance(lockout.KNOWN_DURATION - 30)
    assert await _is_let_in(cluster, secret, HOME)


@pytest_twisted.ensureDeferred
async def test_many_strangers_slow_a_new_place_only(cluster: Cluster) -> None:
    """A crowd of addresses is held to so many guesses; the user is let in where they were before, soon elsewhere."""
    secret = await cluster.signed_up()
    assert await _is_let_in(cluster, secret, HOME)
    for number in range(lockout.NEWCOMERS.most + 20):
        await _wrong(cluster, f"10.0.0.{number}", 1)
    request = cluster.login_request(otp=code(secret, cluster.clock.seconds() + 30), source=AWAY)
    with pytest.raises(AccessDenied):
        await cluster.server.login(request)  # right, and one too many
    assert await _is_let_in(cluster, secret, HOME)
    assert await _is_let_in(cluster, secret, AWAY)


@pytest_twisted.ensureDeferred
async def test_those_who_were_wrong_do_not_hold_up_newcomers(cluster: Cluster) -> None:
    """Sources that go on guessing use up what is there for sources that go on guessing."""
    secret = await cluster.signed_up()
    await DeferredList([spawn(_wrong(cluster, f"10.0.0.{number}", 5)) for number in range(lockout.NEWCOMERS.most - 5)])
    attempts = json.loads((await cluster.stored())[attempts_key("alice")])
    assert attempts["repeaters"]["spent"] == lockout.REPEATERS.most
    assert await _is_let_in(cluster, secret, AWAY)


@pytest_twisted.ensureDeferred
async def test_the_code_is_not_guessed_by_a_crowd(cluster: Cluster) -> None:
    """Whoever knows the password gets ten codes in half an hour, from however many addresses; the user is let in."""
    secret = await cluster.signed_up()
    assert await _is_let_in(cluster, secret, HOME)
    for number in range(lockout.NEAR_MAX):
        await _wrong(cluster, f"10.0.0.{number}", 1, password="correct horse", otp="000000")
    for number in range(5):
        assert not await _is_let_in(cluster, secret, f"10.1.0.{number}")
    assert await _is_let_in(cluster, secret, HOME)
    cluster.clock.advance(defaults.LOCKOUT_WINDOW)
    assert await _is_let_in(cluster, secret, "10.1.0.0")


@pytest_twisted.ensureDeferred
async def test_a_known_source_does_not_guess_the_code(cluster: Cluster) -> None:
    """Whoever took over a user's own computer gets ten codes in half an hour as well."""
    secret = await cluster.signed_up()
    assert await _is_let_in(cluster, secret, HOME)
    for _ in range(2):
        await _wrong(cluster, HOME, 5, password="correct horse", otp="000000")
        cluster.clock.advance(lockout.KNOWN_DURATION)
    assert not await _is_let_in(cluster, secret, HOME)
    cluster.clock.advance(defaults.LOCKOUT_WINDOW)
    assert await _is_let_in(cluster, secret, HOME)


@pytest_twisted.ensureDeferred
async def test_known_sources_outlive_the_server(cluster: Cluster) -> None:
    """Where a user has logged in is remembered by the cluster, not by one server's memory; a bounded number of them."""
    secret = await cluster.signed_up()
    for number in range(lockout.KNOWN_MAX + 3):
        assert await _is_let_in(cluster, secret, f"10.0.0.{number}")
    known = json.loads((await cluster.stored())["/users/alice"])["known"]
    assert [each["source"] for each in known] == [f"10.0.0.{number}" for number in range(3, lockout.KNOWN_MAX + 3)]
    cluster.clock.advance(lockout.KNOWN_FOR)
    assert await _is_let_in(cluster, secret, HOME)
    (only,) = json.loads((await cluster.stored())["/users/alice"])["known"]
    assert only["source"] == HOME


@pytest_twisted.ensureDeferred
async def test_what_is_remembered_of_a_name_is_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sources guess at one name, its record does not grow without end."""
    monkeypatch.setattr(lockout, "SOURCES_MAX", 8)
    await cluster.signed_up()
    for number in range(40):
        await _wrong(cluster, f"10.0.0.{number}", 1)
    record = json.loads((await cluster.stored())[attempts_key("alice")])
    assert [each["source"] for each in record["sources"]] == [f"10.0.0.{number}" for number in range(32, 40)]


@pytest_twisted.ensureDeferred
async def test_unlock(cluster: Cluster) -> None:
    """`tctl users unlock` lets a user in at once, with the password and the second factor that they have."""
    secret = await cluster.signed_up()
    await _wrong(cluster, HOME)
    assert not await _is_let_in(cluster, secret, HOME)
    assert await cluster.server.unlock_user("alice")
    assert await _is_let_in(cluster, secret, HOME)
    assert not await cluster.server.unlock_user("alice")
    with pytest.raises(NotFound, match="tctl users ls"):
        await cluster.server.unlock_user("nobody")


@pytest_twisted.ensureDeferred
async def test_lock_outs_are_listed(cluster: Cluster) -> None:
    """An administrator sees who is locked out, from where and until when, just as long as it lasts."""
    secret = await cluster.signed_up()
    server = cluster.server
    await _wrong(cluster, STRANGER, name="nobody")
    await _wrong(cluster, STRANGER, 4)
    assert await server.list_lockouts() == ()
    await _wrong(cluster, STRANGER, 1)
    stranger = Lockout("alice", STRANGER, cluster.clock.seconds() + defaults.LOCKOUT_DURATION)
    assert await server.list_lockouts() == (stranger,)
    assert await _is_let_in(cluster, secret, HOME)
    await _wrong(cluster, HOME)
    home = Lockout("alice", HOME, cluster.clock.seconds() + lockout.KNOWN_DURATION)
    assert await server.list_lockouts() == (stranger, home)
    cluster.clock.advance(lockout.KNOWN_DURATION)
    assert await server.list_lockouts() == (stranger,)
    await server.unlock_user("alice")
    assert await server.list_lockouts() == ()


@pytest_twisted.ensureDeferred
async def test_the_list_says_what_holds(cluster: Cluster) -> None:
    """After ten wrong codes with the right password, what is listed for new sources and for a known one is what they
    meet, up to its end; however many sources are shut, the list has a bound."""
    secret = await cluster.signed_up()
    assert await _is_let_in(cluster, secret, HOME)
    for number in range(lockout.NEAR_MAX):
        await _wrong(cluster, f"10.0.0.{number}", 1, password="correct horse", otp="000000")
    (everywhere,) = await cluster.server.list_lockouts()
    assert (everywhere.user, everywhere.source) == ("alice", None)
    assert not await _is_let_in(cluster, secret, AWAY)
    cluster.clock.advance(everywhere.until - cluster.clock.seconds() - 31)
    assert not await _is_let_in(cluster, secret, STRANGER)
    cluster.clock.advance(everywhere.until - cluster.clock.seconds())
    assert await cluster.server.list_lockouts() == ()
    assert await _is_let_in(cluster, secret, STRANGER)

    for _ in range(2):
        await _wrong(cluster, HOME, password="correct horse", otp="000000")
        cluster.clock.advance(lockout.KNOWN_DURATION)
    found = {each.source: each.until for each in await cluster.server.list_lockouts()}
    assert set(found) == {None, HOME}
    assert not await _is_let_in(cluster, secret, HOME)
    cluster.clock.advance(found[HOME] - cluster.clock.seconds())
    assert await cluster.server.list_lockouts() == ()
    assert await _is_let_in(cluster, secret, HOME)

    for number in range(lockout.LISTED + 4):
        await _wrong(cluster, f"10.0.1.{number}")
        cluster.clock.advance(30)
    shown = await cluster.server.list_lockouts()
    assert [each.source for each in shown] == [f"10.0.1.{number}" for number in range(lockout.LISTED + 3, 3, -1)]


@pytest_twisted.ensureDeferred
async def test_two_places_at_once(cluster: Cluster) -> None:
    """A user who logs in at two places at the same moment is let in at both."""
    server = cluster.another(second_factor="off")
    await server.start()
    await cluster.signed_up()
    requests = [cluster.login_request(source=source) for source in (HOME, AWAY, STRANGER, HOME)]
    results = await DeferredList([spawn(server.login(request)) for request in requests], consumeErrors=True)
    assert all(success for success, _ in results)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_one_login_among_150(cluster: Cluster) -> None:
    """150 logins at once, from one source or from as many, keep an honest one waiting and do not refuse it."""
    for sources in ([STRANGER] * 150, [f"10.0.0.{number}" for number in range(150)]):
        secret = await cluster.signed_up(f"alice{len(set(sources))}")
        flood = [
            spawn(cluster.server.login(cluster.login_request(f"user{number}", "wrong", source=source)))
            for number, source in enumerate(sources)
        ]
        otp = code(secret, cluster.clock.seconds())
        honest = cluster.login_request(f"alice{len(set(sources))}", otp=otp, source=HOME)
        await cluster.server.login(honest)
        for success, failure in await DeferredList(flood, consumeErrors=True):
            assert not success
            assert failure.check(AccessDenied)


@pytest_twisted.ensureDeferred
async def test_bcrypt_does_not_hold_up_the_reactor(cluster: Cluster) -> None:
    """While passwords are worked on in threads, nothing but threads works on them: few at a time."""
    running, most, held = 0, 0, []

    def in_thread(function: Callable[..., Any], *arguments: Callable[..., Any] | bytes) -> Deferred[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        later: Deferred[None] = Deferred()

        def finish() -> None:
            nonlocal running
            running -= 1
            later.callback(function(*arguments))

        held.append(finish)
        return later

    server = cluster.another(in_thread=in_thread)
    flood = [
        spawn(server.login(cluster.login_request("alice", "wrong", source=f"10.0.0.{number}"))) for number in range(12)
    ]
    for each in flood:
        each.addErrback(lambda failure: failure.trap(AccessDenied))
    await until(lambda: most == 4)
    while not all(each.called for each in flood):
        await until(lambda: held or all(each.called for each in flood))
        if held:
            held.pop(0)()
    assert most == 4
