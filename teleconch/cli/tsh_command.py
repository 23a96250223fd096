"""The command line of tsh, read: which verb, and for ``ssh``, which has to start fast, the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from teleconch.cli.tsh_flags import GLOBAL_FLAGS, SSH_FLAGS, Given, WrongUsage, take_flags, without_effect


class SSHCommand(NamedTuple):
    """``tsh ssh``, read. ``command`` None asks for a shell."""

    given: Given
    destination: str
    command: str | None
    warnings: tuple[str, ...]


def parse_ssh(given: Given, arguments: Sequence[str]) -> SSHCommand | None:
    """What stands behind ``tsh [flags] ssh``; None where help is wanted. Flags may stand before and behind the host,
    as with OpenSSH; the first word behind those begins the command. WrongUsage."""
    flags = (*GLOBAL_FLAGS, *SSH_FLAGS)
    at = take_flags(arguments, flags, given)
    if given.help:
        return None
    if given.show_version:
        return SSHCommand(given, "", None, ())
    if at >= len(arguments):
        raise WrongUsage("Say where to go: tsh ssh [FLAGS] [LOGIN@]NODE [COMMAND].")
    destination = arguments[at]
    ended = "--" in arguments[:at]  # then no flags stand behind the host
    at += 1
    if not ended:
        at += take_flags(arguments[at:], flags, given)
    if given.help:
        return None
    words = arguments[at:]
    command = " ".join(words) or None  # the node's shell takes the words apart again
    warnings = without_effect(given)
    if given.option or given.escape_character:
        from teleconch.cli.tsh_options import apply_options

        warnings += apply_options(given)
        command = command or given.remote_command
    if given.x11:
        warnings += ("tsh forwards no X11; `tsh config` lets `ssh -X` do that.",)
    if given.no_agent:
        given.values["forward_agent"] = False
    return SSHCommand(given, destination, command, warnings)


def find_verb(arguments: Sequence[str]) -> tuple[Given, str | None, Sequence[str]]:
    """The flags before the verb, the verb, and what stands behind it. WrongUsage."""
    given = Given()
    at = take_flags(arguments, GLOBAL_FLAGS, given)
    if at >= len(arguments):
        return given, None, ()
    return given, arguments[at], arguments[at + 1 :]
