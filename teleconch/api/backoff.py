"""How long to wait before another try."""

from __future__ import annotations

import random

from teleconch.defaults import BACKOFF_FIRST, BACKOFF_MAX


def full_jitter(chance: random.Random, failures: int, most: float = BACKOFF_MAX) -> float:
    """Seconds, after so many failures before this one: by chance, up to a bound that doubles until it is ``most``."""
    limit: float = min(most, BACKOFF_FIRST * 2 ** min(failures, 16))
    return chance.random() * limit
