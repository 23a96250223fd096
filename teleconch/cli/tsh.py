"""``tsh``: the user's program. ``tsh ssh`` goes a short way (``tsh_ssh``), all other verbs through click."""

from __future__ import annotations

import os
import sys

from teleconch.cli.tsh_flags import WrongUsage, find_verb, parse_ssh


def main() -> None:
    """The program. As a link named ``ssh`` it is ``tsh ssh``."""
    arguments = sys.argv[1:]
    if os.path.basename(sys.argv[0]) == "ssh":
        arguments = ["ssh", *arguments]
    try:
        given, verb, rest = find_verb(arguments)
        command = parse_ssh(given, rest) if verb == "ssh" and not given.help else None
    except WrongUsage as error:
        from teleconch.cli.tsh_ssh import say

        say("ERROR", f"{error} Try `tsh help`.")
        sys.exit(2)
    if command is not None:
        from teleconch.cli.tsh_ssh import run_ssh

        sys.exit(run_ssh(command))
    from teleconch.cli.tsh_verbs import run

    run(arguments)
