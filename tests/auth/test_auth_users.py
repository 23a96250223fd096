"""Users, sign-up and login, as people and administrators see them."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock

from teleconch import defaults
from teleconch.auth.lockout import attempts_key
from teleconch.auth.login import DENIED
from teleconch.auth.otp import otp_url
from teleconch.ca.keys import new_ssh_key, new_tls_key, public_blob
from teleconch.ca.ssh import certificate_summary, check_user_certificate
from teleconch.errors import AccessDenied, AlreadyExists, BadParameter, NotFound
from teleconch.resources.secret import Secret
from teleconch.resources.user import User
from tests.worlds.auth import CLUSTER, PASSWORD, Cluster, code
from tests.worlds.waiting import spawn


async def refused(awaitable: Awaitable[object], kind: Any = AccessDenied) -> str:
    with pytest.raises(kind) as caught:
        await awaitable
    return str(caught.value)


async def outcomes(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    return await DeferredList([spawn(each) for each in coroutines], consumeErrors=True)


# Sign-up


@pytest_twisted.ensureDeferred
async def test_sign_up_then_log_in(cluster: Cluster) -> None:
    """A new user signs up with the link, logs in, and gets a certificate that a node accepts."""
    secret = await cluster.signed_up(logins=("root", "deploy"))
    certs = await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))
    now = cluster.clock.seconds()
    identity = check_user_certificate(
        public_blob(certs.ssh_cert), authorities=certs.authorities, login="deploy", now=now, source_ip=None
    )
    assert (identity.user, identity.logins, identity.roles) == ("alice", ("root", "deploy"), ("user",))
    assert identity.extensions == frozenset(certs.extensions) >= {"permit-pty", "permit-port-forwarding"}
    summary = certificate_summary(public_blob(certs.ssh_cert))
    assert (summary.valid_after, summary.valid_before) == (int(now - 60), int(now) + 12 * 3600)
    assert certs.valid_before == summary.valid_before


@pytest_twisted.ensureDeferred
async def test_ssh_and_tls_certificates_end_together(cluster: Cluster) -> None:
    """`tsh` does not keep one half of an identity that has ended already."""
    from cryptography import x509

    secret = await cluster.signed_up()
    cluster.clock.advance(0.7)
    certs = await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))
    tls = x509.load_pem_x509_certificate(certs.tls_cert.encode())
    ssh = certificate_summary(public_blob(certs.ssh_cert))
    assert tls.not_valid_after_utc.timestamp() == ssh.valid_before == certs.valid_before
    assert 0 < tls.serial_number < 2**63


@pytest_twisted.ensureDeferred
async def test_the_sign_up_page_shows_the_same_secret_each_time(cluster: Cluster) -> None:
    """Reloading the page does not void the entry that was just scanned."""
    token = await cluster.server.create_user(User("alice"), 3600)
    first, second = [await cluster.server.start_signup(token.value) for _ in range(2)]
    assert first.otp_secret.reveal() == second.otp_secret.reveal()
    url = urlsplit(first.otp_url.reveal())
    query = parse_qs(url.query)
    assert (url.scheme, url.netloc, url.path) == ("otpauth", "totp", "/teleconch:alice%40example.com")
    assert query["secret"] == [first.otp_secret.reveal()]
    assert (query["digits"], query["period"], query["issuer"]) == (["6"], ["30"], ["teleconch"])
    assert (first.user, first.cluster) == ("alice", CLUSTER)


def test_the_label_in_an_app() -> None:
    """A user's name with a plus comes into the authenticator app as it is."""
    url = urlsplit(otp_url(Secret("GEZDGNBVGY3TQOJQ" * 2), "joe+ops@example.com", CLUSTER).reveal())
    assert unquote(url.path) == f"/teleconch:joe+ops@example.com@{CLUSTER}"
    assert "+" not in url.path


@pytest_twisted.ensureDeferred
async def test_a_sign_up_link_works_once(cluster: Cluster) -> None:
    """Who finds a used link in a chat cannot take the account over."""
    token = await cluster.server.create_user(User("alice"), 3600)
    signup = await cluster.server.start_signup(token.value)
    now = cluster.clock.seconds()
    assert await cluster.server.finish_signup(token.value, Secret(PASSWORD), code(signup.otp_secret, now)) == "alice"
    cluster.clock.advance(30)
    for attempt in (
        cluster.server.start_signup(token.value),
        cluster.server.finish_signup(token.value, Secret("evil evil"), code(signup.otp_secret, now + 30)),
    ):
        assert "ask the administrator for a new one" in await refused(attempt)
    assert not [key for key in await cluster.stored() if key.startswith("/signups")]


