"""What channels and global requests ask of the connection that carries them."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from teleconch.ssh.account import Account

Channel = TypeVar("Channel", contravariant=True)


class Asker(Protocol):
    """Carries global requests (RFC 4254 section 4). ``transport`` sends packets and holds the reactor."""

    account: Account
    transport: Any

    def broken(self, failure: Failure) -> None:
        """An error that nobody expected ends the connection."""


class Carrier(Asker, Protocol[Channel]):
    """Carries channels (RFC 4254 section 5): each method sends one message of ``channel``."""

    @property
    def congested(self) -> bool:
        """The network takes no more for now."""

    def sendData(self, channel: Channel, data: bytes | memoryview) -> None: ...
    def sendExtendedData(self, channel: Channel, dataType: int, data: bytes | memoryview) -> None: ...
    def send_eof(self, channel: Channel) -> None: ...
    def sendClose(self, channel: Channel) -> None: ...
    def close_if_done(self, channel: Channel) -> None: ...
    def adjustWindow(self, channel: Channel, bytesToAdd: int) -> None: ...
    def send_reply(self, channel: Channel, success: bool) -> None: ...
    def sendRequest(
        self, channel: Channel, requestType: bytes, data: bytes, wantReply: int = 0
    ) -> Deferred[bool] | None: ...
