"""How long to wait before another attempt."""

from __future__ import annotations

import random

from teleconch.defaults import BACKOFF_FIRST, BACKOFF_MAX


def full_jitter(chance: random.Random, failures: int, most: float = BACKOFF_MAX) -> float:
    """Seconds to wait after ``failures`` earlier failures: random, below a bound that doubles until it reaches
    ``most``."""
    limit: float = min(most, BACKOFF_FIRST * 2 ** min(failures, 16))
    return chance.uniform(0, limit)
