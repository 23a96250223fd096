"""An SSH channel as a party: the order of what its peer is told, whatever the window."""

from __future__ import annotations

import signal
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from teleconch.codec import string
from teleconch.session.channel_party import ChannelParty
from teleconch.session.live import DESERTED, Live, Outcome
from teleconch.session.parties import Right
from teleconch.ssh.account import Account
from teleconch.ssh.channel import Channel
from tests.worlds.parties import Told


class Carrier:
    """Keeps the messages of one channel."""

    congested = False

    def __init__(self) -> None:
        self.account = Account(1 << 20)
        self.sent: list[object] = []
        self.transport = SimpleNamespace(
            congested=False, cork=lambda: None, uncork=lambda: None, otherVersionString=b"SSH-2.0-OpenSSH_9.2"
        )

    def sendData(self, channel: Channel, data: bytes | memoryview) -> None:
        self.sent.append(bytes(data))

    def sendExtendedData(self, channel: Channel, kind: int, data: bytes | memoryview) -> None:
        self.sent.append((kind, bytes(data)))

    def sendRequest(self, channel: Channel, name: bytes, data: bytes, wantReply: int = 0) -> None:
        self.sent.append((name, data))

    def send_eof(self, channel: Channel) -> None:
        self.sent.append("eof")

    def sendClose(self, channel: Channel) -> None:
        channel.localClosed = 1
        self.sent.append("close")

    def close_if_done(self, channel: Channel) -> None:
        pass


class _Joined:
    """A channel with so much window that takes part in a session."""

    def __init__(self, window: int) -> None:
        self.program = Told()
        self.ends: list[Any] = []
        self.carrier = Carrier()
        self.overs = 0
        self.channel = Channel(conn=self.carrier, remoteWindow=window, remoteMaxPacket=1 << 15)
        self.channel.pauseProducing()
        self.party = ChannelParty(self.channel, self._over)
        self.live = Live("1", self.program, self.ends.append)
        self.live.join(self.party, Right.WRITE)

    def _over(self) -> None:
        self.overs += 1


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (3 << 8, (b"exit-status", struct.pack(">L", 3))),
        (None, (b"exit-status", struct.pack(">L", 255))),
        (signal.SIGTERM, (b"exit-signal", string(b"TERM") + b"\0" + string(b"") * 2)),
    ],
)
def test_the_end_follows_the_last_byte(status: int | None, told: tuple[bytes, bytes]) -> None:
    """However slow the client is, it is told the status after the last byte, and then EOF and CLOSE."""
    joined = _Joined(window=4)
    joined.program.stdout(b"whole")
    joined.program.stderr(b"err")
    joined.program.streams_over = True
    joined.program.events.ended(status, None)
    assert joined.carrier.sent == [b"whol"]
    assert not joined.ends
    joined.channel.addWindowBytes(2)
    assert joined.carrier.sent[1:] == [b"e", (1, b"e")]
    joined.channel.addWindowBytes(9)
    assert joined.carrier.sent[3:] == [(1, b"rr"), told, "eof", "close"]
    assert joined.ends == [Outcome(status, None)]
    assert joined.overs == 1


def test_a_full_window_makes_the_program_wait() -> None:
    """No window, or no room on the network: the program's output rests until there is some."""
    joined = _Joined(window=4)
    assert not joined.program.resting
    joined.program.stdout(b"four")
    assert joined.program.resting
    joined.channel.addWindowBytes(1)
    assert not joined.program.resting
    joined.channel.sending_paused()
    assert joined.program.resting
    joined.channel.sending_resumed()
    assert not joined.program.resting
    assert _Joined(window=0).program.resting


def test_dropped() -> None:
    """A channel that is dropped is closed at once: what waits for it is forgotten."""
    joined = _Joined(window=1)
    joined.program.stdout(b"whole")
    joined.live.hang_up("the node stops")
    assert joined.carrier.sent == [b"w", "close"]
    assert joined.overs == 1
    assert joined.ends == [Outcome(None, "the node stops")]


def test_the_channel_goes() -> None:
    """A channel that its peer closes, or that is lost with its connection, has left the session."""
    joined = _Joined(window=9)
    joined.channel.gone()
    assert joined.ends == [Outcome(None, DESERTED)]
    assert joined.program.acts == ["hang_up"]


def test_the_program_reads_no_more() -> None:
    """OpenSSH's client stops sending when told; others would not understand."""
    joined = _Joined(window=9)
    joined.program.events.input_lost()
    assert joined.carrier.sent == [(b"eow@openssh.com", b"")]
    joined = _Joined(window=9)
    joined.carrier.transport.otherVersionString = b"SSH-2.0-paramiko"
    joined.program.events.input_lost()
    assert joined.carrier.sent == []
