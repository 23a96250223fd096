"""What tsh asks of the proxy over HTTPS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from teleconch import __version__
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.ca.ssh import certificate_summary
from teleconch.errors import TrustError
from teleconch.resources.secret import Secret
from teleconch.web import attempts
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.web import CLUSTER, PASSWORD, Web, code


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    events = []

    def observe(event: dict[str, Any]) -> None:
        if "audit" in event or event.get("log_namespace", "").startswith("teleconch.web"):
            events.append(event)

    add_observer(observe)
    yield events
    remove_observer(observe)


@pytest_twisted.ensureDeferred
async def test_ping(web: Web) -> None:
    """tsh learns the version, the kind of login and where SSH is, as from Teleport 4.2, under both paths."""
    await web.start(ssh_public_addr="ssh.example.test:3023", public_addr="web.example.test:443")
    for path in ("/webapi/ping", "/v1/webapi/ping"):
        answer = await web.get(path)
        assert answer.status == 200
        assert answer.json == {
            "server_version": __version__,
            "cluster_name": CLUSTER,
            "auth": {"type": "local", "second_factor": "otp"},
            "proxy": {
                "kube": {"enabled": False},
                "ssh": {
                    "listen_addr": "0.0.0.0:3023",
                    "public_addr": "web.example.test:443",
                    "ssh_public_addr": "ssh.example.test:3023",
                },
            },
        }


@pytest_twisted.ensureDeferred
async def test_ping_without_auth(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """When auth goes away tsh still finds the proxy; a proxy that never reached auth says so."""
    await web.start()
    web.api.away = True
    answer = await web.get("/webapi/ping")
    assert answer.status == 503
    assert answer.error == "The auth server cannot answer at the moment: try again in a minute."
    web.api.away = False
    assert (await web.get("/webapi/ping")).status == 200
    web.api.away = True
    monkeypatch.setattr("teleconch.web.front.STATUS_FRESH", 0)
    assert (await web.get("/webapi/ping")).status == 200


@pytest_twisted.ensureDeferred
async def test_ping_spares_auth(web: Web) -> None:
    """A flood of pings costs auth one call in some seconds."""
    await web.start()
    for _ in range(5):
        await web.get("/webapi/ping")
    assert web.api.calls == ["status"]


@pytest_twisted.ensureDeferred
async def test_sign_up_and_login(web: Web, logged: list[Any]) -> None:
    """What `tsh signup` and `tsh login` do: invite, password and code, certificates that fit the keys."""
    await web.start()
    token = await web.token("alice", ("root", "alice"))
    invite = await web.get(f"/webapi/users/invites/{token}")
    assert invite.json["user"] == "alice"
    assert invite.json["cluster"] == CLUSTER
    assert invite.json["otp_url"].startswith("otpauth://totp/")
    secret = invite.json["otp_secret"]
    wrong = {"invite_token": token, "pass": PASSWORD, "second_factor_token": "000000"}
    assert (await web.post("/webapi/users", wrong)).status == 400
    done = await web.post("/v1/webapi/users", {**wrong, "second_factor_token": code(secret)})
    assert (done.status, done.json) == (200, {"user": "alice", "cluster": CLUSTER})

    answer = await web.login("alice", PASSWORD, code(secret, _later()), ttl=3600)
    assert answer.status == 200, answer.body
    found = answer.json
    assert found["username"] == "alice"
    assert sorted(found["logins"]) == ["alice", "root"]
    summary = certificate_summary(base64.b64decode(found["cert"].split()[1]))
    assert summary.valid_before == found["valid_before"]
    assert "BEGIN CERTIFICATE" in found["tls_cert"]
    (signer,) = found["host_signers"]
    assert signer["domain_name"] == CLUSTER
    assert signer["checking_keys"][0].startswith("ssh-ed25519 ")
    assert "BEGIN CERTIFICATE" in signer["tls_certs"][0]
    seen = [(each["event"], each.get("user"), each["success"]) for each in logged if "success" in each]
    assert ("user.login", "alice", True) in seen
    assert ("user.signup", "alice", True) in seen
    assert ("user.signup", "alice", False) in seen  # the wrong code
    assert len(seen) == 5  # with the authorities and the user that were made: each is told once
    everything = repr(logged)
    assert token not in everything
    assert PASSWORD not in everything
    assert secret not in everything


def _later() -> float:
    """A time whose code was not used yet: each is taken once only."""
    from twisted.internet import reactor

    return reactor.seconds() + 30


@pytest_twisted.ensureDeferred
async def test_login_refused(web: Web, logged: list[Any]) -> None:
    """A wrong password, a wrong code and an unknown user get the very same answer, and each is logged."""
    await web.start()
    secret = await web.signed_up()
    answers = [
        await web.login("alice", "wrong password", code(secret, _later())),
        await web.login("alice", PASSWORD, "000000"),
        await web.login("nobody", PASSWORD, "000000"),
    ]
    assert {answer.status for answer in answers} == {403}
    assert len({answer.error for answer in answers}) == 1
    refusals = [each for each in logged if each.get("event") == "user.login"]
    assert [each["user"] for each in refusals] == ["alice", "alice", "nobody"]
    assert all(each["addr_remote"] == "127.0.0.1" and each["error"] and not each["success"] for each in refusals)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not UTF-8"),
        ('{"user": "a"}'.encode("utf-16"), 400, "not UTF-8"),
        (b'\xef\xbb\xbf{"user": "a"}', 400, "byte order mark"),
        (b"[" * 30_000, 400, "nested too deep"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, 400, "nested too deep"),
        (b'{"user":"a","user":"b"}', 400, "is there twice"),
        (b'{"user":"a\\ud800"}', 400, "half of a surrogate pair"),
        (b'{"user":"a","\\udfff":"b"}', 400, "half of a surrogate pair"),
        (b'{"user":"' + b"a" * 9000 + b'"}', 400, "user is too long"),
        (b'{"ttl":1e999}', 400, "a number is too large"),
        (b'{"ttl":1' + b"0" * 5000 + b"}", 400, "a number is too large"),
        (b"{}", 400, "user is missing"),
        (b'{"user": 1}', 400, "user must be a string"),
        (b'{"user":"a","password":"b","pub_key":"c","tls_pub_key":"d","ttl":"1h"}', 400, "ttl must be a number"),
        (b'{"user":"a","password":"b","pub_key":"c","tls_pub_key":"d","ttl":true}', 400, "ttl must be a number"),
        (b'{"user":"a","password":"b","pub_key":"c","tls_pub_key":"d","ttl":NaN}', 400, "NaN is not a number here"),
        (b'{"user":"a","password":"b","pub_key":"c","tls_pub_key":"d","ttl":-1}', 400, "ttl must be a number"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_malformed_bodies(web: Web, body: bytes, status: int, says: str) -> None:
    """What is no proper request is refused with what is wrong with it, and never a traceback."""
    await web.start()
    answer = await web.call("POST", "/webapi/ssh/certs", body, **{"Content-Type": "application/json"})
    assert answer.status == status
    assert says in answer.error
    assert not web.api.calls


@pytest_twisted.ensureDeferred
async def test_only_json(web: Web) -> None:
    """A form on a foreign page cannot log in or sign up: only JSON is taken, which a form cannot send."""
    await web.start()
    for path in ("/webapi/ssh/certs", "/webapi/users"):
        answer = await web.form(path, user="alice", password=PASSWORD, token="x")
        assert answer.status == 415
        assert "Content-Type: application/json" in answer.error


@pytest_twisted.ensureDeferred
async def test_unknown_routes(web: Web) -> None:
    """What is not there is 404, as JSON under /webapi and as a page elsewhere; a wrong method is 405."""
    await web.start()
    answer = await web.get("/webapi/nothing")
    assert (answer.status, answer.error) == (404, "There is nothing at this address.")
    page = await web.get("/nothing")
    assert page.status == 404
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    answer = await web.get("/webapi/ssh/certs")
    assert answer.status == 405
    assert "POST" in answer.headers["Allow"]
    for path in ("//evil.example/", "/web//newuser/x", "/web/newuser/../x", "/web/newuser/", "/%2e%2e/etc/passwd"):
        answer = await web.get(path)
        assert answer.status in (403, 404), path
        assert answer.headers["Location"] is None


@pytest_twisted.ensureDeferred
async def test_unexpected_errors(web: Web, logged: list[Any]) -> None:
    """A fault inside shows nothing of the inside; the log has the whole."""
    await web.start()

    for problem in (ZeroDivisionError("secret detail"), TrustError("secret detail")):

        async def broken(problem: ZeroDivisionError | TrustError = problem) -> None:
            raise problem

        web.auth.status = broken
        answer = await web.get("/webapi/ping")
        assert answer.status == 500
        assert answer.error.startswith("Something went wrong on the server")
        assert "secret" not in answer.body
    assert [each for each in logged if each.get("log_failure")]


@pytest_twisted.ensureDeferred
async def test_a_stranger_keeps_nobody_out(web: Web) -> None:
    """Wrong answers count against the address that they came from; the same user gets in from another."""
    await web.start("off")
    await web.auth.finish_signup(Secret(await web.token()), Secret(PASSWORD), "")
    for _ in range(5):
        assert (await web.login("alice", "wrong", "")).status == 403
    assert (await web.login("alice", PASSWORD, "")).status == 403
    keys = {"pub_key": new_ssh_key()[1], "tls_pub_key": new_tls_key()[1]}
    fields = json.dumps({"user": "alice", "password": PASSWORD, **keys}).encode()
    headers = {"Content-Type": "application/json"}
    answer = await deferToThread(web._call, "POST", "/webapi/ssh/certs", fields, headers, "127.0.0.2")
    assert answer.status == 200, answer.body


@pytest_twisted.ensureDeferred
async def test_too_many_attempts(web: Web, monkeypatch: pytest.MonkeyPatch, logged: list[Any]) -> None:
    """One address cannot try passwords without end: after some tries auth is not asked, nor the log told, any more."""
    monkeypatch.setattr(attempts, "ATTEMPTS", 4)
    await web.start()
    answers = [await web.login("a" * 1000, "wrong", "000000") for _ in range(6)]
    assert [answer.status for answer in answers] == [403] * 4 + [429] * 2
    assert "wait a minute" in answers[-1].error
    lines = [each for each in logged if each.get("event") == "user.login"]
    assert len(lines) == 4
    assert all(len(each["user"]) <= 64 for each in lines)
    assert len([each for each in logged if "Too many attempts" in each.get("error", "")]) == 1
    assert web.api.calls.count("login") == 4
    assert (await web.get("/webapi/ping")).status == 200