@pytest_twisted.ensureDeferred
async def test_of_two_sign_ups_at_once_one_wins(cluster: Cluster) -> None:
    """Two browsers with one link do not both set the password."""
    token = await cluster.server.create_user(User("alice", traits={"logins": ("root",)}), 3600)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    right = code(secret, cluster.clock.seconds())
    results = await outcomes(
        *(cluster.server.finish_signup(token.value, Secret(f"password-{n}"), right) for n in range(4))
    )
    (winner,) = [n for n, (success, _) in enumerate(results) if success]
    assert all(result.check(AccessDenied) for success, result in results if not success)
    cluster.clock.advance(30)
    otp = code(secret, cluster.clock.seconds())
    await cluster.server.login(cluster.login_request(password=f"password-{winner}", otp=otp))


@pytest_twisted.ensureDeferred
async def test_a_sign_up_link_ends(cluster: Cluster) -> None:
    """An old link in a mailbox is worth nothing."""
    token = await cluster.server.create_user(User("alice"), 3600)
    assert token.expires == cluster.clock.seconds() + 3600
    cluster.clock.advance(3600)
    await refused(cluster.server.start_signup(token.value))
    await refused(cluster.server.finish_signup(token.value, Secret(PASSWORD), "000000"))
    await refused(cluster.server.start_signup(Secret("never made")))


@pytest_twisted.ensureDeferred
async def test_unusable_passwords_leave_the_link_usable(cluster: Cluster) -> None:
    """A password that is too short or too long is told at once; nothing is cut off silently; no try is lost."""
    token = await cluster.server.create_user(User("alice"), 3600)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    right = code(secret, cluster.clock.seconds())
    for password in ("short77", "x" * 73, "é" * 37, "", "with\0null-byte", "lone \ud800 surrogate"):
        assert "8 to 72 bytes" in await refused(
            cluster.server.finish_signup(token.value, Secret(password), right), BadParameter
        )
    await cluster.server.finish_signup(token.value, Secret("é" * 36), right)


@pytest_twisted.ensureDeferred
async def test_wrong_codes_void_the_link(cluster: Cluster) -> None:
    """A mistyped code can be typed again; guessing ends after five, and says so."""
    token = await cluster.server.create_user(User("alice"), 3600)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    now = cluster.clock.seconds()
    wrong = f"{(int(code(secret, now)) + 1) % 1000000:06}"
    for left in (4, 3, 2, 1):
        told = await refused(cluster.server.finish_signup(token.value, Secret(PASSWORD), wrong), BadParameter)
        assert f"{left} more" in told
    assert "void" in await refused(cluster.server.finish_signup(token.value, Secret(PASSWORD), wrong))
    assert "void" in await refused(cluster.server.finish_signup(token.value, Secret(PASSWORD), code(secret, now)))
    assert "void" in await refused(cluster.server.start_signup(token.value))


@pytest_twisted.ensureDeferred
async def test_many_codes_at_once_are_no_more_guesses(cluster: Cluster) -> None:
    """Guessing the sign-up code in parallel gains nothing."""
    token = await cluster.server.create_user(User("alice"), 3600)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    wrong = f"{(int(code(secret, cluster.clock.seconds())) + 1) % 1000000:06}"
    results = await outcomes(*(cluster.server.finish_signup(token.value, Secret(PASSWORD), wrong) for _ in range(20)))
    assert sum(bool(result.check(BadParameter)) for _, result in results) == 4


@pytest_twisted.ensureDeferred
async def test_the_fifth_code_may_be_the_right_one(cluster: Cluster) -> None:
    """Four slips are forgiven."""
    token = await cluster.server.create_user(User("alice"), 3600)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    right = code(secret, cluster.clock.seconds())
    for _ in range(4):
        await refused(cluster.server.finish_signup(token.value, Secret(PASSWORD), "nonsense"), BadParameter)
    assert await cluster.server.finish_signup(token.value, Secret(PASSWORD), f"{right[:3]} {right[3:]}") == "alice"


