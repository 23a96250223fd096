"""A user's lock-out, as an administrator sees it."""

from __future__ import annotations

from attrs import frozen


@frozen
class Lockout:
    """Until ``until`` (epoch seconds) even right answers of ``user`` are refused: from ``source``, an IPv4 address or
    an IPv6 /64 (empty if unknown) or, if ``source`` is ``None``, from all sources that are new to the user."""

    user: str
    source: str | None
    until: float
