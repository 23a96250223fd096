"""The connection service (RFC 4254): channels and global requests over one authenticated transport."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from struct import Struct
from typing import Any, Final

from twisted.conch.error import ConchError
from twisted.conch.ssh.connection import SSHConnection
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.codec import boolean, string, uint32
from teleconch.errors import TeleconchError
from teleconch.ssh import limits, messages
from teleconch.ssh.account import Account
from teleconch.ssh.channel import Channel
from teleconch.ssh.channels import Channels
from teleconch.ssh.problems import ChannelRefused, ProtocolProblem, RequestRefused, SSHProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.requests import GlobalRequests, KeepAlive

__all__ = ["ChannelRefused", "Connection"]

_TWO: Final = Struct(">II")
_THREE: Final = Struct(">III")
_FOUR: Final = Struct(">IIII")
_LEAST: Final = limits.CHANNEL_COST + limits.NARROW_WINDOW  # the least that a channel takes from the account


def _no_room() -> ChannelRefused:
    return ChannelRefused(
        messages.OPEN_RESOURCE_SHORTAGE, "You have too much open on this host for its memory: close some of it first."
    )


class Connection(Channels, SSHConnection):
    """Both sides' connection service. ``avatar`` answers what the peer asks for; a client has ``None`` or a small one.

    ``avatar.lookupChannel(kind, window, max_packet, data)`` returns a :class:`Channel` or raises
    :class:`ChannelRefused`, at once or as an awaitable. ``avatar.global_request(name, data)`` returns False, True or
    the reply's bytes, in the same way.
    """

    log = Logger()
    transport: Any
    deferreds: Any

    def __init__(
        self,
        avatar: Any = None,
        logout: Callable[[], None] | None = None,
        *,
        max_channels: int = 1000,
        keepalive: tuple[float, int] = (0, 3),
    ) -> None:
        SSHConnection.__init__(self)
        Channels.__init__(self)
        self.avatar = avatar
        self.disconnected: Deferred[None] = Deferred()
        self._logout = logout
        self._max_channels = max_channels
        self.account = Account(limits.CONNECTION_BUDGET)  # until there is a transport, which has its own
        self._opening = 0  # channels of the peer that are being decided on
        self._requests = GlobalRequests(self, lambda name, data: self.gotGlobalRequest(name, data))
        self._keepalive = KeepAlive(self, self._requests, *keepalive)
        self._stopped = False
        self._table: dict[int, Callable[[bytes], None]] = {
            messages.GLOBAL_REQUEST: self._requests.received,
            messages.REQUEST_SUCCESS: self._requests.succeeded,
            messages.REQUEST_FAILURE: self._requests.failed,
            messages.CHANNEL_OPEN: self._got_open,
            messages.CHANNEL_OPEN_CONFIRMATION: self._got_open_confirmation,
            messages.CHANNEL_OPEN_FAILURE: self._got_open_failure,
            messages.CHANNEL_WINDOW_ADJUST: self._got_window_adjust,
            messages.CHANNEL_EXTENDED_DATA: self._got_extended_data,
            messages.CHANNEL_EOF: self._got_eof,
            messages.CHANNEL_CLOSE: self._got_close,
            messages.CHANNEL_REQUEST: self._got_channel_request,
            messages.CHANNEL_SUCCESS: self._got_channel_success,
            messages.CHANNEL_FAILURE: self._got_channel_failure,
        }

    # -- the service --

    def serviceStarted(self) -> None:
        self.account = self.transport.account
        if self.avatar is not None:
            self.avatar.conn = self
        self._keepalive.start()

    def serviceStopped(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._keepalive.stop()
        for channel in list(self.channels.values()):
            if channel in self.channelsToRemoteChannel:
                self.channelClosed(channel)
        results, self._open_results = self._open_results, {}
        for number, result in results.items():
            channel = self.channels.pop(number, None)
            problem = ConnectionLost()
            if channel is not None:
                channel.openFailed(problem)
                channel.release()
            result.errback(Failure(problem))
        self._requests.stop()
        if self._logout is not None:
            logout, self._logout = self._logout, None
            logout()
        self.disconnected.callback(None)

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        self._keepalive.heard = True
        handle = self._table.get(messageNum)
        if handle is None:
            if messageNum < messages.GLOBAL_REQUEST:
                raise ProtocolProblem("authentication is over")
            self.transport.sendUnimplemented()
            return
        handle(packet)

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

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        self.transport.later(work)

    # -- channels that the peer opens --

    def _got_open(self, packet: bytes) -> None:
        reader = Reader(packet)
        kind, sender, window, max_packet = reader.string(), reader.uint32(), reader.uint32(), reader.uint32()
        if len(self.channels) + self._opening >= self._max_channels:
            self._refuse_open(
                sender, ChannelRefused(messages.OPEN_RESOURCE_SHORTAGE, "too many channels on this connection")
            )
            return
        if not self.account.take(_LEAST + len(packet)):
            self._refuse_open(sender, _no_room())
            return
        self._opening += 1
        opening = self._open(kind, sender, window, max_packet, reader.rest(), len(packet))
        self.later(opening)

    async def _open(self, kind: bytes, sender: int, window: int, max_packet: int, data: bytes, size: int) -> None:
        """The message's ``size`` bytes, and the least that a channel costs, were taken from the account."""
        try:
            channel = await self._decide(kind, window, max_packet, data)
        except ChannelRefused as refused:
            self.account.give(_LEAST)
            self._refuse_open(sender, refused)
            return
        except BaseException:
            self.account.give(_LEAST)
            raise
        finally:
            self.account.give(size)
            self._opening -= 1
        channel.conn = self
        channel.charged = _LEAST
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

    def _refuse_open(self, sender: int, refused: ChannelRefused) -> None:
        if not self._stopped:
            self.transport.sendPacket(
                messages.CHANNEL_OPEN_FAILURE,
                _TWO.pack(sender, refused.code) + string(refused.sentence.encode()) + string(b""),
            )

    # -- channels that we open --

    def open(self, channel: Channel, data: bytes = b"") -> Deferred[Channel]:
        """Ask the peer for ``channel``; fires with it when it is open. ChannelRefused, ConnectionLost."""
        result: Deferred[Channel] = Deferred()
        channel.conn = self
        if self._stopped or self.transport.ended:
            channel.openFailed(ConnectionLost())
            result.errback(Failure(ConnectionLost()))
            return result
        if not channel.charge(_LEAST):
            refused = _no_room()
            channel.openFailed(refused)
            result.errback(Failure(refused))
            return result
        channel.id = self._number()
        self._first_window(channel)
        self.channels[channel.id] = channel
        self._open_results[channel.id] = result
        self.transport.sendPacket(
            messages.CHANNEL_OPEN,
            string(channel.name) + _THREE.pack(channel.id, channel.localWindowSize, channel.localMaxPacket) + data,
        )
        return result

    def openChannel(self, channel: Channel, extra: bytes = b"") -> None:
        """As in Conch: the channel's own methods tell how it went."""
        self.open(channel, extra).addErrback(lambda _: None)

    def _got_open_confirmation(self, packet: bytes) -> None:
        reader = Reader(packet)
        number, remote, window, max_packet = (reader.uint32() for _ in range(4))
        result = self._open_results.pop(number, None)
        if result is None:
            raise ProtocolProblem("a channel was confirmed that nobody asked for")
        channel = self.channels[number]
        self._register(channel, number, remote)
        channel.remoteWindowLeft = window
        channel.remoteMaxPacket = max(1, min(max_packet, limits.CHANNEL_PACKET))
        channel.channelOpen(reader.rest())
        result.callback(channel)

    def _got_open_failure(self, packet: bytes) -> None:
        reader = Reader(packet)
        number, code, text = reader.uint32(), reader.uint32(), reader.string()
        result = self._open_results.pop(number, None)
        if result is None:
            raise ProtocolProblem("a channel was refused that nobody asked for")
        channel = self.channels.pop(number)
        refused = ChannelRefused(code, text[:1024].decode("utf-8", "replace"))
        channel.openFailed(refused)
        channel.release()
        result.errback(Failure(refused))

    def _got_channel_success(self, packet: bytes) -> None:
        self._channel_answer(packet).callback(True)

    def _got_channel_failure(self, packet: bytes) -> None:
        self._channel_answer(packet).errback(RequestRefused("the peer refused a request"))

    def _channel_answer(self, packet: bytes) -> Deferred[bool]:
        channel = self._channel(Reader(packet).uint32())
        waiting = self.deferreds.get(channel.id)
        if not waiting:
            raise ProtocolProblem("an answer came to no question")
        deferred: Deferred[bool] = waiting.pop(0)
        return deferred

    def sendRequest(
        self, channel: Channel, requestType: bytes, data: bytes, wantReply: int = 0
    ) -> Deferred[bool] | None:
        """With ``wantReply`` fires with True, or fails with RequestRefused."""
        if channel.localClosed:
            if not wantReply:
                return None
            closed: Deferred[bool] = Deferred()
            closed.errback(RequestRefused("the channel is closed"))
            return closed
        self.transport.sendPacket(
            messages.CHANNEL_REQUEST, uint32(channel.remote_id) + string(requestType) + boolean(wantReply) + data
        )
        if not wantReply:
            return None
        deferred: Deferred[bool] = Deferred()
        self.deferreds.setdefault(channel.id, []).append(deferred)
        return deferred

    def channelClosed(self, channel: Channel) -> None:
        if channel not in self.channelsToRemoteChannel:
            return
        del self.channelsToRemoteChannel[channel]
        del self.localToRemoteChannel[channel.id]
        del self.channels[channel.id]
        for deferred in self.deferreds.pop(channel.id, []):
            deferred.errback(RequestRefused("the channel was closed"))
        try:
            channel.gone()
        finally:
            channel.release()

    def close(self) -> None:
        """Close the whole connection."""
        self.transport.loseConnection()