@pytest_twisted.ensureDeferred
async def test_without_a_second_factor_none_is_asked(cluster: Cluster) -> None:
    """With second_factor off, a password is enough for sign-up and login."""
    server = cluster.another(second_factor="off")
    await server.start()
    token = await server.create_user(User("bob", traits={"logins": ("root",)}), 60)
    signup = await server.start_signup(token.value)
    assert signup.otp_url is None
    assert signup.otp_secret is None
    await server.finish_signup(token.value, Secret(PASSWORD), "")
    assert (await server.login(cluster.login_request("bob"))).user == "bob"
    assert await refused(server.login(cluster.login_request("bob", "wrong password"))) == DENIED
    await server.stop()
    assert await refused(cluster.server.login(cluster.login_request("bob"))) == DENIED  # now one is asked


# Login


@pytest_twisted.ensureDeferred
async def test_every_refusal_reads_the_same(cluster: Cluster) -> None:
    """Nobody learns from a refusal whether a user exists, what was wrong, or that there is a lock-out."""
    secret = await cluster.signed_up()
    await cluster.server.create_user(User("pending", traits={"logins": ("root",)}), 3600)
    otp = code(secret, cluster.clock.seconds())
    for request in (
        cluster.login_request("nobody", otp=otp),
        cluster.login_request("pending", otp=otp),
        cluster.login_request("not a name\n", otp=otp),
        cluster.login_request("", otp=otp),
        cluster.login_request("x" * 10_000, otp=otp),
        cluster.login_request("lone \ud800", otp=otp),
        cluster.login_request(password="wrong password", otp=otp),
        cluster.login_request(password="", otp=otp),
        cluster.login_request(password=PASSWORD + "x" * 80, otp=otp),
        cluster.login_request(otp=""),
        cluster.login_request(otp="x" * 10_000),
    ):
        assert await refused(cluster.server.login(request)) == DENIED


@pytest_twisted.ensureDeferred
async def test_a_code_works_once(cluster: Cluster) -> None:
    """Who looked over a shoulder cannot use the code again, nor an older one; a phone may be one step off."""
    secret = await cluster.signed_up()
    cluster.clock.advance(60)
    now = cluster.clock.seconds()
    await cluster.server.login(cluster.login_request(otp=code(secret, now - 30)))
    await cluster.server.login(cluster.login_request(otp=code(secret, now + 30)))
    for step in (-30, 0, 30, 60, -60):
        assert await refused(cluster.server.login(cluster.login_request(otp=code(secret, now + step)))) == DENIED


@pytest_twisted.ensureDeferred
async def test_codes_far_off_are_refused(cluster: Cluster) -> None:
    """A code that was noted down two steps ago is worth nothing."""
    secret = await cluster.signed_up()
    cluster.clock.advance(300)
    for step in (-60, 60):
        await refused(cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds() + step))))
    await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))


@pytest_twisted.ensureDeferred
async def test_the_code_of_the_sign_up_is_used_up(cluster: Cluster) -> None:
    """The code that stood on the sign-up page does not log in somebody else."""
    token = await cluster.server.create_user(User("alice", traits={"logins": ("root",)}), 3600)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    otp = code(secret, cluster.clock.seconds())
    await cluster.server.finish_signup(token.value, Secret(PASSWORD), otp)
    assert await refused(cluster.server.login(cluster.login_request(otp=otp))) == DENIED


@pytest_twisted.ensureDeferred
async def test_one_code_sent_twice_at_once_logs_in_once(cluster: Cluster) -> None:
    """A stolen code in a race with its owner gives one certificate, not two; also between two auth servers."""
    secret = await cluster.signed_up()
    other = cluster.another()
    await other.start()
    otp = code(secret, cluster.clock.seconds())
    results = await outcomes(
        *(server.login(cluster.login_request(otp=otp)) for server in (cluster.server, other) for _ in range(2))
    )
    assert sum(success for success, _ in results) == 1
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_five_wrong_answers_lock_for_twenty_minutes(cluster: Cluster) -> None:
    """After five wrong answers even the right one is refused, for 20 minutes from the fifth; then it works again."""
    secret = await cluster.signed_up()
    for _ in range(5):
        await refused(cluster.server.login(cluster.login_request(password="wrong password")))
        cluster.clock.advance(60)
    cluster.clock.advance(20 * 60 - 61)
    otp = code(secret, cluster.clock.seconds())
    assert await refused(cluster.server.login(cluster.login_request(otp=otp))) == DENIED
    cluster.clock.advance(1)
    await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))


