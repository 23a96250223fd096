"""Text that a peer chose, made fit for a terminal, a log and a sentence."""

from __future__ import annotations


def shown(text: str, *, keep: str = "", mark: str = "", longest: int | None = None) -> str:
    """``text`` with nothing in it that steers a terminal, breaks a line, or reorders or hides what follows.

    Each character that is not printable (controls C0, C1 and DEL, line and paragraph separators, format characters such
    as those of bidirectional text, surrogates, spaces but the plain one) stands as an escape such as ``\\x1b``, or as
    ``mark``, unless it is in ``keep``. Of a longer text, the first ``longest`` characters are looked at.
    """
    if longest is not None:
        text = text[:longest]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else mark or c.encode("unicode_escape").decode() for c in text)
