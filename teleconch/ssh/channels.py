"""The connection protocol (RFC 4254) without Twisted: channels by their numbers, and the messages about them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from struct import Struct
from typing import Any, ClassVar, Final

from teleconch.codec import boolean, string, uint32
from teleconch.ssh import limits, messages
from teleconch.ssh.account import Account
from teleconch.ssh.carrier import Log
from teleconch.ssh.problems import ChannelRefused, ConnectionGone, ProtocolProblem, RequestRefused
from teleconch.ssh.reader import Reader
from teleconch.ssh.receiving import Receiving
from teleconch.ssh.requests import GlobalRequests, KeepAlive

LEAST: Final = limits.CHANNEL_COST + limits.NARROW_WINDOW  # the least that a channel takes from the account

_DATA_AT: Final = 10  # where data begins: after padding length, number, channel and size
_CHANNEL_DATA: Final = messages.CHANNEL_DATA
_TWO: Final = Struct(">II")
_THREE: Final = Struct(">III")
_DATA: Final = Struct(">BII")
_EXTENDED: Final = Struct(">BIII")

Told = Callable[[Exception | None], None]


def no_room() -> ChannelRefused:
    return ChannelRefused(
        messages.OPEN_RESOURCE_SHORTAGE, "You have too much open on this host for its memory: close some of it first."
    )


def _not_open() -> ProtocolProblem:
    return ProtocolProblem("a message came for a channel that is not open")


class Channels:
    """The connection service of a client that opens channels and refuses whatever the server wants; what both sides'
    service does with channels that are open. :class:`teleconch.ssh.connection.Connection` adds Twisted and Conch, whose
    the dictionaries are."""

    name = b"ssh-connection"
    log: Log
    transport: Any
    lost: ClassVar[type[Exception]] = ConnectionGone

    def __init__(self, keepalive: tuple[float, int] = (0, 3)) -> None:
        self.channels: dict[int, Any] = {}  # also those that are being opened
        self.localToRemoteChannel: dict[int, int] = {}
        self.channelsToRemoteChannel: dict[Any, int] = {}
        self.localChannelID = 0  # the next
        self.account = Account(limits.CONNECTION_BUDGET)  # until there is a transport, which has its own
        self._asked_for: dict[int, Told] = {}  # channels that we asked for and the peer has not answered
        self._asked: dict[int, list[Told]] = {}  # requests of ours on channels
        self._turn = 0
        self._stopped = False
        self._requests = GlobalRequests(self, lambda name, data: self.gotGlobalRequest(name, data))
        self._keepalive = KeepAlive(self, self._requests, *keepalive)
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
        self._keepalive.start()

    def serviceStopped(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._keepalive.stop()
        for channel in list(self.channels.values()):
            if channel in self.channelsToRemoteChannel:
                self.channelClosed(channel)
        asked_for, self._asked_for = self._asked_for, {}
        for number, told in asked_for.items():
            channel = self.channels.pop(number, None)
            problem = self.lost()
            if channel is not None:
                channel.openFailed(problem)
                channel.release()
            told(problem)
        self._requests.stop()

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        self._keepalive.heard = True
        handle = self._table.get(messageNum)
        if handle is None:
            if messageNum < messages.GLOBAL_REQUEST:
                raise ProtocolProblem("authentication is over")
            self.transport.sendUnimplemented()
            return
        handle(packet)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        self.transport.later(work)

    def gotGlobalRequest(self, requestType: bytes, data: bytes) -> Any:
        """The peer asks: False, True or the reply's bytes, or an awaitable of that."""
        return False

    @property
    def congested(self) -> bool:
        return bool(self.transport.congested)

    def sendingPaused(self) -> None:
        for channel in list(self.channels.values()):
            channel.sending_paused()

    def sendingResumed(self) -> None:
        channels = list(self.channelsToRemoteChannel)
        self._turn = (self._turn + 1) % (len(channels) or 1)  # each time a different one goes first
        for channel in channels[self._turn :] + channels[: self._turn]:
            channel.sending_resumed()
            if self.congested:
                break

    # -- numbers and windows --

    def _first_window(self, channel: Receiving) -> None:
        """Begin with a small window, or a very small one if there are very many channels: whatever a peer may send has
        to be kept somewhere until it is consumed. The window may grow to the size that the channel was made with."""
        channel.window_max, size = channel.localWindowSize, limits.NARROW_WINDOW
        if len(self.channels) < limits.WIDE_CHANNELS and channel.charge(limits.FIRST_WINDOW - size, spare=True):
            size = limits.FIRST_WINDOW
        channel.localWindowSize = channel.localWindowLeft = min(channel.window_max, size)

    def _number(self) -> int:
        number: int = self.localChannelID
        while number in self.channels:
            number = (number + 1) & 0xFFFFFFFF
        self.localChannelID = (number + 1) & 0xFFFFFFFF
        return number

    def _register(self, channel: Receiving, number: int, remote: int) -> None:
        channel.id = number
        channel.remote_id = remote
        self.channels[number] = channel
        self.localToRemoteChannel[number] = remote
        self.channelsToRemoteChannel[channel] = remote

    # -- channels are opened --

    def ask_for(self, channel: Any, data: bytes, told: Told) -> None:
        """Ask the peer for ``channel``. ``told`` gets None when it is open, or ChannelRefused or :attr:`lost`; the
        channel's own ``channelOpen`` or ``openFailed`` is called before."""
        channel.conn = self
        problem: Exception | None = None
        if self._stopped or self.transport.ended:
            problem = self.lost()
        elif not channel.charge(LEAST):
            problem = no_room()
        if problem is not None:
            channel.openFailed(problem)
            told(problem)
            return
        channel.id = self._number()
        self._first_window(channel)
        self.channels[channel.id] = channel
        self._asked_for[channel.id] = told
        self.transport.sendPacket(
            messages.CHANNEL_OPEN,
            string(channel.name) + _THREE.pack(channel.id, channel.localWindowSize, channel.localMaxPacket) + data,
        )

    def _got_open_confirmation(self, packet: bytes) -> None:
        reader = Reader(packet)
        number, remote, window, max_packet = (reader.uint32() for _ in range(4))
        told = self._asked_for.pop(number, None)
        if told is None:
            raise ProtocolProblem("a channel was confirmed that nobody asked for")
        channel = self.channels[number]
        self._register(channel, number, remote)
        channel.remoteWindowLeft = window
        channel.remoteMaxPacket = max(1, min(max_packet, limits.CHANNEL_PACKET))
        channel.channelOpen(reader.rest())
        told(None)

    def _got_open_failure(self, packet: bytes) -> None:
        reader = Reader(packet)
        number, code, text = reader.uint32(), reader.uint32(), reader.string()
        told = self._asked_for.pop(number, None)
        if told is None:
            raise ProtocolProblem("a channel was refused that nobody asked for")
        channel = self.channels.pop(number)
        refused = ChannelRefused(code, text[:1024].decode("utf-8", "replace"))
        channel.openFailed(refused)
        channel.release()
        told(refused)

    def _got_open(self, packet: bytes) -> None:
        reader = Reader(packet)
        reader.string()
        sender, _window, _max_packet = reader.uint32(), reader.uint32(), reader.uint32()
        self._refuse_open(sender, ChannelRefused(messages.OPEN_ADMINISTRATIVELY_PROHIBITED, "not here"))

    def _refuse_open(self, sender: int, refused: ChannelRefused) -> None:
        if not self._stopped:
            self.transport.sendPacket(
                messages.CHANNEL_OPEN_FAILURE,
                _TWO.pack(sender, refused.code) + string(refused.sentence.encode()) + string(b""),
            )

    # -- from the peer --

    def _channel(self, number: int) -> Receiving:
        channel: Receiving | None = self.channels.get(number)
        if channel is None or number in self._asked_for or channel.close_received:
            raise _not_open()
        return channel

    def _got_window_adjust(self, packet: bytes) -> None:
        reader = Reader(packet)
        channel, more = self._channel(reader.uint32()), reader.uint32()
        if not channel.localClosed:
            channel.addWindowBytes(more)

    def got_data_packet(self, plain: bytes, last: int) -> None:
        """CHANNEL_DATA as it came out of the cipher: padding length, number, channel, size, data, padding.

        Nearly every incoming byte takes this path; it skips the dispatch table.
        """
        self._keepalive.heard = True
        if last < _DATA_AT:
            raise ProtocolProblem("a message ends too early")
        number, size = _TWO.unpack_from(plain, 2)
        if size != last - _DATA_AT:
            raise ProtocolProblem("a message is not as long as its fields")
        self._take(number, 0, plain[_DATA_AT:last])

    def _got_extended_data(self, packet: bytes) -> None:
        reader = Reader(packet)
        number, kind, data = reader.uint32(), reader.uint32(), reader.string()
        reader.end()
        self._take(number, kind, data)

    def _take(self, number: int, kind: int, data: bytes) -> None:
        channel, size = self.channels.get(number), len(data)
        if channel is None or channel.close_received or number in self._asked_for:
            raise _not_open()
        if size > channel.localWindowLeft or size > channel.localMaxPacket:
            raise ProtocolProblem("a channel got more data than it had room for")
        if channel.eof_received:
            raise ProtocolProblem("data came after the end of data")
        channel.localWindowLeft -= size
        channel.got_data(kind, data)

    def _got_eof(self, packet: bytes) -> None:
        channel = self._channel(Reader(packet).uint32())
        if channel.eof_received:
            raise ProtocolProblem("the end of data came twice")
        channel.got_eof()

    def _got_close(self, packet: bytes) -> None:
        self._channel(Reader(packet).uint32()).got_close()

    def _got_channel_request(self, packet: bytes) -> None:
        reader = Reader(packet)
        channel = self._channel(reader.uint32())
        channel.got_request(reader.string(), reader.boolean(), reader.rest())

    def _got_channel_success(self, packet: bytes) -> None:
        self._answered(packet)(None)

    def _got_channel_failure(self, packet: bytes) -> None:
        self._answered(packet)(RequestRefused("the peer refused a request"))

    def _answered(self, packet: bytes) -> Told:
        channel = self._channel(Reader(packet).uint32())
        waiting = self._asked.get(channel.id)
        if not waiting:
            raise ProtocolProblem("an answer came to no question")
        return waiting.pop(0)

    # -- what channels send --

    def sendData(self, channel: Receiving, data: bytes | memoryview) -> None:
        """Send data that the window and the packet size allow."""
        self.transport.seal(_DATA.pack(_CHANNEL_DATA, channel.remote_id, len(data)), data)

    def sendExtendedData(self, channel: Receiving, dataType: int, data: bytes | memoryview) -> None:
        head = _EXTENDED.pack(messages.CHANNEL_EXTENDED_DATA, channel.remote_id, dataType, len(data))
        self.transport.seal(head, data)

    def send_eof(self, channel: Receiving) -> None:
        self.transport.sendPacket(messages.CHANNEL_EOF, uint32(channel.remote_id))

    def adjustWindow(self, channel: Receiving, bytesToAdd: int) -> None:
        self.transport.sendPacket(messages.CHANNEL_WINDOW_ADJUST, _TWO.pack(channel.remote_id, bytesToAdd))

    def send_reply(self, channel: Receiving, success: bool) -> None:
        number = messages.CHANNEL_SUCCESS if success else messages.CHANNEL_FAILURE
        self.transport.sendPacket(number, uint32(channel.remote_id))

    def sendClose(self, channel: Receiving) -> None:
        if channel in self.channelsToRemoteChannel:
            self.transport.sendPacket(messages.CHANNEL_CLOSE, uint32(channel.remote_id))

    def request(self, channel: Receiving, name: bytes, data: bytes, told: Told | None) -> None:
        """Send a request. ``told`` gets None for success, or RequestRefused; without it, no answer is wanted."""
        if channel.localClosed:
            if told is not None:
                told(RequestRefused("the channel is closed"))
            return
        head = uint32(channel.remote_id) + string(name) + boolean(told is not None)
        self.transport.sendPacket(messages.CHANNEL_REQUEST, head + data)
        if told is not None:
            self._asked.setdefault(channel.id, []).append(told)

    def channelClosed(self, channel: Receiving) -> None:
        if channel not in self.channelsToRemoteChannel:
            return
        del self.channelsToRemoteChannel[channel]
        del self.localToRemoteChannel[channel.id]
        del self.channels[channel.id]
        for told in self._asked.pop(channel.id, []):
            told(RequestRefused("the channel was closed"))
        try:
            channel.gone()
        finally:
            channel.release()
