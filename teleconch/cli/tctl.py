"""``tctl``: administers a cluster, on the host where its auth server runs.

Each noun has its own file and is imported when it is used::

    tctl users|nodes|tokens|auth|status|get|create|rm|version
      -> tctl_admin: configuration -> the admin identity in data_dir -> the auth API over TLS
"""

from __future__ import annotations

from typing import NoReturn

import click

from teleconch.cli import boundary
from teleconch.cli.tctl_params import AdminGroup

_COMMANDS = {
    "users": "tctl_users:users",
    "nodes": "tctl_nodes:nodes",
    "tokens": "tctl_tokens:tokens",
    "auth": "tctl_auth:auth",
    "status": "tctl_status:status",
    "get": "tctl_resources:get",
    "create": "tctl_resources:create",
    "rm": "tctl_resources:remove",
}


class Tctl(AdminGroup):
    """Imports a noun when it is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*_COMMANDS, *(name for name in super().list_commands(context) if name not in _COMMANDS)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return super().get_command(context, name)
        return boundary.imported(_COMMANDS[name])


@click.group(cls=Tctl, context_settings=boundary.SETTINGS)
def tctl() -> None:
    """Administer a cluster. Runs on the host of its auth server, as root or as the user that runs teleport."""


@tctl.command()
def version() -> None:
    """Print the version."""
    from teleconch import __version__

    click.echo(f"tctl (teleconch) {__version__}")


boundary.add_help_command(tctl)


def main() -> NoReturn:
    boundary.run(tctl, "tctl")


if __name__ == "__main__":
    main()