@pytest_twisted.ensureDeferred
async def test_attempts_in_a_lock_out_do_not_prolong_it(cluster: Cluster) -> None:
    """Somebody who keeps trying cannot lock a user out for ever."""
    secret = await cluster.signed_up()
    for _ in range(5):
        await refused(cluster.server.login(cluster.login_request(password="wrong password")))
    for _ in range(19):
        cluster.clock.advance(60)
        await refused(cluster.server.login(cluster.login_request(password="wrong password")))
    cluster.clock.advance(60)
    await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))


@pytest_twisted.ensureDeferred
async def test_wrong_answers_are_forgotten(cluster: Cluster) -> None:
    """Four slips, then the right answer: the count begins anew. Slips of more than half an hour ago do not count."""
    secret = await cluster.signed_up()
    for _ in range(3):
        for _ in range(4):
            await refused(cluster.server.login(cluster.login_request(password="wrong password")))
        cluster.clock.advance(30)
        await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))
    for _ in range(4):
        await refused(cluster.server.login(cluster.login_request(password="wrong password")))
    cluster.clock.advance(30 * 60)
    for _ in range(4):
        await refused(cluster.server.login(cluster.login_request(password="wrong password")))
    await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))


@pytest_twisted.ensureDeferred
async def test_many_wrong_answers_at_once_are_counted_all(cluster: Cluster) -> None:
    """A hundred guesses in parallel, over two auth servers, get five looks at the password; then all is locked."""
    secret = await cluster.signed_up()
    other = cluster.another()
    await other.start()
    await outcomes(
        *(
            server.login(cluster.login_request(password="wrong password"))
            for _ in range(10)
            for server in (cluster.server, other)
        )
    )
    otp = code(secret, cluster.clock.seconds())
    assert await refused(other.login(cluster.login_request(otp=otp))) == DENIED
    (attempts,) = json.loads((await cluster.stored())[attempts_key("alice")])["sources"]
    assert len(attempts["times"]) == 5
    assert attempts["locked_until"] == cluster.clock.seconds() + 20 * 60
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_no_wrong_answer_is_lost_between_servers(cluster: Cluster) -> None:
    """Five guesses at the very same moment, each at another auth server, are five."""
    secret = await cluster.signed_up()
    others = [cluster.another() for _ in range(5)]
    for other in others:
        await other.start()
    wrong = cluster.login_request(password="wrong password")
    await outcomes(*(other.login(wrong) for other in others[:3]))
    cluster.meanwhile(lambda: refused(others[3].login(wrong)))
    await refused(others[4].login(wrong))
    otp = code(secret, cluster.clock.seconds())
    assert await refused(cluster.server.login(cluster.login_request(otp=otp))) == DENIED
    for other in others:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_right_answers_at_once_all_log_in(cluster: Cluster) -> None:
    """A script that opens ten sessions at once is not taken for an attacker."""
    server = cluster.another(second_factor="off")
    await server.start()
    token = await server.create_user(User("bob", traits={"logins": ("root",)}), 60)
    await server.finish_signup(token.value, Secret(PASSWORD), "")
    results = await outcomes(*(server.login(cluster.login_request("bob")) for _ in range(10)))
    assert all(success for success, _ in results)
    assert attempts_key("bob") not in await cluster.stored()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_unknown_names_are_counted_alike(cluster: Cluster) -> None:
    """A flood of invented names counts like one for a real name, and ends with the window."""
    await outcomes(*(cluster.server.login(cluster.login_request(f"nobody-{n}")) for n in range(20)))
    lockouts = [key for key in await cluster.stored() if key.startswith("/lockouts/")]
    assert sorted(lockouts) == sorted(attempts_key(f"nobody-{n}") for n in range(20))
    cluster.clock.advance(defaults.LOCKOUT_WINDOW)
    await cluster.backend.sweep()
    assert not [key for key in await cluster.stored() if key.startswith("/lockouts/")]


