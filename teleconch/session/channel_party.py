"""An SSH channel that takes part in a session (what it tells at the end: RFC 4254 section 6.10)."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from teleconch.codec import boolean, string
from teleconch.session.parties import Seat
from teleconch.session.program import Take
from teleconch.ssh.channel import Channel

STDERR: Final = 1  # SSH_EXTENDED_DATA_STDERR
END_OF_WRITE: Final = b"eow@openssh.com"  # OpenSSH's PROTOCOL, section 2.1
UNKNOWN: Final = 255  # exit status if nobody knows it, as ssh's own for its failures
SIGNALS: Final = {
    name: getattr(signal, f"SIG{name}")
    for name in ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
}
_NAMES: Final = {number: name.encode() for name, number in SIGNALS.items()}

log = Logger()


@implementer(IPushProducer)
class ChannelParty:
    """To the channel, it is the producer of all output. ``over`` is called when the session is done with the channel,
    which then closes; not if the channel closes first."""

    seat: Seat
    pauseProducing: Callable[[], None]

    def __init__(self, channel: Channel, over: Callable[[], None]) -> None:
        """The channel is paused."""
        self._channel = channel
        self._over = over
        self.room = channel
        self.write: Take = channel.write
        self._status: int | None = None
        self._status_waits = self._end_waits = False
        self.pause_input = channel.pauseProducing
        self.resume_input = channel.resumeProducing

    @property
    def waiting(self) -> int:
        return self._channel.unsent_bytes

    def write_error(self, data: bytes, /) -> None:
        self._channel.writeExtended(STDERR, data)

    def joined(self, seat: Seat) -> None:
        self.seat = seat
        self.pauseProducing = seat.pause
        self._channel.registerProducer(self, True)

    def input_lost(self) -> None:
        """OpenSSH's client stops sending when told (PROTOCOL section 2.1)."""
        version = getattr(self._channel.conn.transport, "otherVersionString", b"")
        if b"OpenSSH" in version and not self._channel.eof_received:
            self._channel.conn.sendRequest(self._channel, END_OF_WRITE, b"")

    # --- the end -----------------------------------------------------------------------------------------------------

    def exited(self, status: int | None) -> None:
        self._status, self._status_waits = status, True
        self._tell()

    def over(self) -> None:
        self._end_waits = True
        self._tell()

    def dropped(self, sentence: str) -> None:
        log.info("a channel was dropped from its session: {reason}", reason=sentence)
        self._over()
        self._channel.abortConnection()

    def _tell(self) -> None:
        """Tell what waits for the last byte of output: the channel's requests would overtake it."""
        if self._channel.unsent_bytes:
            return
        if self._status_waits:
            self._status_waits = False
            self._channel.conn.sendRequest(self._channel, *_told(self._status))
        if self._end_waits:
            self._end_waits = False
            self._channel.loseWriteConnection()
            self._channel.loseConnection()
            self._over()
            self.seat.leave(told=True)

    # --- as the channel's producer -----------------------------------------------------------------------------------

    def resumeProducing(self) -> None:
        self.seat.resume()
        if self._status_waits or self._end_waits:
            self._tell()

    def stopProducing(self) -> None:
        """The channel closes, or its connection is lost."""
        self.seat.leave()


def _told(status: int | None) -> tuple[bytes, bytes]:
    """The request that tells a status: name and body."""
    if status is None:
        return b"exit-status", struct.pack(">L", UNKNOWN)
    if os.WIFSIGNALED(status):
        name = _NAMES.get(os.WTERMSIG(status), b"SIG@openssh.com")
        return b"exit-signal", string(name) + boolean(os.WCOREDUMP(status)) + string(b"") + string(b"")
    return b"exit-status", struct.pack(">L", os.WEXITSTATUS(status))
