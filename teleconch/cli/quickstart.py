"""``make start``: a cluster on this machine's loopback, and what to type next. ``python -m ... FOLDER``."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from teleconch import defaults
from teleconch.cli import boundary

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from teleconch.config.values import Config
    from teleconch.service.roles import Roles

CONFIG = """\
# A cluster of one machine, on loopback. `teleport configure` prints every key with its meaning.
teleport:
  nodename: {nodename}
  data_dir: {data_dir}
  log:
    output: {log}
    severity: INFO
auth_service:
  enabled: yes
  cluster_name: main
  listen_addr: 127.0.0.1:3025
  authentication:
    type: local
    second_factor: otp
ssh_service:
  enabled: yes
  listen_addr: 127.0.0.1:3022
proxy_service:
  enabled: yes
  listen_addr: 127.0.0.1:3023
  web_listen_addr: 127.0.0.1:3080
  public_addr: localhost:3080
  ssh_public_addr: localhost:3023
"""


@click.command(context_settings=boundary.SETTINGS)
@boundary.debug_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def quickstart(folder: Path) -> int:
    """Run auth, proxy and node in the foreground; everything that they store is in FOLDER. Returns the exit status."""
    from teleconch.config.load import read_config
    from teleconch.service.run import run

    path = _configuration(folder.absolute())
    config = read_config(str(path))
    for file, line, sentence in config.warnings:
        boundary.say_warning(f"{file}:{line}: {sentence}")
    click.echo(f"Starting ... (the log is {config.teleport.log.output})")

    def when_ready(roles: Roles) -> None:
        from twisted.internet.defer import Deferred

        Deferred.fromCoroutine(_say_what_next(roles, config)).addErrback(_not_said)

    run(config, debug=boundary.debug_wanted(), when_ready=when_ready, terminal_lost=_terminal_lost(sys.stdin))
    click.echo("Ended. `make start` goes on with the same cluster.")
    return 0


def _terminal_lost(stdin: TextIO) -> Callable[[], bool] | None:
    """For a program in the foreground of a terminal: a function that says whether the terminal is gone."""
    if not stdin.isatty():
        return None

    def lost() -> bool:
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return True
        return False

    return lost


def _configuration(folder: Path) -> Path:
    path = folder / "teleport.yaml"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        nodename = socket.gethostname().split(".")[0] or "node"
        text = CONFIG.format(nodename=nodename, data_dir=folder / "data", log=folder / "teleport.log")
        aside = path.with_suffix(".new")
        aside.write_text(text)
        aside.chmod(0o600)
        aside.rename(path)
    return path


def _not_said(failure: Failure) -> None:
    boundary.say_error(f"The sign-up link could not be made: {failure.getErrorMessage()}")


async def _say_what_next(roles: Roles, config: Config) -> None:
    assert roles.auth is not None
    server = roles.auth.server
    status = await server.facts.status()
    user = getpass.getuser()
    web = str((config.proxy_service.public_addr or (config.proxy_service.web_listen_addr,))[0])
    link = await _signup_link(roles, user, web)
    node = config.teleport.nodename
    steps = [f'cd {shlex.quote(os.getcwd())} && export PATH={_bin()}:"$PATH"']
    trust = f"--ca-pin={status.ca_pins[0]}"
    click.echo(
        f"\nteleport is ready: cluster {status.cluster}, node {node}, on loopback."
        " Ctrl-C ends it.\n\nIn another terminal:\n\n    " + "\n    ".join(steps) + "\n"
    )
    if link is not None:
        click.echo(f"Sign up, in a browser or in the terminal (the link works for an hour):\n\n    {link}\n")
        click.echo(f"    tsh signup {trust} {link}\n")
    click.echo(f"Log in, look around, and work:\n\n    tsh login --proxy={web} --user={user} {trust}")
    click.echo(f"    tsh ls\n    tsh ssh {user}@{node} hostname\n\nOr with plain ssh:\n")
    click.echo(f"    mkdir -p -m 700 ~/.ssh && tsh config >> ~/.ssh/config\n    ssh {node}.{status.cluster} hostname\n")
    tctl = f"tctl -c {shlex.quote(os.path.relpath(config.filename or ''))}"
    if link is None:
        click.echo(f"No password yet, or forgotten?  {tctl} users reset {user}")
    click.echo(f"Administer:  {tctl} users ls")
    sys.stdout.flush()


async def _signup_link(roles: Roles, user: str, web: str) -> str | None:
    """A new sign-up link for a user who is new or has not used the last one; ``None`` for one who has signed up."""
    from teleconch.resources.user import User

    assert roles.auth is not None
    server = roles.auth.server
    if user not in {known.name for known in await server.users.list_users()}:
        token = await server.users.create_user(User(name=user, traits={"logins": (user,)}), defaults.SIGNUP_TOKEN_TTL)
    elif any(token.user == user for token in await server.tokens.list_tokens()):
        token = await server.users.reset_user(user, defaults.SIGNUP_TOKEN_TTL)
    else:
        return None
    return f"https://{web}/web/newuser/{token.value.reveal()}"


def _bin() -> str:
    folder = os.path.relpath(os.path.dirname(sys.executable))
    return (
        f'"$PWD"/{shlex.quote(folder)}' if not folder.startswith("..") else shlex.quote(os.path.dirname(sys.executable))
    )


if __name__ == "__main__":
    boundary.run(quickstart, "make start")
