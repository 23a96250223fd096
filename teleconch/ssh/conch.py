"""The SSH transport as a Twisted protocol, which Conch's services can run on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.ssh import messages
from teleconch.ssh.problems import SSHProblem
from teleconch.ssh.transport import SSHTransport
from teleconch.ssh.wire import StreamWire, make_wire


class ConchTransport(SSHTransport, Protocol):
    """Over a socket of the reactor, or any other Twisted transport."""

    log = Logger()

    def connectionMade(self) -> None:
        self.start(make_wire(self, self.transport))

    def dataReceived(self, data: bytes) -> None:
        if isinstance(self._wire, StreamWire):  # a socket's bytes go to ``received``, and nowhere after its end
            self._wire.data_received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost()

    def abortConnection(self) -> None:
        super().abortConnection()
        if self._wire is None and self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        """An error that nobody expected: the log gets all of it, the peer one sentence."""
        if isinstance(failure.value, SSHProblem):
            self.fail(failure.value)
            return
        self.log.failure("the connection broke", failure=failure)
        self.sendDisconnect(messages.DISCONNECT_BY_APPLICATION, b"something went wrong here")

    def getPeer(self) -> Any:
        return self.transport.getPeer() if self.transport is not None else None

    def getHost(self) -> Any:
        return self.transport.getHost() if self.transport is not None else None

    def peer_name(self) -> str:
        return named_end(self.getPeer())

    def isEncrypted(self, direction: str = "out") -> bool:
        return self.sessionID is not None

    isVerified = isEncrypted

    def logPrefix(self) -> str:
        return type(self).__name__


def named_end(end: Any) -> str:
    """``host:port`` of one end of a connection, for logs and events."""
    return f"{end.host}:{end.port}" if hasattr(end, "port") else str(end)
