"""Chooses the road to a node. Whatever the road, a user's bytes take it only once the far end has spoken SSH."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

from teleconch.access.permit import DialPermit
from teleconch.errors import ConnectionProblem
from teleconch.resources.node import Node
from teleconch.ssh.ends import Proved
from teleconch.ssh.relay import End

VERSION_TIMEOUT: Final = 10.0


class Road(Protocol):
    """One way to nodes, such as TCP to the address that a node registered."""

    def leads_to(self, node: Node) -> bool:
        """Whether ``node`` may be found on this road."""

    async def open(self, permit: DialPermit) -> End:
        """A paused end at the permitted node, from which nothing has been heard. ConnectionProblem, whose message is
        part of a sentence for the log: it would show users what listens where."""


class Roads:
    """All roads of one proxy, the preferred first."""

    def __init__(self, clock: IReactorTime, roads: Sequence[Road]) -> None:
        self._clock = clock
        self._roads = tuple(roads)

    def lead_to(self, node: Node) -> bool:
        """Whether there is a road to ``node``."""
        return any(road.leads_to(node) for road in self._roads)

    async def open(self, permit: DialPermit) -> End:
        """A paused end at the permitted node, which has spoken SSH. ConnectionProblem, as :meth:`Road.open`."""
        for road in self._roads:
            if road.leads_to(permit.node):
                end = await road.open(permit)
                await Proved(end).wait(self._clock, VERSION_TIMEOUT)
                return end
        raise ConnectionProblem("no road leads to it")