@pytest_twisted.ensureDeferred
async def test_unknown_users_cost_what_known_ones_do(cluster: Cluster, clock: Clock) -> None:
    """The time of a refusal does not tell whether a user exists: the same work is done in each case."""
    from twisted.internet.threads import deferToThread

    calls = []

    def counting(function: Callable[..., Any], *args: Callable[..., Any] | bytes) -> Deferred[Any]:
        calls.append(args[0].__name__)  # what the thread is to do aside
        return deferToThread(function, *args)

    secret = await cluster.signed_up()
    server = cluster.another(in_thread=counting)
    await server.start()
    await server.create_user(User("pending"), 60)
    otp = code(secret, clock.seconds())
    work = []
    before_lock_out = [("alice", "wrong password", otp), ("nobody", "wrong password", otp), ("pending", "", otp)]
    for name, password, code_ in [*before_lock_out, *[("alice", "wrong password", "")] * 4, ("alice", PASSWORD, otp)]:
        calls.clear()
        revision = await cluster.backend.put("/test/mark", b"")
        await refused(server.login(cluster.login_request(name, password, code_)))
        work.append((tuple(calls), await cluster.backend.put("/test/mark", b"") - revision))
    assert set(work) == {(("checkpw",), 3)}
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_login_may_ask_for_a_life_within_limits(cluster: Cluster) -> None:
    """`tsh login --ttl` gives what was asked, but never more than 30 hours or less than a minute."""
    secret = await cluster.signed_up()
    for ttl, given in ((3600, 3600), (1e9, 30 * 3600), (math.inf, 30 * 3600), (-5, 60), (0, 60)):
        cluster.clock.advance(30)
        now = cluster.clock.seconds()
        certs = await cluster.server.login(cluster.login_request(otp=code(secret, now), ttl=ttl))
        assert certs.valid_before == now + given
    await refused(cluster.server.login(cluster.login_request(ttl=math.nan)), BadParameter)


@pytest_twisted.ensureDeferred
async def test_without_logins_the_user_is_told_what_to_do(cluster: Cluster) -> None:
    """A user who may log in nowhere hears why, once the password was right, and not before."""
    secret = await cluster.signed_up(logins=())
    otp = code(secret, cluster.clock.seconds())
    assert await refused(cluster.server.login(cluster.login_request(password="wrong password", otp=otp))) == DENIED
    assert "no logins" in await refused(cluster.server.login(cluster.login_request(otp=otp)))


@pytest_twisted.ensureDeferred
async def test_unusable_public_keys_are_refused(cluster: Cluster) -> None:
    """A key that cannot be signed is told as that, not as a wrong password, and does not count as one."""
    secret = await cluster.signed_up()
    bad = ({"ssh_public_key": "ssh-dss AAAA"}, {"tls_public_key": "nonsense"}, {"ssh_public_key": "x" * 100_000})
    for changes in bad * 3:
        cluster.clock.advance(30)
        otp = code(secret, cluster.clock.seconds())
        await refused(cluster.server.login(cluster.login_request(otp=otp, **changes)), BadParameter)
    cluster.clock.advance(30)
    await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))


# What administrators do


@pytest_twisted.ensureDeferred
async def test_users_are_listed_shown_and_removed(cluster: Cluster) -> None:
    """`tctl users ls`, `tctl get user/NAME` and `tctl users rm` agree."""
    bob = User("bob", traits={"logins": ("root",), "team": ("a", "b")})
    await cluster.server.create_user(bob, 60)
    await cluster.server.create_user(User("alice"), 60)
    assert [user.name for user in await cluster.server.list_users()] == ["alice", "bob"]
    assert await cluster.server.get_user("bob") == bob
    await cluster.server.delete_user("bob")
    assert [user.name for user in await cluster.server.list_users()] == ["alice"]
    for attempt in (
        cluster.server.get_user("bob"),
        cluster.server.delete_user("bob"),
        cluster.server.reset_user("bob", 60),
        cluster.server.get_user("no/name"),
        cluster.server.sign_user("bob", new_ssh_key()[1], new_tls_key()[1], 60),
    ):
        assert "tctl users ls" in await refused(attempt, NotFound)


