"""Looking at what programs say. Python's standard library only."""

from __future__ import annotations

import re
from typing import AnyStr


def found(pattern: AnyStr, text: AnyStr, flags: int = 0) -> re.Match[AnyStr]:
    """The first place in ``text`` that matches; there must be one."""
    match = re.search(pattern, text, flags)
    assert match is not None, text
    return match
