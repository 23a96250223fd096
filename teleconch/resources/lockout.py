"""A user whose answers are refused for a while, as an administrator sees it."""

from __future__ import annotations

from attrs import frozen


@frozen
class Lockout:
    """Right answers of ``user`` are refused as well until ``until`` (epoch seconds): from ``source``, an IPv4 address
    or an IPv6 /64 (empty: it was not told); where ``source`` is ``None``, from all that are new to the user."""

    user: str
    source: str | None
    until: float
