"""The node as one Twisted service: listener, sessions and pings."""

from __future__ import annotations

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.node.description import Description
from teleconch.node.heartbeat import Heartbeat
from teleconch.node.labels import Labels
from teleconch.node.parts import NodeParts
from teleconch.resources.address import join_address
from teleconch.ssh.server import SSHServerFactory

PARTING_DEADLINE: Final = 1.0  # seconds that clients get, when the sessions have ended, to leave on their own

log = Logger()


class NodeServer(Service):
    """``endpoint`` is where ``factory`` listens. ``stop_deadline`` is how many seconds sessions get to end when the
    node stops; ``None`` is without end."""

    name = "node"

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        factory: SSHServerFactory,
        parts: NodeParts,
        labels: Labels,
        description: Description,
        heartbeat: Heartbeat,
        stop_deadline: float | None,
    ) -> None:
        self._endpoint = endpoint
        self.factory = factory
        self.parts = parts
        self._labels = labels
        self._description = description
        self.heartbeat = heartbeat
        self._stop_deadline = stop_deadline
        self._waiting: Deferred[None] | None = None  # for sessions to end
        self.listening: Deferred[IListeningPort] = Deferred()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.parts.programs.sweep()
        self.parts.launcher.start()
        Deferred.fromCoroutine(self._listen()).addErrback(self._not_listening)

    async def _listen(self) -> None:
        port = await self._endpoint.listen(self.factory)
        if not self.running:
            await _stopped(port)
            return
        self._description.port = port
        own: Any = port.getHost()
        node = self._description.current()
        log.info(
            "node {nodename} listens on {here}; proxies reach it at {addr}",
            nodename=node.nodename,
            here=join_address(own.host, own.port),
            addr=node.addr,
        )
        self.heartbeat.start()
        self._labels.start()
        self.listening.callback(port)

    def _not_listening(self, failure: Failure) -> None:
        self.listening.errback(failure)  # whoever started us decides

    async def _stop(self) -> None:
        port, self._description.port = self._description.port, None
        if port is not None:
            await _stopped(port)
        self._labels.stop()
        goodbye = Deferred.fromCoroutine(self.heartbeat.stop())
        sessions = Deferred.fromCoroutine(self._end_sessions())
        await DeferredList([goodbye, sessions], consumeErrors=True)
        try:
            # A client that reads a DISCONNECT drops what it has not written yet: let it go by itself first.
            await self.parts.users.empty().addTimeout(PARTING_DEADLINE, self.parts.reactor)
        except DeferredTimeout:
            pass
        for connection in list(self.factory.connections):
            connection.loseConnection()
        await self.parts.launcher.stop()
        self.parts.programs.remove()

    async def _end_sessions(self) -> None:
        """Wait for sessions to end by themselves, then hang them up."""
        if self.parts.live:
            log.info("waiting for {count} sessions to end", count=len(self.parts.live))
        self._waiting = waiting = self.parts.live.empty()
        if self._stop_deadline is not None:
            waiting.addTimeout(self._stop_deadline, self.parts.reactor)
        try:
            await waiting
        except (DeferredTimeout, CancelledError):
            log.warn("{count} sessions still run as the node stops; hanging them up", count=len(self.parts.live))
        for session in self.parts.live:
            session.hang_up("the node stops")

    def be_patient(self) -> None:
        """At the coming stop, sessions may take as long as they like."""
        self._stop_deadline = None

    def hurry(self) -> None:
        """Hang up what still runs, at the stop that is coming or under way."""
        self._stop_deadline = 0
        if self._waiting is not None:
            self._waiting.cancel()

    def stopService(self) -> Deferred[None]:
        """Close the listener, say goodbye, let sessions end; fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())


async def _stopped(port: IListeningPort) -> None:
    stopping = port.stopListening()
    if stopping is not None:
        await stopping
