"""Durations as Teleport writes them, in the form of Go's ``time.ParseDuration``: ``5m``, ``1h30m``, ``500ms``."""

from __future__ import annotations

import re

from teleconch.errors import BadParameter, quoted

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_MAX_NS = 2**63 - 1  # about 292 years; Go's own limit
_MAX_TEXT = 64


def parse_duration(text: str) -> float:
    """The seconds in ``90s``, ``1h30m``, ``1.5h`` or ``0``. :class:`BadParameter` if it is negative or unreadable."""
    given = text.strip()
    if given == "0":
        return 0.0
    if len(given) > _MAX_TEXT or _WHOLE.fullmatch(given) is None:
        hint = f" A number needs its unit: {given}s or {given}m." if given.isascii() and given.isdigit() else ""
        raise BadParameter(f"{quoted(given[:_MAX_TEXT])} is not a duration like 30s, 5m or 1h30m.{hint}")
    nanoseconds = sum(_nanoseconds(number, _UNITS[unit]) for number, unit in _PART.findall(given))
    if nanoseconds > _MAX_NS:
        raise BadParameter(f"{quoted(given)} is longer than a duration can be (290 years).")
    return nanoseconds / 10**9


def format_duration(seconds: float) -> str:
    """The shortest text, exact to the nanosecond: ``1h30m``, ``1.5s``, ``500ms``, ``0s``. ``seconds`` must not be
    negative."""
    left = round(seconds * 10**9)
    if left == 0:
        return "0s"
    if left < 10**9:
        unit = next(unit for unit in ("ms", "us", "ns") if left >= _UNITS[unit])
        return _decimal(left, _UNITS[unit]) + unit
    parts = []
    for unit in ("h", "m"):
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if left:
        parts.append(_decimal(left, 10**9) + "s")
    return "".join(parts)


def _nanoseconds(number: str, unit: int) -> int:
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    return int(whole or "0") * unit + int(fraction or "0") * unit // scale


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".")
