"""Questions to the person at the terminal. If standard input is not a terminal, each answer is one line of it."""

from __future__ import annotations

import getpass
import sys

from teleconch.errors import BadParameter, quoted
from teleconch.resources.secret import Secret


def ask_secret(question: str) -> Secret:
    """An answer that is not shown. BadParameter at the end of the input."""
    return Secret(_ask(question, hidden=True))


def ask_text(question: str) -> str:
    """An answer that is shown while it is typed. BadParameter at the end of the input."""
    return _ask(question, hidden=False)


def _ask(question: str, hidden: bool) -> str:
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise BadParameter(
                f"There is no answer to {quoted(question)}: run this at a terminal, or pipe the answers in."
            )
        return line.removesuffix("\n").removesuffix("\r")
    try:
        if hidden:
            return getpass.getpass(f"{question}: ")
        sys.stderr.write(f"{question}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.strip()
    except EOFError:
        sys.stderr.write("\n")
        raise BadParameter("Nothing was typed, so nothing was done.") from None
