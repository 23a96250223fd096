"""What channels and global requests ask of the connection that carries them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from teleconch.ssh.account import Account

Channel = TypeVar("Channel", contravariant=True)


class Log(Protocol):
    """Twisted's Logger, or what stands in its place where there is no Twisted."""

    def debug(self, format: str, **fields: Any) -> None: ...
    def info(self, format: str, **fields: Any) -> None: ...
    def warn(self, format: str, **fields: Any) -> None: ...

    def failure(self, format: str, **fields: Any) -> None:
        """The exception that is being handled was not expected."""


class Asker(Protocol):
    """Carries global requests (RFC 4254 section 4). ``transport`` sends packets and holds the reactor."""

    account: Account
    transport: Any

    @property
    def log(self) -> Log: ...

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, and go on with other things while it waits. An error ends the connection."""


class Carrier(Asker, Protocol[Channel]):
    """Carries channels (RFC 4254 section 5): each method sends one message of ``channel``, if it is open."""

    @property
    def congested(self) -> bool:
        """The network takes no more for now."""

    def sendData(self, channel: Channel, data: bytes | memoryview) -> None: ...
    def sendExtendedData(self, channel: Channel, dataType: int, data: bytes | memoryview) -> None: ...
    def send_eof(self, channel: Channel) -> None: ...
    def sendClose(self, channel: Channel) -> None: ...
    def adjustWindow(self, channel: Channel, bytesToAdd: int) -> None: ...
    def send_reply(self, channel: Channel, success: bool) -> None: ...

    def channelClosed(self, channel: Channel) -> None:
        """Both sides have closed it."""
