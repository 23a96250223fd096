"""The pin of a cluster's authority, by which somebody who has nothing else of the cluster knows it."""

from __future__ import annotations

import re

from teleconch.errors import BadParameter

_PIN = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def check_pin(text: str) -> str:
    """A pin as somebody wrote it, in its stored form: ``sha256:`` and lower-case hex. BadParameter."""
    pin = text.strip().lower()
    if _PIN.fullmatch(pin) is None:
        raise BadParameter("a CA pin is 'sha256:' and 64 hex digits, as 'tctl status' prints it on the auth server.")
    return pin
