"""A channel (RFC 4254 section 5) with back-pressure in both directions, as Twisted and Conch know it.

What it does is in ``sending`` and ``receiving``, which have no Twisted.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.conch.ssh.channel import SSHChannel
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from teleconch.ssh import limits
from teleconch.ssh.carrier import Carrier
from teleconch.ssh.receiving import Answer, Receiving

__all__ = ["Answer", "Channel"]


class ConchCarrier(Carrier["Channel"], Protocol):
    def sendRequest(
        self, channel: Channel, requestType: bytes, data: bytes, wantReply: int = 0
    ) -> Deferred[bool] | None: ...


@implementer(IPushProducer, IConsumer)
class Channel(Receiving, SSHChannel):
    """Override ``channelOpen``, ``dataReceived``, ``extReceived``, ``eofReceived``, ``closeReceived``, ``closed`` and
    ``request_<name>(data)``; the last may return an awaitable, and what the peer sends next waits for it."""

    log = Logger()
    conn: ConchCarrier  # type: ignore[assignment]  # Conch names its own connection
    id: Any

    def __init__(
        self,
        localWindow: int = 0,
        localMaxPacket: int = 0,
        remoteWindow: int = 0,
        remoteMaxPacket: int = 0,
        conn: Any = None,
        data: bytes | None = None,
        avatar: Any = None,
    ) -> None:
        window, max_packet = localWindow or limits.CHANNEL_WINDOW, localMaxPacket or limits.CHANNEL_PACKET
        Receiving.__init__(self, window, max_packet)
        SSHChannel.__init__(self, window, max_packet, remoteWindow, remoteMaxPacket, conn, data, avatar)

    def channelOpen(self, specificData: bytes) -> None:
        """The channel is open in both directions."""

    def openFailed(self, reason: Any) -> None:
        """The peer refused it, or the connection broke first."""
