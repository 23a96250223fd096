"""The web's pages: plain HTML that needs no script. All text is escaped by ``twisted.web.template``."""

from __future__ import annotations

from typing import Final

import segno
from attrs import frozen
from twisted.web.template import Flattenable, Tag, XMLString, tags

from teleconch.resources.login import Signup

STYLE_PATH: Final = "/web/style.css"


@frozen
class NextSteps:
    """What a new user types next. ``proxy`` is ``host`` or ``host:port``; ``pin`` is set if the certificate needs
    one."""

    proxy: str
    user: str
    pin: str | None


def _page(title: str, *content: Flattenable) -> Tag:
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.meta(name="robots", content="noindex"),
            tags.title(title),
            tags.link(rel="stylesheet", href=STYLE_PATH),
        ),
        tags.body(Tag("main")(*content), tags.footer("teleconch")),
        lang="en",
    )


def _alert(sentence: str | None) -> Flattenable:
    return tags.p(sentence, class_="alert", role="alert") if sentence else ""


def _field(label: str, name: str, hint: str = "", **attributes: str) -> Tag:
    described = {"aria-describedby": f"{name}-hint"} if hint else {}
    return tags.div(
        tags.label(label, for_=name),
        tags.input(id=name, name=name, required="required", **attributes, **described),
        tags.p(hint, class_="hint", id=f"{name}-hint") if hint else "",
        class_="field",
    )


def qr_code(text: str) -> Tag:
    """``text`` as a QR code in SVG: black on white even in dark mode, since cameras need that."""
    svg = segno.make(text, error="m", micro=False).svg_inline(
        scale=4, border=4, dark="#000", light="#fff", omitsize=True, svgclass="qr", lineclass=None
    )
    return tags.div(
        XMLString(svg).load(), class_="code", role="img", **{"aria-label": "QR code for your authenticator app"}
    )


def _grouped(secret: str) -> str:
    return " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))


def signup_page(action: str, signup: Signup, problem: str | None = None) -> Tag:
    """The form for the password and second factor. ``problem`` says why the last attempt failed; nothing typed is
    kept."""
    second: Flattenable = ""
    code: Flattenable = ""
    if signup.otp_url is not None and signup.otp_secret is not None:
        second = tags.section(
            tags.h2("Add the account to your authenticator app"),
            tags.p("Scan the code with an app such as FreeOTP, Aegis or Google Authenticator."),
            qr_code(signup.otp_url.reveal()),
            tags.p("No camera? Type this key into the app instead:"),
            tags.p(tags.code(_grouped(signup.otp_secret.reveal())), class_="secret"),
            class_="step",
        )
        code = _field(
            "Code from the app",
            "code",
            "The six digits that it shows now.",
            type="text",
            inputmode="numeric",
            autocomplete="one-time-code",
            pattern="[0-9 ]{6,8}",
            maxlength="8",
        )
    return _page(
        f"Sign up · {signup.cluster}",
        tags.header(
            tags.p(signup.cluster, class_="cluster"),
            tags.h1("Welcome, ", tags.strong(signup.user)),
            tags.p("Choose a password", " and set up your second factor" if code else "", " to finish signing up."),
        ),
        _alert(problem),
        second,
        tags.form(
            tags.h2("Choose a password"),
            # Not used by us: it lets password managers store the password under the right name.
            tags.input(
                type="text",
                name="username",
                value=signup.user,
                autocomplete="username",
                readonly="readonly",
                hidden="hidden",
            ),
            _field("Password", "password", "At least 8 characters.", **_PASSWORD),
            _field("Password again", "password2", **_PASSWORD),
            code,
            tags.button("Sign up", type="submit"),
            method="post",
            action=action,
            class_="step",
        ),
    )


_PASSWORD: Final = {"type": "password", "autocomplete": "new-password", "minlength": "8", "maxlength": "72"}


def _command(*words: str) -> Tag:
    """A command line that breaks only between words, as long as there is room."""
    return tags.pre(tags.code(*(part for word in words for part in (tags.span(word, class_="word"), " "))))


def done_page(cluster: str, steps: NextSteps) -> Tag:
    """What to type next, after a sign-up."""
    pin = (f"--ca-pin={steps.pin}",) if steps.pin else ()
    return _page(
        f"Signed up · {cluster}",
        tags.header(
            tags.p(cluster, class_="cluster"),
            tags.h1("You are signed up, ", tags.strong(steps.user)),
            tags.p("This page is no longer needed: the link works only once."),
        ),
        tags.section(
            tags.h2("Log in"),
            tags.p("In a terminal on your own computer:"),
            _command("tsh login", f"--proxy={steps.proxy}", f"--user={steps.user}", *pin),
            tags.h2("See the servers, and connect"),
            tags.pre(tags.code("tsh ls\ntsh ssh LOGIN@NODE")),
            tags.h2("Use plain ssh, scp, rsync, git"),
            tags.p("Once, to teach OpenSSH about this cluster:"),
            tags.pre(tags.code(f"tsh config >> ~/.ssh/config\nssh LOGIN@NODE.{cluster}")),
            class_="step",
        ),
    )


def message_page(title: str, *sentences: str) -> Tag:
    """A heading and some sentences."""
    return _page(title, tags.header(tags.h1(title), *(tags.p(sentence) for sentence in sentences)))


def home_page(cluster: str, proxy: str) -> Tag:
    """The page at ``/``."""
    return _page(
        f"{cluster or 'teleconch'} · SSH access",
        tags.header(
            tags.p(cluster, class_="cluster") if cluster else "",
            tags.h1("SSH access proxy"),
            tags.p("This server gives short-lived SSH certificates and connects SSH clients to the servers behind it."),
        ),
        tags.section(
            tags.h2("Have an account?"),
            _command("tsh login", f"--proxy={proxy}", "--user=YOU"),
            tags.h2("New here?"),
            tags.p("Ask your administrator for a sign-up link."),
            class_="step",
        ),
    )