@pytest_twisted.ensureDeferred
async def test_a_user_is_not_made_twice(cluster: Cluster) -> None:
    """Adding a user who exists harms nobody, and says what to do instead; of two at once one succeeds."""
    secret = await cluster.signed_up()
    told = await refused(cluster.server.create_user(User("alice"), 60), AlreadyExists)
    assert "tctl users reset alice" in told
    await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))
    results = await outcomes(*(cluster.server.create_user(User("bob"), 60) for _ in range(5)))
    assert sum(success for success, _ in results) == 1
    stored = await cluster.stored()
    assert len([key for key in stored if key.startswith("/signups/")]) == 1


@pytest_twisted.ensureDeferred
async def test_a_deleted_user_is_gone_with_everything(cluster: Cluster) -> None:
    """Somebody who left cannot log in, nor sign up with an old link, nor does a namesake inherit the password."""
    secret = await cluster.signed_up()
    reset = await cluster.server.reset_user("alice", 60)
    await refused(cluster.server.login(cluster.login_request()))
    await cluster.server.delete_user("alice")
    await refused(cluster.server.start_signup(reset.value))
    assert not [key for key in await cluster.stored() if not key.startswith("/authorities/")]
    await cluster.server.create_user(User("alice", traits={"logins": ("root",)}), 60)
    await refused(cluster.server.start_signup(reset.value))
    otp = code(secret, cluster.clock.seconds())
    assert await refused(cluster.server.login(cluster.login_request(otp=otp))) == DENIED


@pytest_twisted.ensureDeferred
async def test_a_reset_voids_at_once_and_ends_a_lock_out(cluster: Cluster) -> None:
    """After `tctl users reset` the old password and phone are worth nothing; the new link works, older ones do not."""
    secret = await cluster.signed_up()
    for _ in range(5):
        await refused(cluster.server.login(cluster.login_request(password="wrong password")))
    first = await cluster.server.reset_user("alice", 60)
    second = await cluster.server.reset_user("alice", 60)
    otp = code(secret, cluster.clock.seconds())
    assert await refused(cluster.server.login(cluster.login_request(otp=otp))) == DENIED
    await refused(cluster.server.start_signup(first.value))
    new = (await cluster.server.start_signup(second.value)).otp_secret
    assert new.reveal() != secret.reveal()
    await cluster.server.finish_signup(second.value, Secret("another one"), code(new, cluster.clock.seconds()))
    cluster.clock.advance(30)
    otp = code(new, cluster.clock.seconds())
    await cluster.server.login(cluster.login_request(password="another one", otp=otp))


@pytest_twisted.ensureDeferred
async def test_a_login_that_races_with_a_reset_loses(cluster: Cluster) -> None:
    """A password that was voided while it was being checked does not get a certificate, and stays void."""
    for second_factor in ("otp", "off"):
        secret = await cluster.signed_up(second_factor)
        server = cluster.another(second_factor=second_factor)
        await server.start()
        otp = code(secret, cluster.clock.seconds())
        cluster.meanwhile(lambda name=second_factor: cluster.server.reset_user(name, 60), skip=1)
        assert await refused(server.login(cluster.login_request(second_factor, otp=otp))) == DENIED
        record = json.loads((await cluster.stored())[f"/users/{second_factor}"])
        assert (record["password"], record["otp_secret"]) == (None, None)
        await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_sign_up_that_races_with_a_reset_loses(cluster: Cluster) -> None:
    """A sign-up link that was replaced while somebody used it sets no password."""
    for skip in (0, 1):
        name = f"user{skip}"
        token = await cluster.server.create_user(User(name), 60)
        secret = (await cluster.server.start_signup(token.value)).otp_secret
        cluster.meanwhile(lambda name=name: cluster.server.reset_user(name, 60), skip)
        right = code(secret, cluster.clock.seconds())
        assert "replaced" in await refused(cluster.server.finish_signup(token.value, Secret(PASSWORD), right))
        stored = await cluster.stored()
        assert json.loads(stored[f"/users/{name}"])["password"] is None
        assert len([key for key in stored if key.startswith("/signups/")]) == skip + 1


@pytest_twisted.ensureDeferred
async def test_a_sign_up_keeps_what_changed_meanwhile(cluster: Cluster) -> None:
    """Logins that the administrator adds during a sign-up are not undone by it."""
    token = await cluster.server.create_user(User("alice"), 60)
    secret = (await cluster.server.start_signup(token.value)).otp_secret
    changed = User("alice", traits={"logins": ("deploy",)})
    cluster.meanwhile(lambda: cluster.server.upsert_user(changed, True), skip=1)
    await cluster.server.finish_signup(token.value, Secret(PASSWORD), code(secret, cluster.clock.seconds()))
    cluster.clock.advance(30)
    otp = code(secret, cluster.clock.seconds())
    assert (await cluster.server.login(cluster.login_request(otp=otp))).logins == ("deploy",)


