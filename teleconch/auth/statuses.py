"""The nodes as they are now. Reports when they appear, change or go, and when the clock takes them offline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from teleconch import defaults
from teleconch.auth.following import Following
from teleconch.auth.presence import status_of
from teleconch.auth.records import PRESENCE, Presence
from teleconch.auth.sources import Source
from teleconch.auth.state import State
from teleconch.resources.kind import NODES, Change
from teleconch.resources.node import NodeStatus

_RETELL_BEFORE: Final = defaults.PRESENCE_TTL / 2  # seconds before the expiry that was reported last


class NodeStatuses:
    """Turns stored presences into statuses, in ``source``.

    A node is reported when it appears, changes, goes offline or comes back, and when it is gone. One that only pings is
    reported again every few minutes, so that the reported ``expires`` does not pass while the node lives.
    """

    def __init__(self, state: State, clock: IReactorTime) -> None:
        self._clock = clock
        self._presences = Following(state, PRESENCE, Presence, clock, self._tell)
        self.source = Source(NODES)

    async def start(self) -> None:
        """Read every node, then follow the changes. Unavailable."""
        await self._presences.start()
        self.source.open()

    async def stop(self) -> None:
        """End every watch."""
        self.source.close()
        await self._presences.stop()

    def tick(self) -> None:
        """Report what the passing of time alone has changed."""
        self._tell(tuple(self._presences.records))

    def _tell(self, uuids: Iterable[str]) -> None:
        now = self._clock.seconds()
        changes = []
        for uuid in uuids:
            presence = self._presences.records.get(uuid)
            status = None if presence is None else status_of(presence, now)
            if status is None or _is_news(self.source.told.get(uuid), status):
                changes.append(Change(uuid, status))
        self.source.tell(changes)


def _is_news(told: NodeStatus | None, status: NodeStatus) -> bool:
    return (
        told is None
        or told.online != status.online
        or told.node != status.node
        or (status.expires > told.expires and status.expires - told.expires >= _RETELL_BEFORE)
    )
