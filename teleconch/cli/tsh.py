"""``tsh``: the user's program. ``tsh ssh`` takes a short cut (``tsh_ssh``); all other verbs go through click."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from teleconch.cli.tsh_command import find_verb, parse_ssh
from teleconch.cli.tsh_flags import WrongUsage


def leave(status: int) -> NoReturn:
    """End the process without tearing down the interpreter, which would take longer than a handshake."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    os._exit(status)


def _fill_descriptors() -> None:
    """Open ``/dev/null`` wherever standard input, output or error was closed (``<&-``). Otherwise the next file or
    socket to be opened would take that number, and be read or written in its place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            name = ("stdin", "stdout", "stderr")[number]
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main() -> NoReturn:
    """The program. Called through a link named ``ssh`` it is ``tsh ssh``."""
    _fill_descriptors()
    arguments = sys.argv[1:]
    if os.path.basename(sys.argv[0]) == "ssh":
        arguments = ["ssh", *arguments]
    try:
        given, verb, rest = find_verb(arguments)
        command = parse_ssh(given, rest) if verb == "ssh" and not given.help else None
    except WrongUsage as error:
        from teleconch.cli.tsh_ssh import say

        say("ERROR", f"{error} Try `tsh help ssh`.")
        sys.exit(2)
    if command is not None and command.given.show_version:
        from teleconch import __version__

        print(f"tsh (teleconch) {__version__}", file=sys.stderr)
        leave(0)
    if command is not None:
        gc.disable()  # until everything is loaded: loading modules makes no garbage
        from teleconch.cli.tsh_ssh import run_ssh

        leave(run_ssh(command))
    from teleconch.cli.tsh_verbs import run

    run(arguments)
