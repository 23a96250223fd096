"""What one server allows: how many connections and channels, how long and how often."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from teleconch.admission import Bounds, Room
from teleconch.ssh import limits

SPEAKS: Final = 1  # steps of admission, after the first
EXCHANGES: Final = 2
HAS_KEYS: Final = 3


@frozen
class Limits:
    """What one server allows, including the configuration's ``connection_limits``."""

    login_grace: float = 30.0
    auth_tries: int = limits.AUTH_TRIES
    max_unauthenticated: int = 2000  # that have said nothing yet; at each later step half as many
    max_unauthenticated_per_source: int = 1000
    max_connections: int = 15000
    max_connections_per_source: int = 0  # 0: no limit
    max_connections_per_user: int = 0
    max_channels: int = 1000
    rekey_bytes: int = limits.REKEY_BYTES
    rekey_seconds: float = limits.REKEY_SECONDS

    def bounds(self) -> Bounds:
        """Bounds by a connection's step: it says nothing yet, has sent a version line, exchanges keys, or has them."""
        total = max(1, min(self.max_unauthenticated, self.max_connections // 3))  # the rest: logged in
        one = max(1, min(self.max_unauthenticated_per_source, total))
        later = Room(max(1, total // 2), max(1, one // 2))
        return Bounds(
            connections=self.max_connections,
            steps=(Room(total, one), later, later, later),
            per_source=self.max_connections_per_source,
            per_identity=self.max_connections_per_user,
        )
