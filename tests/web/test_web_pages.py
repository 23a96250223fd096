"""The pages that a person sees, without JavaScript."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest_twisted
import segno
from twisted.web.template import Tag, flattenString

from teleconch.resources.login import Signup
from teleconch.resources.secret import Secret
from teleconch.web import pages
from tests.worlds.checks import found
from tests.worlds.reactor import reactor
from tests.worlds.web import CLUSTER, PASSWORD, Web, code

EVIL = "\"><script>alert(1)</script>&'{{7*7}}"


class _Strict(HTMLParser):
    """Every element closed in order, nothing that runs or is fetched from elsewhere."""

    VOID = frozenset({"meta", "link", "input", "br", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def check(body: str) -> _Strict:
    page = _Strict(body)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "base", "style"}
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
        for name in ("href", "src", "action"):
            assert attributes.get(name, "/").startswith("/")
            assert not attributes.get(name, "/").startswith("//")
    return page


async def html(page: Tag) -> str:
    return (await flattenString(None, page)).decode()


@pytest_twisted.ensureDeferred
async def test_headers(web: Web) -> None:
    """No answer may be framed, cached, sniffed or run a script, and the link's token goes nowhere else."""
    await web.start()
    token = await web.token()
    paths = ["/", "/nothing", "/webapi/ping", "/webapi/x", "/web/newuser/wrong", f"/web/newuser/{token}", "/%ff"]
    for path in paths:
        headers = (await web.get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert "script" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Strict-Transport-Security"].startswith("max-age=")
        assert headers["Set-Cookie"] is None
    style = await web.get("/web/style.css")
    assert style.headers["Content-Type"] == "text/css; charset=utf-8"
    assert "http" not in style.body
    assert "@import" not in style.body


@pytest_twisted.ensureDeferred
async def test_sign_up(web: Web) -> None:
    """The story of the page: form, mistakes told in place, success with the next lines, and then the link is dead."""
    await web.start(public_addr="proxy.example.test:3080")
    token = await web.token("alice")
    path = f"/web/newuser/{token}"
    page = await web.get(path)
    assert page.status == 200
    assert f"{CLUSTER} Welcome, alice" in page.text
    form = check(page.body)
    (attributes,) = [attributes for tag, attributes in form.tags if tag == "form"]
    assert attributes["method"] == "post"
    assert attributes["action"] == path
    secret = found(r'class="secret"><code>([A-Z2-7 ]+)<', page.body)[1].replace(" ", "")

    wrong = [
        ({"password": PASSWORD, "password2": "other", "code": "123456"}, "The two passwords differ"),
        ({"password": "short", "password2": "short", "code": code(secret)}, "8"),
        ({"password": "x" * 73, "password2": "x" * 73, "code": code(secret)}, "too long"),
        ({"password": PASSWORD, "password2": PASSWORD, "code": "000000"}, "code"),
        ({"password": PASSWORD, "password2": PASSWORD, "code": ""}, "code"),
        ({}, "8"),
    ]
    for fields, says in wrong:
        page = await web.form(path, **fields)
        assert page.status == 400, fields
        alert = found(r'<p class="alert" role="alert">([^<]*)</p>', page.body)[1]
        assert says in alert, (fields, alert)
        check(page.body)
        for value in fields.values():
            assert not value or value not in page.body, "what was typed must not come back"
        assert secret in page.text.replace(" ", "")

    shown = code(secret)
    page = await web.form(path, password=PASSWORD, password2=PASSWORD, code=f"{shown[:3]} {shown[3:]}")
    assert page.status == 200, page.text
    assert "tsh login --proxy=proxy.example.test:3080 --user=alice" in page.text
    assert "tsh config >> ~/.ssh/config" in page.body.replace("&gt;", ">")
    assert secret not in page.body
    check(page.body)
    assert (await web.login("alice", PASSWORD, code(secret, reactor.seconds() + 30))).status == 200

    for again in (await web.get(path), await web.form(path, password=PASSWORD, password2=PASSWORD, code=shown)):
        assert again.status == 403
        assert "This sign-up link does not work: it was used already, or it has expired. Ask your" in again.text
        assert "alice" not in again.body


@pytest_twisted.ensureDeferred
async def test_links_that_do_not_work(web: Web) -> None:
    """Unknown, strange and hostile tokens all get the one page that says whom to ask."""
    await web.start()
    for token in ("0123456789abcdef", "x", "%3Cscript%3E", "%0d%0aX-Evil:1", "a" * 400, "..%2f.."):
        for answer in (await web.get(f"/web/newuser/{token}"), await web.form(f"/web/newuser/{token}", password="x")):
            assert answer.status in (400, 403, 404), token
            assert "<script" not in answer.body
            assert answer.headers["X-Evil"] is None
    assert len(web.api.calls) == 4, "auth is asked only for what can be a token"
    assert (await web.get("/webapi/users/invites/0123456789abcdef")).status == 403


@pytest_twisted.ensureDeferred
async def test_without_second_factor(web: Web) -> None:
    """A cluster without second factor asks for the password alone."""
    await web.start(second_factor="off")
    path = f"/web/newuser/{await web.token()}"
    page = await web.get(path)
    assert "authenticator" not in page.body
    assert 'name="code"' not in page.body
    page = await web.form(path, password=PASSWORD, password2=PASSWORD)
    assert page.status == 200
    assert "tsh login" in page.text


@pytest_twisted.ensureDeferred
async def test_next_steps(web: Web) -> None:
    """The line to type next has the address that worked for the user, and the pin where the certificate needs one."""
    await web.start(second_factor="off", pinned=True)
    pin = (await web.auth.status()).ca_pins[0]
    path = f"/web/newuser/{await web.token()}"
    page = await web.form(path, password=PASSWORD, password2=PASSWORD)
    assert f"tsh login --proxy=localhost:{web.port} --user=alice --ca-pin={pin}" in page.text
    for host in ("evil`id`", "a b", "x;rm -rf /", "-oProxyCommand=x", "$(id)", "<b>", "a" * 999):
        home = await web.get("/", Host=host)
        assert "tsh login --proxy=PROXY --user=YOU" in home.text, host


@pytest_twisted.ensureDeferred
async def test_auth_is_away(web: Web) -> None:
    """When auth is away the page says to come back, and not where auth is."""
    await web.start()
    path = f"/web/newuser/{await web.token()}"
    web.api.away = True
    for page in (await web.get(path), await web.form(path, password=PASSWORD, password2=PASSWORD, code="1")):
        assert page.status == 503
        assert "The auth server cannot answer at the moment: try again in a minute." in page.text
        assert "10.0.0.1" not in page.body


@pytest_twisted.ensureDeferred
async def test_everything_is_escaped() -> None:
    """Names that are markup stay text, wherever they are shown."""
    signup = Signup(EVIL, EVIL, Secret(f"otpauth://totp/{EVIL}?secret=JBSWY3DP"), Secret(f"JBSW{EVIL}"))
    made = [
        pages.signup_page("/web/newuser/x", signup, EVIL),
        pages.done_page(EVIL, pages.NextSteps(EVIL, EVIL, EVIL)),
        pages.message_page(EVIL, EVIL),
        pages.home_page(EVIL, EVIL),
    ]
    for page in made:
        body = await html(page)
        assert "<script" not in body
        check(body)


@pytest_twisted.ensureDeferred
async def test_qr_code() -> None:
    """The QR code is the one of the very URL that the app must read, black on white with its quiet zone."""
    url = "otpauth://totp/example.test:alice?secret=JBSWY3DPEHPK3PXP&issuer=example.test"
    body = await html(pages.qr_code(url))
    assert 'role="img" aria-label="QR code' in body
    size = segno.make(url, error="m", micro=False).symbol_size(border=4)[0]
    assert f'viewBox="0 0 {size * 4} {size * 4}"' in body or f'viewBox="0 0 {size} {size}"' in body
    assert 'fill="#fff"' in body
    assert 'stroke="#000"' in body
    assert "style=" not in body
