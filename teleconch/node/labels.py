"""A node's labels: ``key=value`` pairs by which proxies and people choose nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from teleconch.errors import BadParameter

VALUE_MAX: Final = 255
_KEY = re.compile(r"[A-Za-z0-9_./:*-]{1,255}", re.ASCII)


class Labels:
    """The labels as they are now. Static ones, from the configuration."""

    def __init__(self, static: Mapping[str, str]) -> None:
        """BadParameter for a key or value that could not be written in ``tsh ls key=value``."""
        for key, value in static.items():
            if _KEY.fullmatch(key) is None:
                raise BadParameter(f"The label {key!r} is not usable: a name has letters, digits and _ . / : * -.")
            if len(value) > VALUE_MAX or not value.isprintable():
                raise BadParameter(f"The value of the label {key} must be one line of at most {VALUE_MAX} characters.")
        self._static = dict(static)

    def current(self) -> Mapping[str, str]:
        """A copy for the next ping."""
        return dict(self._static)
