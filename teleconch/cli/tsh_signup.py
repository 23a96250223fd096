"""``tsh signup URL``: what the sign-up page does, in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from shlex import quote
from typing import TYPE_CHECKING, TypeVar

import click

from teleconch.cli import boundary
from teleconch.cli.tsh_params import UserCommand, given, known_profile, pin_flag, profiles
from teleconch.client.prompts import ask_secret, ask_text
from teleconch.errors import BadParameter

if TYPE_CHECKING:
    from teleconch.client.web import WebClient
    from teleconch.resources.login import Signup
    from teleconch.resources.secret import Secret

T = TypeVar("T")

_TRIES = 3


@click.command(cls=UserCommand)
@click.argument("url")
def signup(url: str) -> None:
    """Set your password and second factor with the sign-up link that you were given.

    Where standard input is no terminal, the password (twice) and the code are read from it, a line each.
    """
    from teleconch.client.address import parse_proxy
    from teleconch.client.trust import Trust
    from teleconch.client.web import WebClient, parse_signup_url

    flags = given()
    proxy, token = parse_signup_url(url)
    address = parse_proxy(proxy)
    pin = pin_flag()
    store = profiles()
    known = known_profile(store, address)
    authorities = tuple(cert for each in store.authorities(known) for cert in each.tls_certs) if known else ()
    if flags.insecure:
        boundary.say_warning("With --insecure nobody checks who the proxy is: it learns your password, whoever it is.")
    web = WebClient(address, Trust(pin, authorities, bool(flags.insecure)))
    started = web.start_signup(token)
    _show(started)
    user = _finish(web, token, started)
    trust = f" --ca-pin={pin}" if pin else " --insecure" if flags.insecure else ""
    click.echo(f"\n{user} is signed up in {started.cluster}. Now log in:\n")
    click.echo(f"    tsh login --proxy={quote(proxy)} --user={quote(user)}{trust}")


def _show(started: Signup) -> None:
    click.echo(f"Sign up {started.user} in the cluster {started.cluster}.\n")
    if started.otp_secret is None:
        return
    if started.otp_url is not None and sys.stdout.isatty():
        import segno

        click.echo("Scan this with an authenticator app:\n")
        segno.make(started.otp_url.reveal(), micro=False).terminal(out=sys.stdout, compact=True)
    click.echo(f"Secret for the authenticator: {started.otp_secret.reveal()}\n")


def _finish(web: WebClient, token: Secret, started: Signup) -> str:
    """Ask for a password, then for a code. Returns the user's name. After a wrong code the password is not asked for
    again."""
    password = _patiently(_new_password)

    def finish() -> str:
        code = ask_text("Code from the authenticator").replace(" ", "") if started.otp_secret is not None else ""
        return web.finish_signup(token, password, code)

    return _patiently(finish)


def _patiently(step: Callable[[], T]) -> T:
    """Returns what ``step`` returns. At a terminal, an answer that is not good enough is asked for again.
    BadParameter."""
    for _ in range(_TRIES - 1 if sys.stdin.isatty() else 0):
        try:
            return step()
        except BadParameter as problem:
            boundary.say_error(f"{problem} Once more:")
    return step()


def _new_password() -> Secret:
    from teleconch.defaults import PASSWORD_MAX, PASSWORD_MIN

    password = ask_secret("New password")
    length = len(password.reveal().encode())
    if not PASSWORD_MIN <= length <= PASSWORD_MAX:
        raise BadParameter(f"The password must have {PASSWORD_MIN} to {PASSWORD_MAX} bytes.")
    if ask_secret("The same password again") != password:
        raise BadParameter("The two passwords differ: type the same one twice.")
    return password
