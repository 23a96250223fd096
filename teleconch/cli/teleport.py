"""``teleport``: runs a host's roles, and helps to configure them."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from teleconch.cli import boundary
from teleconch.cli.teleport_start import hide_token, say_warnings, start
from teleconch.errors import ConfigError
from teleconch.text import shown


@click.group(context_settings=boundary.SETTINGS)
@boundary.debug_option
def teleport() -> None:
    """The daemon of a cluster: SSH access through short-lived certificates.

    A host runs one or more roles. auth signs certificates, proxy is where users come in, node lets them log in.
    """


@teleport.command(short_help="Print a sample configuration, or check one.")
@click.option("--check", "check_file", metavar="FILE", help="Check FILE and print everything that is wrong in it.")
@click.option("--test", "test_file", metavar="FILE", hidden=True)
def configure(check_file: str | None, test_file: str | None) -> None:
    """Print a commented sample of teleport.yaml, with the defaults.

    With --check, read FILE as 'teleport start -c FILE' would, start nothing, and print every warning and every error
    with its line. Exit status 0 if the file is good, 1 if not.
    """
    if test_file is not None:
        raise click.UsageError(
            f"--test is an option of later versions of Teleport. Here: teleport configure --check {test_file}"
        )
    if check_file is None:
        from teleconch.config.sample import SAMPLE

        click.echo(SAMPLE, nl=False)
        return
    from teleconch.config.load import read_config

    try:
        config = read_config(check_file)
    except ConfigError as e:
        say_warnings(e.warnings)
        raise
    say_warnings(config.warnings)
    click.echo(f"{check_file} is good. It starts: {', '.join(config.roles)}.")


@teleport.command(short_help="Show the session that this shell runs in.")
def status() -> int:
    """Show who and where you are, inside a session on a node.

    Exit status 1 outside of one.
    """
    session = os.environ.get("SSH_SESSION_ID")
    if not session:
        boundary.say_error("This is not a session of a cluster's node. Log in to one first: tsh ssh LOGIN@NODE")
        return 1
    peer = os.environ.get("SSH_CLIENT", "").split(" ")[0]
    logged_in = f", logged in as {_login()}{f' from {peer}' if peer else ''}"
    rows = (
        ("User ID", os.environ.get("SSH_TELEPORT_USER", "unknown") + logged_in),
        ("Cluster Name", os.environ.get("SSH_TELEPORT_CLUSTER_NAME", "unknown")),
        ("Host UUID", os.environ.get("SSH_TELEPORT_HOST_UUID", "unknown")),
        ("Session ID", session),
    )
    for title, value in rows:
        click.echo(f"{title:<12}: {shown(value, mark='?')}")
    return 0


@teleport.command(short_help="Print the version.")
def version() -> None:
    """Print the version of this program and of Python."""
    import platform

    from teleconch import __version__

    click.echo(f"teleconch v{__version__} python {platform.python_version()}")


teleport.add_command(start)
boundary.add_help_command(teleport)


def _login() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def main() -> NoReturn:
    """The program ``teleport``."""
    hide_token(sys.argv)
    boundary.run(teleport, "teleport")
