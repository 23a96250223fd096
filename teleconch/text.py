"""Makes text that a peer chose fit for a terminal, a log and a sentence."""

from __future__ import annotations


def shown(text: str, *, keep: str = "", mark: str = "", longest: int | None = None) -> str:
    """``text`` without anything that controls a terminal, breaks a line, or reorders or hides what follows.

    Each unprintable character (C0 and C1 controls, DEL, line and paragraph separators, format characters such as those
    for bidirectional text, surrogates, all spaces except the plain one) becomes an escape such as ``\\x1b``, or
    ``mark``, unless it is in ``keep``. Only the first ``longest`` characters of a longer text are used.
    """
    if longest is not None:
        text = text[:longest]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else mark or c.encode("unicode_escape").decode() for c in text)
