"""Times and durations as text: RFC 3339 in documents, ``22 Nov 26 20:55 UTC`` for people. All in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from teleconch.errors import BadParameter, quoted


def rfc3339(epoch: float) -> str:
    """``2026-11-22T20:55:07Z``, with a fraction (microseconds) only if the time has one."""
    when = datetime.fromtimestamp(epoch, UTC)
    return when.isoformat(timespec="microseconds" if when.microsecond else "seconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> float:
    """Epoch seconds of an RFC 3339 date and time with its offset. BadParameter."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or not 1 < when.year < 9999:
        raise BadParameter(f"{quoted(text)} is not a time like 2026-11-22T20:55:07Z (RFC 3339, with Z or an offset).")
    return when.timestamp()


def utc_text(epoch: float) -> str:
    """``22 Nov 26 20:55 UTC``, as in Teleport's tables."""
    when = datetime.fromtimestamp(epoch, UTC)
    return f"{when.day:02d} {_MONTHS[when.month - 1]} {when:%y %H:%M} UTC"


def duration_text(seconds: float) -> str:
    """The two largest units that are not zero, rounded down: ``12h``, ``1h30m``, ``2m5s``, ``90d``, ``0s``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if parts and not count:
            break
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return "".join(parts) or "0s"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
