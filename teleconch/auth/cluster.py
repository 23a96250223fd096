"""What every member may know about the cluster."""

from __future__ import annotations

from collections.abc import Callable

import teleconch
from teleconch.auth.authorities import Authorities
from teleconch.ca.authority import ca_pin
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.login import ClusterStatus


class Cluster:
    """``second_factor`` is ``otp`` or ``off``; ``now`` returns epoch seconds."""

    def __init__(self, name: str, authorities: Authorities, second_factor: str, now: Callable[[], float]) -> None:
        self._name = name
        self._authorities = authorities
        self._second_factor = second_factor
        self._now = now

    async def status(self) -> ClusterStatus:
        """Name, version, second factor, authorities, pins, time."""
        trusted = self._authorities.trusted()
        return ClusterStatus(
            cluster=self._name,
            version=teleconch.__version__,
            second_factor=self._second_factor,
            authorities=trusted,
            ca_pins=tuple(ca_pin(cert) for each in trusted if each.type == "host" for cert in each.tls_certs),
            time=self._now(),
        )

    async def authorities(self) -> tuple[TrustedAuthority, ...]:
        """The public parts of both authorities."""
        return self._authorities.trusted()