@pytest_twisted.ensureDeferred
async def test_only_the_users_record_says_which_link_holds(cluster: Cluster) -> None:
    """A left-over index of an old link opens nothing."""
    old = await cluster.server.create_user(User("alice"), 60)
    before = await cluster.stored()
    (index,) = [key for key in before if key.startswith("/signups/")]
    await cluster.server.reset_user("alice", 60)
    assert index not in await cluster.stored()
    await cluster.backend.put(index, before[index])
    await refused(cluster.server.start_signup(old.value))


@pytest_twisted.ensureDeferred
async def test_upsert_keeps_the_secrets(cluster: Cluster) -> None:
    """`tctl create -f` with other logins does not make the user sign up again."""
    secret = await cluster.signed_up()
    changed = User("alice", traits={"logins": ("deploy",)})
    assert "-f" in await refused(cluster.server.upsert_user(changed, False), AlreadyExists)
    await cluster.server.upsert_user(changed, True)
    certs = await cluster.server.login(cluster.login_request(otp=code(secret, cluster.clock.seconds())))
    assert certs.logins == ("deploy",)
    await cluster.server.upsert_user(User("new"), False)
    assert await refused(cluster.server.login(cluster.login_request("new"))) == DENIED


@pytest_twisted.ensureDeferred
async def test_an_administrator_signs_for_longer(cluster: Cluster) -> None:
    """`tctl auth sign --ttl` goes beyond a login's 30 hours, up to ten years, and says where it ends."""
    await cluster.server.upsert_user(User("ci", traits={"logins": ("deploy",)}), False)
    keys = new_ssh_key()[1], new_tls_key()[1]
    certs = await cluster.server.sign_user("ci", *keys, 3650 * 86400)
    assert certs.valid_before == cluster.clock.seconds() + 3650 * 86400
    for ttl in (3650 * 86400 + 1, 59, 0, -1, math.nan, math.inf):
        assert "1m to 87600h" in await refused(cluster.server.sign_user("ci", *keys, ttl), BadParameter)
        assert "1m to 87600h" in await refused(cluster.server.sign_host(("a",), *keys, ttl), BadParameter)


@pytest_twisted.ensureDeferred
async def test_users_that_no_certificate_can_hold_are_refused(cluster: Cluster) -> None:
    """A user who could never log in is refused when made, not at the first login."""
    for user in (
        User("x" * 65),
        User("a", traits={"logins": [f"login{n}" for n in range(200)]}),
        User("a", traits={"logins": (), "t": ("x" * 20_000,)}),
    ):
        await refused(cluster.server.create_user(user, 60), BadParameter)
        await refused(cluster.server.upsert_user(user, True), BadParameter)
    for ttl in (0, -1, 48 * 3600 + 1, math.nan, math.inf):
        assert "1s to 2d" in await refused(cluster.server.create_user(User("a"), ttl), BadParameter)
    assert await cluster.server.list_users() == ()


@pytest_twisted.ensureDeferred
async def test_the_longest_user_name_can_log_in(cluster: Cluster) -> None:
    """64 letters fit into every certificate."""
    secret = await cluster.signed_up("x" * 64)
    await cluster.server.login(cluster.login_request("x" * 64, otp=code(secret, cluster.clock.seconds())))


@pytest_twisted.ensureDeferred
async def test_secrets_are_not_stored_in_the_open(cluster: Cluster) -> None:
    """Who reads the state finds neither passwords nor sign-up links in it."""
    await cluster.signed_up()
    token = await cluster.server.reset_user("alice", 60)
    bob = await cluster.server.create_user(User("bob"), 60)
    everything = b"".join((await cluster.stored()).values()) + "".join(await cluster.stored()).encode()
    for secret in (PASSWORD, token.value.reveal(), bob.value.reveal()):
        assert secret.encode() not in everything
    assert len(bob.value.reveal()) == 32
    assert int(bob.value.reveal(), 16)
