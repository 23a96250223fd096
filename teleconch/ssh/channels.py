"""The channels of a connection by their numbers, and the messages of those that are open (RFC 4254 sections 5.2 to
5.4). There is no Twisted here; ``connection`` opens them."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from teleconch.codec import uint32
from teleconch.ssh import limits, messages
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.receiving import Receiving
from teleconch.ssh.requests import KeepAlive

_DATA_AT: Final = 10  # where data begins: after padding length, number, channel and size
_CHANNEL_DATA: Final = messages.CHANNEL_DATA
_TWO: Final = Struct(">II")
_DATA: Final = Struct(">BII")
_EXTENDED: Final = Struct(">BIII")


def _not_open() -> ProtocolProblem:
    return ProtocolProblem("a message came for a channel that is not open")


class Channels:
    """What both sides' connection service does with open channels. The dictionaries are Conch's."""

    transport: Any
    _keepalive: KeepAlive

    def __init__(self) -> None:
        self.channels: dict[int, Any] = {}  # also those that are being opened
        self.localToRemoteChannel: dict[int, int] = {}
        self.channelsToRemoteChannel: dict[Any, int] = {}
        self.localChannelID = 0  # the next
        self._open_results: dict[int, Any] = {}  # those that we asked for and the peer has not answered
        self._turn = 0

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

    # -- from the peer --

    def _channel(self, number: int) -> Receiving:
        channel: Receiving | None = self.channels.get(number)
        if channel is None or number in self._open_results or channel.close_received:
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
        if channel is None or channel.close_received or number in self._open_results:
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

    # -- what channels send --

    def sendData(self, channel: Receiving, data: bytes | memoryview) -> None:
        """Send data that the window and the packet size allow."""
        self.transport.seal(_DATA.pack(_CHANNEL_DATA, channel.remote_id, len(data)), data)

    def sendExtendedData(self, channel: Receiving, dataType: int, data: bytes | memoryview) -> None:
        head = _EXTENDED.pack(messages.CHANNEL_EXTENDED_DATA, channel.remote_id, dataType, len(data))
        self.transport.seal(head, data)

    def sendEOF(self, channel: Receiving) -> None:
        """Send EOF after everything that was written."""
        channel.loseWriteConnection()

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
