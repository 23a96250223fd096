"""The connection service (RFC 4254): channels and global requests over one authenticated transport."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, TypeVar

from twisted.conch.error import ConchError
from twisted.conch.ssh.connection import SSHConnection
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.errors import TeleconchError
from teleconch.ssh import limits, messages
from teleconch.ssh.channel import Channel
from teleconch.ssh.channels import LEAST, Channels, no_room
from teleconch.ssh.problems import ChannelRefused, RequestRefused, SSHProblem
from teleconch.ssh.reader import Reader

__all__ = ["ChannelRefused", "Connection"]

T = TypeVar("T")

_FOUR: Final = Struct(">IIII")


def _tell(deferred: Deferred[T], problem: Exception | None, value: T) -> None:
    if problem is None:
        deferred.callback(value)
    else:
        deferred.errback(Failure(problem))


class Connection(Channels, SSHConnection):
    """Both sides' connection service. ``avatar`` answers what the peer asks for; a client has ``None`` or a small one.

    ``avatar.lookupChannel(kind, window, max_packet, data)`` returns a :class:`Channel` or raises
    :class:`ChannelRefused`, at once or as an awaitable. ``avatar.global_request(name, data)`` returns False, True or
    the reply's bytes, in the same way.
    """

    log = Logger()
    lost = ConnectionLost

    def __init__(
        self,
        avatar: Any = None,
        logout: Callable[[], None] | None = None,
        *,
        max_channels: int = 1000,
        keepalive: tuple[float, int] = (0, 3),
    ) -> None:
        SSHConnection.__init__(self)
        Channels.__init__(self, keepalive)
        self.avatar = avatar
        self.disconnected: Deferred[None] = Deferred()
        self._logout = logout
        self._max_channels = max_channels
        self._opening = 0  # channels of the peer that are being decided on

    # -- the service --

    def serviceStarted(self) -> None:
        super().serviceStarted()
        if self.avatar is not None:
            self.avatar.conn = self

    def serviceStopped(self) -> None:
        if self._stopped:
            return
        super().serviceStopped()
        if self._logout is not None:
            logout, self._logout = self._logout, None
            logout()
        self.disconnected.callback(None)

    # -- global requests --

    def sendGlobalRequest(self, request: bytes, data: bytes, wantReply: int = 0) -> Deferred[bytes] | None:
        """With ``wantReply`` fires with the reply's bytes, or fails with RequestRefused."""
        if not wantReply:
            self._requests.ask(request, data, None)
            return None
        reply: Deferred[bytes] = Deferred()

        def told(answer: bytes | RequestRefused) -> None:
            if isinstance(answer, RequestRefused):
                reply.errback(Failure(answer))
            else:
                reply.callback(answer)

        self._requests.ask(request, data, told)
        return reply

    def gotGlobalRequest(self, requestType: bytes, data: bytes) -> Any:
        asked = getattr(self.avatar, "global_request", None)
        return asked(requestType, data) if asked is not None else False

    def requests_answered(self) -> Deferred[None] | None:
        """Fires once the peer's global requests up to now are answered; None if they are. ConnectionLost."""
        if self._requests.all_answered:
            return None
        after: Deferred[None] = Deferred()
        self._requests.after_answers(
            lambda answered: after.callback(None) if answered else after.errback(Failure(ConnectionLost()))
        )
        return after

    # -- channels that the peer opens --

    def _got_open(self, packet: bytes) -> None:
        reader = Reader(packet)
        kind, sender, window, max_packet = reader.string(), reader.uint32(), reader.uint32(), reader.uint32()
        if len(self.channels) + self._opening >= self._max_channels:
            self._refuse_open(
                sender, ChannelRefused(messages.OPEN_RESOURCE_SHORTAGE, "too many channels on this connection")
            )
            return
        if not self.account.take(LEAST + len(packet)):
            self._refuse_open(sender, no_room())
            return
        self._opening += 1
        opening = self._open(kind, sender, window, max_packet, reader.rest(), len(packet))
        self.later(opening)

    async def _open(self, kind: bytes, sender: int, window: int, max_packet: int, data: bytes, size: int) -> None:
        """The message's ``size`` bytes, and the least that a channel costs, were taken from the account."""
        try:
            channel = await self._decide(kind, window, max_packet, data)
        except ChannelRefused as refused:
            self.account.give(LEAST)
            self._refuse_open(sender, refused)
            return
        except BaseException:
            self.account.give(LEAST)
            raise
        finally:
            self.account.give(size)
            self._opening -= 1
        channel.conn = self
        channel.charged = LEAST
        if self._stopped:
            channel.openFailed(ConnectionLost())
            channel.release()
            return
        channel.remoteWindowLeft = window
        channel.remoteMaxPacket = max(1, min(max_packet, limits.CHANNEL_PACKET))
        self._first_window(channel)
        self._register(channel, self._number(), sender)
        self.transport.sendPacket(
            messages.CHANNEL_OPEN_CONFIRMATION,
            _FOUR.pack(sender, channel.id, channel.localWindowSize, channel.localMaxPacket) + channel.specificData,
        )
        try:
            channel.channelOpen(data)
        except Exception:  # noqa: BLE001 - one channel's fault must not end the others
            self.log.failure("a channel broke as it opened")
            channel.abortConnection()

    async def _decide(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Channel:
        try:
            found = self.getChannel(kind, window, max_packet, data)
            channel: Channel | None = await found if inspect.isawaitable(found) else found
        except ChannelRefused:
            raise
        except ConchError as error:  # ConchUser raises (code, text), others (text, code)
            code = next((part for part in error.args if isinstance(part, int)), messages.OPEN_UNKNOWN_CHANNEL_TYPE)
            text = next((part for part in error.args if isinstance(part, str)), "unknown channel")
            raise ChannelRefused(code, text) from None
        except TeleconchError as error:
            raise ChannelRefused(messages.OPEN_ADMINISTRATIVELY_PROHIBITED, str(error)) from None
        except (SSHProblem, ConnectionLost) as problem:
            raise ChannelRefused(messages.OPEN_CONNECT_FAILED, str(problem)) from None
        except Exception:  # noqa: BLE001 - an unexpected error is a refusal; the log has the whole
            self.log.failure("a channel could not be opened")
            raise ChannelRefused(messages.OPEN_CONNECT_FAILED, "something went wrong here") from None
        if channel is None:
            raise ChannelRefused(messages.OPEN_UNKNOWN_CHANNEL_TYPE, "unknown kind of channel")
        return channel

    def getChannel(self, channelType: bytes, windowSize: int, maxPacket: int, data: bytes) -> Any:
        if self.avatar is None:
            return None
        return self.avatar.lookupChannel(channelType, windowSize, maxPacket, data)

    # -- channels that we open --

    def open(self, channel: Channel, data: bytes = b"") -> Deferred[Channel]:
        """Ask the peer for ``channel``; fires with it when it is open. ChannelRefused, ConnectionLost."""
        result: Deferred[Channel] = Deferred()
        self.ask_for(channel, data, lambda problem: _tell(result, problem, channel))
        return result

    def openChannel(self, channel: Channel, extra: bytes = b"") -> None:
        """As in Conch: the channel's own methods tell how it went."""
        self.open(channel, extra).addErrback(lambda _: None)

    # -- what channels send --

    def sendEOF(self, channel: Channel) -> None:
        """Send EOF after everything that was written."""
        channel.loseWriteConnection()

    def sendRequest(
        self, channel: Channel, requestType: bytes, data: bytes, wantReply: int = 0
    ) -> Deferred[bool] | None:
        """With ``wantReply`` fires with True, or fails with RequestRefused."""
        if not wantReply:
            self.request(channel, requestType, data, None)
            return None
        answer: Deferred[bool] = Deferred()
        self.request(channel, requestType, data, lambda problem: _tell(answer, problem, True))
        return answer

    def close(self) -> None:
        """Close the whole connection."""
        self.transport.loseConnection()
