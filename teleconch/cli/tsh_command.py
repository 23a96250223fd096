"""Reads tsh's command line: the verb, and for ``ssh``, which has to start fast, everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from teleconch.cli.tsh_flags import GLOBAL_FLAGS, SSH_FLAGS, Given, WrongUsage, take_flags, without_effect


class SSHCommand(NamedTuple):
    """The command line of ``tsh ssh``. ``command`` is ``None`` for a shell."""

    given: Given
    destination: str
    command: str | None
    warnings: tuple[str, ...]


def parse_ssh(given: Given, arguments: Sequence[str]) -> SSHCommand | None:
    """Read what follows ``tsh [flags] ssh``; ``None`` if help is wanted. Flags may come before and after the host, as
    with OpenSSH; the first word after those begins the command. WrongUsage."""
    flags = (*GLOBAL_FLAGS, *SSH_FLAGS)
    at = take_flags(arguments, flags, given)
    if given.help:
        return None
    if given.show_version:
        return SSHCommand(given, "", None, ())
    if at >= len(arguments):
        raise WrongUsage("Say where to go: tsh ssh [FLAGS] [LOGIN@]NODE [COMMAND].")
    destination = arguments[at]
    ended = "--" in arguments[:at]  # then no flags follow the host
    at += 1
    if not ended:
        at += take_flags(arguments[at:], flags, given)
    if given.help:
        return None
    words = arguments[at:]
    command = " ".join(words) or None  # the node's shell splits it into words again
    warnings = without_effect(given)
    if given.option or given.escape_character:
        from teleconch.cli.tsh_options import apply_options

        warnings += apply_options(given)
        command = command or given.remote_command
    if given.x11:
        warnings += ("tsh does not forward X11; with `tsh config`, `ssh -X` does.",)
    if given.no_agent:
        given.values["forward_agent"] = False
    return SSHCommand(given, destination, command, warnings)


def find_verb(arguments: Sequence[str]) -> tuple[Given, str | None, Sequence[str]]:
    """The flags before the verb, the verb, and what follows it. WrongUsage."""
    given = Given()
    at = take_flags(arguments, GLOBAL_FLAGS, given)
    if at >= len(arguments):
        return given, None, ()
    return given, arguments[at], arguments[at + 1 :]
