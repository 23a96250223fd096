"""What a ``tsh ssh`` command line asks a node for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from teleconch.cli.tsh_command import SSHCommand
from teleconch.cli.tsh_flags import Given, WrongUsage
from teleconch.client.session import SessionRequest
from teleconch.resources.address import split_address

_LOCALE = ("LANG", "LC_")


def session_request(command: SSHCommand, warn: Callable[[str], None]) -> SessionRequest:
    """The shell, command, subsystem or connection (``-W``) that is wanted, with or without a terminal. WrongUsage."""
    given = command.given
    if given.stdio_forward:
        return SessionRequest(None, False, place=_stdio_place(given.stdio_forward))
    asked = int(given.tty or 0)  # as with ssh: a second -t is for standard input that is not a terminal
    wanted = (asked or (command.command is None and not given.subsystem)) and not given.no_tty
    terminal = bool(wanted) and (asked > 1 or os.isatty(0))
    if asked and wanted and not terminal and "=" not in command.destination:
        warn("The command gets no terminal, since standard input is not one; -tt asks for one anyway.")
    return SessionRequest(command.command, terminal, asked > 1, _environment(given), bool(given.subsystem))


def escape_character(given: Given) -> bytes:
    """The escape character of sessions; empty for none."""
    return b"~" if given.escape is None else bytes(given.escape)


def _environment(given: Any) -> tuple[tuple[str, str], ...]:
    """Our variables that the node is sent (``SendEnv``), and those of ``SetEnv``. The node takes those it allows."""
    from fnmatch import fnmatchcase

    found = {name: value for name, value in os.environ.items() if name.startswith(_LOCALE)}
    for pattern in given.send_env or ():
        if pattern.startswith("-"):
            found = {name: value for name, value in found.items() if not fnmatchcase(name, pattern[1:])}
        else:
            found |= {name: value for name, value in os.environ.items() if fnmatchcase(name, pattern)}
    for pair in given.set_env or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise WrongUsage(f"-o SetEnv={pair}: give it as NAME=VALUE.")
        found[name] = value
    return tuple(found.items())


def _stdio_place(text: str) -> tuple[str, int]:
    host, port = split_address(text, loose=True) or ("", None)
    if port is None:
        raise WrongUsage(f"-W {text}: give it as HOST:PORT, with IPv6 addresses in [ ].")
    return host, port
