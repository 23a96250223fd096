"""``tctl tokens``: what new hosts show to join, and new users to sign up. The values are printed, because they are
meant to be passed on to whoever needs them. Nothing logs them."""

from __future__ import annotations

import click

from teleconch import defaults
from teleconch.cli.tables import format_option, write_document, write_table
from teleconch.cli.tctl_params import AdminGroup, CommaList, ttl_option
from teleconch.resources.token import HOST_ROLES, SIGNUP, Token


@click.group(cls=AdminGroup)
def tokens() -> None:
    """Tokens with which hosts join and users sign up."""


@tokens.command()
@click.option("--type", "roles", type=CommaList((*HOST_ROLES, SIGNUP)), required=True, metavar="ROLE[,ROLE...]",
              help=f"What a host that shows it may become: {', '.join(HOST_ROLES)}.")  # fmt: skip
@click.option("--value", metavar="TOKEN", help="The token itself; a random one if left out.")
@ttl_option("1h", defaults.TOKEN_TTL_MAX, "How long it is valid; at most 48h.")
@format_option()
def add(roles: tuple[str, ...], value: str | None, ttl: float, output_format: str) -> None:
    """Make a token with which hosts may join the cluster."""
    from teleconch.cli.tctl_nodes import write_invitation

    if SIGNUP in roles:
        raise click.UsageError("A sign-up token belongs to a user: use `tctl users add` or `tctl users reset`.")
    write_invitation(roles, value, ttl, output_format)


@tokens.command("ls")
@format_option()
def list_tokens(output_format: str) -> None:
    """List the tokens that have not ended."""
    from teleconch.cli.tctl_admin import call
    from teleconch.resources.documents import document

    found = call(lambda api: api.list_tokens())
    if output_format != "text":
        write_document([document(token) for token in found], output_format)
        return
    write_token_table(found)


@tokens.command("rm")
@click.argument("values", type=CommaList(), metavar="TOKEN[,TOKEN...]")
def remove(values: tuple[str, ...]) -> int:
    """Revoke tokens. Hosts and users that used them already stay."""
    from teleconch.cli.tctl_admin import OneByOne, call
    from teleconch.resources.secret import Secret

    each = OneByOne()
    call(lambda api: each.run((f"Token {value}", api.delete_token, Secret(value)) for value in values))
    return each.told()


tokens.add_command(click.Command("del", params=remove.params, callback=remove.callback, hidden=True, help=remove.help))


def write_token_table(found: tuple[Token, ...]) -> None:
    """Print the table of ``tctl tokens ls``."""
    write_table(
        ["Token", "Type", "Expiry Time (UTC)"],
        [(token.value.reveal(), _type(token), _end(token)) for token in found],
        empty="There are no tokens. Invite a node: tctl nodes add",
    )


def _type(token: Token) -> str:
    if token.roles == (SIGNUP,):
        return f"User signup ({token.user})"
    return ",".join(role.capitalize() for role in token.roles)


def _end(token: Token) -> str:
    from teleconch.resources.times import utc_text

    return "static (config file)" if token.expires is None else utc_text(token.expires)
