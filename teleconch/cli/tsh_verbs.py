"""The verbs of ``tsh`` that go through click; ``ssh`` is here for its help only (see ``tsh_ssh``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import click

from teleconch.cli import boundary
from teleconch.cli.tsh_flags import SSH_FLAGS
from teleconch.cli.tsh_params import UserGroup, as_option

_COMMANDS = {
    "login": "tsh_login:login",
    "logout": "tsh_login:logout",
    "status": "tsh_login:status",
    "scp": "tsh_scp:scp",
    "ls": "tsh_ls:list_nodes",
    "config": "tsh_config:config",
    "signup": "tsh_signup:signup",
}


class Tsh(UserGroup):
    """Imports a verb when it is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return ["login", "ssh", *(name for name in _COMMANDS if name != "login"), "help", "version"]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return super().get_command(context, name)
        return boundary.imported(_COMMANDS[name])


@click.group(cls=Tsh, context_settings=boundary.SETTINGS)
def tsh() -> None:
    """Log in to a cluster and reach its nodes."""


@tsh.command(params=[as_option(flag) for flag in SSH_FLAGS])
@click.argument("destination", metavar="[LOGIN@]NODE")
@click.argument("command", nargs=-1)
def ssh(**_: object) -> None:
    """Open a shell on NODE, or run COMMAND there.

    NODE is a node's name, its UUID, or a label key=value. A COMMAND runs on all nodes that have the label. The exit
    status is the command's, of several the worst; 255 if there was no connection. In a session, ~. at the start of a
    line leaves at once; ~? lists the other escapes.
    """
    raise AssertionError("tsh ssh does not come here")


@tsh.command()
def version() -> None:
    """Print the version."""
    from teleconch import __version__

    click.echo(f"tsh (teleconch) {__version__}")


boundary.add_help_command(tsh)


def run(arguments: Sequence[str]) -> NoReturn:
    """Run ``tsh`` with these arguments."""
    boundary.run(tsh, "tsh", arguments)
