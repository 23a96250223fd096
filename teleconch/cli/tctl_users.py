"""``tctl users``: local users, their logins, and their sign-up links."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from teleconch import defaults
from teleconch.cli.tables import Column, format_option, write_document, write_table
from teleconch.cli.tctl_params import AdminGroup, CommaList, ttl_option
from teleconch.resources.login import SignupToken

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI
    from teleconch.resources.lockout import Lockout
    from teleconch.resources.user import User

_TTL = ttl_option("1h", defaults.TOKEN_TTL_MAX, "How long the sign-up link is valid; at most 48h.")


@click.group(cls=AdminGroup)
def users() -> None:
    """Users of the cluster."""


@users.command()
@click.argument("account")
@click.argument("logins", type=CommaList(), required=False)
@_TTL
@format_option()
def add(account: str, logins: tuple[str, ...] | None, ttl: float, output_format: str) -> None:
    """Add the user ACCOUNT and print the link with which they sign up.

    LOGINS is a comma list of the OS users as which they may log in on the nodes; ACCOUNT itself if left out.
    """
    from teleconch.cli.tctl_admin import call
    from teleconch.resources.user import User

    user = User(account, traits={"logins": logins or (account,)})
    token, pin = call(lambda api: _with_pin(api, lambda: api.create_user(user, ttl)))
    what = f"User {account} has been added; allowed logins: {', '.join(user.logins)}."
    _write_signup(token, pin, ttl, what, output_format)


@users.command(short_help="Void a user's password and give a new sign-up link.")
@click.argument("account")
@_TTL
@format_option()
def reset(account: str, ttl: float, output_format: str) -> None:
    """Void a user's password and second factor, end a lock-out, and print a new sign-up link."""
    from teleconch.cli.tctl_admin import call

    token, pin = call(lambda api: _with_pin(api, lambda: api.reset_user(account, ttl)))
    what = f"User {account} has been reset: password and second factor no longer work."
    _write_signup(token, pin, ttl, what, output_format)


@users.command(short_help="Let a user in again after wrong answers.")
@click.argument("account")
@format_option()
def unlock(account: str, output_format: str) -> None:
    """Forget the wrong answers that were given for the user ACCOUNT, so that they can log in at once from anywhere.

    Password and second factor stay as they are. If somebody else may know the password, use `tctl users reset`.
    """
    from teleconch.cli.tctl_admin import call

    unlocked = call(lambda api: api.unlock_user(account))
    if output_format != "text":
        write_document({"user": account, "unlocked": unlocked}, output_format)
    elif unlocked:
        click.echo(f"User {account} has been unlocked: wrong answers are forgotten; password and second factor stay.")
    else:
        click.echo(f"User {account} is not locked out: no wrong answers of the last half hour are recorded.")


@users.command("ls")
@format_option()
def list_users(output_format: str) -> None:
    """List the users, and from where they are locked out after wrong answers.

    `tctl users unlock` ends a lock-out.
    """
    from teleconch.cli.tctl_admin import call
    from teleconch.resources.documents import document

    found, lockouts = call(_with_lockouts)
    if output_format != "text":
        written = [document(user) for user in found]
        for each in written:
            _add_lockouts(each, lockouts)
        write_document(written, output_format)
        return
    write_table(
        ["User", Column("Allowed Logins", fold=True), Column("Locked Out", fold=True)],
        [(user.name, ",".join(user.logins), _lockouts_text(lockouts.get(user.name, ()))) for user in found],
        empty="There are no users yet. Add one: tctl users add NAME",
    )


@users.command("rm")
@click.argument("accounts", type=CommaList(), metavar="ACCOUNT[,ACCOUNT...]")
def remove(accounts: tuple[str, ...]) -> int:
    """Delete users. Certificates that they hold stay valid until they expire."""
    from teleconch.cli.tctl_admin import OneByOne, call

    each = OneByOne("{} has been deleted. SSH certificates that they hold work until they expire.")
    call(lambda api: each.run((f"User {name}", api.delete_user, name) for name in accounts))
    return each.told()


async def _with_lockouts(api: AuthAPI) -> tuple[tuple[User, ...], dict[str, list[Lockout]]]:
    by_user: dict[str, list[Lockout]] = {}
    for each in await api.list_lockouts():
        by_user.setdefault(each.user, []).append(each)
    return await api.list_users(), by_user


def _lockouts_text(lockouts: Sequence[Lockout]) -> str:
    from teleconch.resources.times import utc_text

    return ", ".join(f"from {_source_text(each)} until {utc_text(each.until)}" for each in lockouts)


def _source_text(lockout: Lockout) -> str:
    return "all new addresses" if lockout.source is None else lockout.source or "an unknown address"


def _add_lockouts(document: dict[str, Any], lockouts: Mapping[str, Sequence[Lockout]]) -> None:
    """Add ``spec.status``, as Teleport has it, for a user who is locked out; ``tctl create`` ignores it."""
    from teleconch.resources.times import rfc3339

    found = lockouts.get(document["metadata"]["name"])
    if found:
        listed = [{"source": each.source, "until": rfc3339(each.until)} for each in found]
        document["spec"]["status"] = {"lockouts": listed}


async def _with_pin(api: AuthAPI, make: Callable[[], Awaitable[SignupToken]]) -> tuple[SignupToken, str]:
    """A sign-up link, and the pin by which ``tsh`` recognises the proxy. Asks for the pin first, so that no link is
    made in vain."""
    status = await api.status()
    return await make(), status.ca_pins[0]


def _write_signup(token: SignupToken, pin: str, ttl: float, what: str, output_format: str) -> None:
    from teleconch.cli.tctl_admin import load_config
    from teleconch.cli.tctl_where import NO_PROXY, web_address, web_note
    from teleconch.resources.times import duration_text, rfc3339, utc_text

    config = load_config()
    proxy = web_address(config)
    url = f"https://{proxy or f'{NO_PROXY}:{defaults.WEB_PORT}'}/web/newuser/{token.value.reveal()}"
    if output_format != "text":
        value = {"user": token.user, "url": url, "token": token.value.reveal(), "expires": rfc3339(token.expires)}
        write_document(value, output_format)
        return
    click.echo(what)
    click.echo(
        f"\nSign-up link, valid for {duration_text(ttl)} (until {utc_text(token.expires)}). Share it with the user:\n"
    )
    click.echo(f"    {url}\n")
    click.echo(f"or, to sign up in a terminal:\n\n    tsh signup --ca-pin={pin} {url}\n")
    click.echo(f"NOTE: {web_note(config)}")
