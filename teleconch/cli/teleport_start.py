"""``teleport start``: combines the configuration file and the flags, and runs the roles until a signal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from teleconch.cli import boundary
from teleconch.errors import BadParameter, quoted

if TYPE_CHECKING:
    from teleconch.config.addresses import Address
    from teleconch.config.flags import Flags
    from teleconch.config.values import CommandLabel, Config

_DEFAULT_FILE = "/etc/teleport.yaml"
_ROLES = ("proxy", "node", "auth")
_HELD = "/proc/self/fd/"
_STDERR = 2


def say_warnings(warnings: tuple[tuple[str, int, str], ...]) -> None:
    """Print the configuration's warnings on stderr."""
    for file, line, sentence in warnings:
        boundary.say_warning(f"{file}:{line}: {sentence}" if file else sentence)


def _parsed(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that parses an option (or each value of a repeated one), so that a wrong value is a usage error."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(parse(item) for item in value)
            return None if value is None else parse(value)
        except BadParameter as e:
            raise click.BadParameter(str(e)) from None

    return callback


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(role.strip() for role in text.split(","))
    for role in roles:
        if role not in _ROLES:
            raise BadParameter(f"{quoted(role)} is not a role. Possible: {', '.join(_ROLES)}.")
    return roles


def _auth_server(text: str) -> Address:
    from teleconch import defaults
    from teleconch.config.addresses import parse_server

    return parse_server(text, defaults.AUTH_PORT)


def _listen_ip(text: str) -> str:
    from teleconch.config.addresses import parse_host

    return parse_host(text)


def _diag_addr(text: str) -> Address:
    from teleconch.config.addresses import parse_address

    return parse_address(text, 3000, default_host="127.0.0.1", port_0=True)


def _advertise(text: str) -> str:
    from teleconch.config.addresses import parse_reachable

    parse_reachable(text, 1)
    return text


def _labels(text: str) -> tuple[dict[str, str], tuple[CommandLabel, ...]]:
    from teleconch.config.labels import parse_labels

    return parse_labels(text)


def _nodename(text: str) -> str:
    from teleconch.config.addresses import check_host_name

    return check_host_name(text)


def _pin(text: str) -> str:
    from teleconch.resources.pin import check_pin

    return check_pin(text)


@click.command(short_help="Start this host's roles.")
@boundary.debug_option
@click.option("-c", "--config", "config_file", metavar="FILE", help=f"Configuration file.  [default: {_DEFAULT_FILE}]")
@click.option(
    "-r", "--roles", metavar="ROLES", callback=_parsed(_roles), help="Run exactly these, of: proxy,node,auth."
)
@click.option(
    "--auth-server",
    "auth_servers",
    metavar="HOST[:PORT]",
    multiple=True,
    callback=_parsed(_auth_server),
    help="Auth server of the cluster; may be repeated. Turns the role auth off here.",
)
@click.option("--token", metavar="TOKEN", help="Token to join with, or the path of a file that holds it.")
@click.option(
    "--ca-pin",
    "ca_pins",
    metavar="sha256:HEX",
    multiple=True,
    callback=_parsed(_pin),
    help="Pin of the cluster's authority, from 'tctl status'; may be repeated.",
)
@click.option("--nodename", metavar="NAME", callback=_parsed(_nodename), help="Name of this host in the cluster.")
@click.option("--labels", metavar="K=V,...", callback=_parsed(_labels), help="Labels of the node; added to the file's.")
@click.option(
    "--advertise-ip", metavar="HOST", callback=_parsed(_advertise), help="Address by which others reach this host."
)
@click.option("-l", "--listen-ip", metavar="IP", callback=_parsed(_listen_ip), help="Listen on this address only.")
@click.option("--pid-file", metavar="FILE", help="Write the process ID to FILE.")
@click.option(
    "--diag-addr",
    metavar="HOST:PORT",
    callback=_parsed(_diag_addr),
    help="Serve /healthz and /readyz over plain HTTP here.",
)
@click.option("--insecure", is_flag=True, help="No effect: certificates are always verified.")
@click.option("--permit-user-env", is_flag=True, help="Let users set variables in ~/.tsh/environment.")
@click.option("--insecure-no-tls", is_flag=True, help="No effect: the proxy's web pages always use TLS.")
@click.option("--bootstrap", metavar="FILE", help="Not available in this version.")
@boundary.without_effect("--gops", why="it is for programs in Go; see --diag-addr")
@boundary.without_effect("--gops-addr", value="ADDRESS", why="it is for programs in Go; see --diag-addr")
@click.option("--fips", is_flag=True, help="Not available.")
def start(
    config_file: str | None,
    diag_addr: Address | None,
    insecure: bool,
    permit_user_env: bool,
    insecure_no_tls: bool,
    bootstrap: str | None,
    fips: bool,
    **given: Any,
) -> int:
    """Start this host's roles in the foreground, until SIGTERM or Ctrl-C.

    What a flag says goes before what the configuration file says. Without --roles, the file decides which roles run;
    without a file, all of them do. 'teleport is ready' in the log means that all of it works.

    \b
    Examples:
        teleport start -c /etc/teleport.yaml
        teleport start --roles=node --token=TOKEN --ca-pin=PIN --auth-server=10.0.10.5
    """
    if fips or bootstrap is not None:
        raise click.UsageError(f"{'--fips' if fips else '--bootstrap'} is not available in this version.")
    labels, commands = given.pop("labels") or ({}, ())
    if insecure_no_tls:
        boundary.say_warning("--insecure-no-tls has no effect: the proxy's web pages always use TLS.")
    config = _configuration(
        config_file, _flags(labels=labels, commands=commands, permit_user_env=permit_user_env, **given)
    )
    say_warnings(config.warnings)

    from teleconch.service.run import run

    return run(
        config,
        debug=boundary.debug_wanted(),
        pid_file=config.teleport.pid_file,
        diag_addr=diag_addr,
        insecure=insecure,
    )


def _flags(
    *,
    roles: tuple[str, ...] | None,
    auth_servers: tuple[Address, ...],
    token: str | None,
    ca_pins: tuple[str, ...],
    nodename: str | None,
    labels: dict[str, str],
    commands: tuple[CommandLabel, ...],
    permit_user_env: bool,
    advertise_ip: str | None,
    listen_ip: str | None,
    pid_file: str | None,
) -> Flags:
    from teleconch.config.document import Findings
    from teleconch.config.flags import Flags
    from teleconch.config.secrets import TokenFileProblem, read_token

    secret, problem = None, ""
    try:
        secret = None if token is None else read_token(token, Findings(""), 0)
    except TokenFileProblem as e:
        problem = str(e)
        boundary.say_warning(f"--token: {e} A host that has joined needs none.")
    except BadParameter as e:
        raise click.UsageError(f"--token: {e}") from None
    _let_go(token or "")
    return Flags(
        roles=roles,
        nodename=nodename,
        auth_servers=auth_servers,
        token=secret,
        token_problem=problem,
        ca_pin=ca_pins,
        advertise_ip=advertise_ip,
        listen_ip=listen_ip,
        labels=labels,
        commands=commands,
        permit_user_env=permit_user_env,
        pid_file=None if pid_file is None else os.path.abspath(pid_file),
    )


def _configuration(file: str | None, flags: Flags) -> Config:
    """The configuration from file and flags. A named file must exist; the default one may be missing."""
    from teleconch.config.load import default_config, read_config

    if file is None and not os.path.lexists(_DEFAULT_FILE):
        return default_config(flags)
    return read_config(file or _DEFAULT_FILE, flags)


def hide_token(arguments: list[str]) -> None:
    """Start the program again, in the same process, if a ``--token`` gives the token itself: every user of the machine
    can read a program's arguments as long as it runs. The token is passed through a file without a name instead. If
    there are several, the last counts, and none stays in the arguments."""
    given = _token_arguments(arguments)
    if all(not token or token.startswith("/") for _, token in given):
        return
    path = given[-1][1]
    if path and not path.startswith("/"):
        held = os.memfd_create("token", 0)  # stays open across execve: no MFD_CLOEXEC
        os.fchmod(held, 0o600)
        os.write(held, path.encode("utf-8", "surrogateescape"))
        path = f"{_HELD}{held}"
        if not os.path.exists(path):  # no /proc
            os.close(held)
            return
    shown = list(arguments)
    for at, token in given:
        shown[at] = shown[at].removesuffix(token) + path
    interpreter = sys.orig_argv[: len(sys.orig_argv) - len(arguments) + 1]
    os.execv(sys.executable, [*interpreter, *shown[1:]])  # noqa: S606 - itself


def _token_arguments(arguments: list[str]) -> list[tuple[int, str]]:
    """The positions of tokens among the arguments of ``start``, and the tokens. Reads as click does, which takes
    whatever follows ``--token``."""
    given = []
    words = iter(range(1 + arguments.index("start", 1), len(arguments)) if "start" in arguments[1:] else ())
    for at in words:
        if arguments[at].startswith("--token="):
            given.append((at, arguments[at].removeprefix("--token=")))
        elif arguments[at] == "--token" and (value := next(words, None)) is not None:
            given.append((value, arguments[value]))
    return given


def _let_go(token: str) -> None:
    """Close the file of :func:`hide_token` after it was read. Never closes a standard stream: whatever is opened next
    would take its place."""
    number = token.removeprefix(_HELD)
    if token.startswith(_HELD) and number.isdecimal() and int(number) > _STDERR:
        os.close(int(number))
