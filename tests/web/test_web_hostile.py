"""Whatever a stranger sends to the web's addresses, the answer is a sentence and never a fault of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel

from teleconch.ca.keys import new_ssh_key, new_tls_key
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.web import PASSWORD, Web

POSTS = ("/webapi/ssh/certs", "/v1/webapi/ssh/certs", "/webapi/users", "/v1/webapi/users")
GETS = ("/webapi/users/invites/", "/v1/webapi/users/invites/", "/web/newuser/", "/webapi/ping/", "/", "/web/")
NAMES = ("user", "password", "otp_token", "pub_key", "tls_pub_key", "ttl", "invite_token", "token", "pass")
GOOD = {"user": "alice", "password": PASSWORD, "pub_key": new_ssh_key()[1], "tls_pub_key": new_tls_key()[1]}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)  # lone surrogates and NUL among them
    | st.sampled_from(["\ud800", "a\0b", "\ufeff", "a" * 300, "a" * 9000, "../x", "ssh-ed25519 AAAA", "-----BEGIN"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=3)
FIELDS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), VALUES, max_size=6)
BODIES = (
    st.builds(lambda some, more: json.dumps({**some, **more}).encode(), st.sampled_from([{}, GOOD]), FIELDS)
    | st.builds(lambda more: json.dumps(more, ensure_ascii=False).encode("utf-8", "surrogatepass"), FIELDS)
    | st.binary(max_size=200)
    | st.text('{}[]",:\\ud8', max_size=60).map(str.encode)
)


@pytest.fixture
def faults() -> Iterator[list[Any]]:
    """What is logged as a fault."""
    seen = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] >= LogLevel.critical:
            seen.append(event)

    add_observer(observe)
    yield seen
    remove_observer(observe)


@pytest_twisted.ensureDeferred
async def test_any_json(web: Web, monkeypatch: pytest.MonkeyPatch, faults: list[Any]) -> None:
    """Every address that takes JSON answers anything with a sentence and a status of the sender's fault."""
    monkeypatch.setattr("teleconch.web.attempts.ATTEMPTS", 1_000_000)
    await web.start()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(POSTS), BODIES)
    @example(POSTS[0], json.dumps({**GOOD, "user": "\ud800"}).encode())
    @example(POSTS[0], json.dumps({**GOOD, "ttl": 10**400}).encode())
    @example(POSTS[2], json.dumps({"invite_token": "t", "pass": "\udfff", "second_factor_token": "1"}).encode())
    def check(path: str, body: bytes) -> None:
        answer = web._call("POST", path, body, {"Content-Type": "application/json"})
        assert answer.status in (400, 403), (answer.status, answer.body)
        assert answer.error.endswith((".", ")"))
        assert not faults

    await deferToThread(check)


@pytest_twisted.ensureDeferred
async def test_any_form_and_link(web: Web, monkeypatch: pytest.MonkeyPatch, faults: list[Any]) -> None:
    """The sign-up form and links with anything in them are answered with a page."""
    monkeypatch.setattr("teleconch.web.attempts.ATTEMPTS", 1_000_000)
    await web.start()
    token = await web.token("alice")
    forms = st.binary(max_size=100) | st.text("password2code=&%ud80fF+", max_size=60).map(str.encode)
    tails = st.text("/.%udF8012;?#&=~-", max_size=20)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(forms, st.sampled_from(GETS), tails)
    @example(b"password=\xff\xff\xff\xff\xff\xff\xff\xff&password2=\xff\xff\xff\xff\xff\xff\xff\xff", "/", "")
    @example(b"password=%ff%ff%ff%ff%ff%ff%ff%ff&password2=%ff%ff%ff%ff%ff%ff%ff%ff", "/", "%00")
    @example(b"password=%ED%A0%80&password2=%ED%A0%80", "/web/newuser/", "%ED%A0%80")
    def check(form: bytes, get: str, tail: str) -> None:
        kind = "application/x-www-form-urlencoded"
        answer = web._call("POST", f"/web/newuser/{token}", form, {"Content-Type": kind})
        assert answer.status == 400, (answer.status, answer.text)
        page = web._call("GET", quote(get + tail, safe="/%?#&=;"), None, {})
        assert page.status < 500, (page.status, page.body)
        assert not faults

    await deferToThread(check)
