"""Labels of a node: the rules for names, values and commands, and the form ``a=b,c=[1m:"cmd"]`` of ``--labels``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from teleconch.config.values import CommandLabel
from teleconch.errors import BadParameter, quoted
from teleconch.resources.durations import parse_duration

_KEY = re.compile(r"[A-Za-z0-9/._:*-]{1,255}", re.ASCII)
_VALUE_MAX = 255
_PERIOD_MIN = 1.0  # seconds
_PAIR = re.compile(r'\s*(?P<key>"[^"]*"|[^=,"]*?)\s*=\s*(?P<value>\[[^\]]*\]|"[^"]*"|[^,]*?)\s*(?:,|\Z)')


def check_label(key: str, value: str) -> None:
    """:class:`BadParameter` if a label breaks Teleport's rules: a key of ``[A-Za-z0-9/._:*-]`` and a one-line value."""
    if _KEY.fullmatch(key) is None:
        raise BadParameter(f"The label name {quoted(key)} is not usable: take letters, digits and / . _ : * - only.")
    if not value.isprintable() or len(value) > _VALUE_MAX:
        raise BadParameter(
            f"The value of label {quoted(key)} is not usable: at most {_VALUE_MAX} characters, on one line."
        )


def command_label(name: str, command: Sequence[str], period: float) -> CommandLabel:
    """:class:`BadParameter` for a name that breaks the rules, a missing command, or a period below one second."""
    check_label(name, "")
    if not command or not command[0].strip() or any("\0" in word for word in command):
        raise BadParameter(f"The label {quoted(name)} needs a command: a program and its arguments.")
    if period < _PERIOD_MIN:
        raise BadParameter(f"The period of the label {quoted(name)} must be a second or more, such as 1m.")
    return CommandLabel(name, tuple(command), period)


def _parse_command(name: str, text: str) -> CommandLabel:
    period, _, command = text.removeprefix("[").removesuffix("]").partition(":")
    command = command.strip()
    if len(command) > 1 and command[0] == command[-1] == '"':
        command = command[1:-1]
    try:
        words = shlex.split(command)
    except ValueError:
        raise BadParameter(f"The command of the label {quoted(name)} has a quote that is not closed.") from None
    return command_label(name, words, parse_duration(period))


def parse_labels(text: str) -> tuple[dict[str, str], tuple[CommandLabel, ...]]:
    """The labels in ``env=prod,os="Debian 12"``, and those that are commands (``up=[1m:"uptime -p"]``, run without a
    shell)."""
    labels: dict[str, str] = {}
    commands: list[CommandLabel] = []
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise BadParameter(
                f"{quoted(text[position:])} is not a label: write name=value, and a comma between two labels."
            )
        key, value = pair["key"].strip('"'), pair["value"]
        position = pair.end()
        if key in labels or any(key == each.name for each in commands):
            raise BadParameter(f"The label {quoted(key)} is given twice.")
        if value.startswith("["):
            commands.append(_parse_command(key, value))
            continue
        check_label(key, value.strip('"'))
        labels[key] = value.strip('"')
    return labels, tuple(commands)
