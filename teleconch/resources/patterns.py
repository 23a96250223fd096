"""What a role says of a label's value: a text, ``*``, a text with ``*`` in it, or ``^regex$``.

A regular expression is RE2's, as in Teleport. Its time grows with the text only, so none can stall whoever matches.
It matches whole values: ``^test|staging$`` is ``test`` or ``staging``, as Teleport's documents say, and not
``testing``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from teleconch.errors import BadParameter, quoted

ANY: Final = "*"
LENGTH_MAX: Final = 1024  # characters of a pattern
_KEPT: Final = 1024  # compiled patterns
_REMEMBERED: Final = 256  # values of labels for each; nodes share most of theirs
_MEMORY: Final = 128 * 1024  # bytes of one compiled pattern; bounds its time for each character, too


def is_regex(text: str) -> bool:
    return len(text) > 1 and text[0] == "^" and text[-1] == "$"


def is_pattern(text: str) -> bool:
    """Whether ``text`` stands for other values than itself."""
    return ANY in text or is_regex(text)


def literal(value: str) -> str:
    """A pattern that matches ``value`` and nothing else: ``value`` itself, if it can be."""
    if not is_pattern(value) and value[:1] != "^" and "{{" not in value and "}}" not in value:
        return value
    return f"^{_escaped(value)}$"


@lru_cache(maxsize=_KEPT)
def compile_pattern(text: str) -> Callable[[str], bool]:
    """A function that tells whether a value matches. BadParameter."""
    import re2  # tsh, which carries roles at most, does not pay for it

    if len(text) > LENGTH_MAX:
        raise BadParameter(f"A pattern has at most {LENGTH_MAX} characters, not {len(text)}.")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    options.never_capture = True
    expression = text if is_regex(text) else "(?s:.*)".join(_escaped(part) for part in text.split(ANY))
    try:
        match = re2.compile(expression, options).fullmatch
    except re2.error as error:
        why = error.args[0] if error.args else ""
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise BadParameter(f"{quoted(text)} is not a regular expression (RE2): {why}.") from None

    @lru_cache(maxsize=_REMEMBERED)
    def matches(value: str) -> bool:
        return match(value.encode()) is not None  # the module is slower with text, of which it counts the characters

    return matches


def _escaped(text: str) -> str:
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
