"""SSH inside an SSH channel: what ``ssh -J`` does, in one process."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from teleconch.ssh.channel import Channel
from teleconch.ssh.ends import RelayChannel
from teleconch.ssh.relay import End


class _Inside(End):
    """The inner connection as an end: what the outer channel hears, the inner protocol receives."""

    def __init__(self, protocol: Protocol, channel: RelayChannel) -> None:
        super().__init__()
        self.protocol, self.channel = protocol, channel

    def write(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def loseWriteConnection(self) -> None:
        self.channel.loseConnection()

    def loseConnection(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.channel.loseConnection()
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """What comes is used at once."""

    def unregisterProducer(self) -> None:
        pass


def run_in_channel(protocol: Protocol, channel: Channel) -> None:
    """Run ``protocol`` over an open :class:`RelayChannel`."""
    if not isinstance(channel, RelayChannel):
        raise TypeError("SSH runs inside a RelayChannel")
    channel.join(_Inside(protocol, channel))
    protocol.makeConnection(channel)
    channel.begin()
    channel.resumeProducing()
