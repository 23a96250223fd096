"""Channels: order, windows, back-pressure, half-close, refusals."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from teleconch.codec import string, uint32
from teleconch.ssh import limits
from teleconch.ssh import messages as m
from teleconch.ssh.client import ClientOptions
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from teleconch.ssh.server_limits import Limits
from tests.worlds.ssh import BLOCK, ClientSession, Pair, options, pattern


def now(pair: Pair, awaitable: Any) -> Any:
    """The result of something that needs no more than the wire to move."""
    result: list[Any] = []
    problems: list[Any] = []
    deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)
    deferred.addCallbacks(result.append, problems.append)
    pair.pump()
    if problems:
        problems[0].raiseException()
    assert result, "it still waits"
    return result[0]


def entered(**given: Any) -> Pair:
    pair = Pair(**given)
    pair.pump()
    assert pair.client.ready.called
    return pair


def session(pair: Pair, command: bytes, **given: Any) -> ClientSession:
    channel = ClientSession(**given)
    connection = pair.client.service
    now(pair, connection.open(channel))
    now(pair, connection.sendRequest(channel, b"exec", string(command), 1))
    return channel


def test_a_command_with_its_status() -> None:
    """Output, exit status and close arrive, in this order, even where the command ends at once."""
    pair = entered()
    channel = session(pair, b"hello")
    assert bytes(channel.data) == b"hello\n"
    assert channel.eof
    assert channel.code == 3
    assert channel.done.called
    assert not pair.client.service.channels
    assert not pair.server.service.channels
    assert pair.avatar.closed_channels == 1
    pair.end()


def test_echo_then_half_close() -> None:
    """After the client's EOF the server can still send, and what it sends arrives."""
    pair = entered()
    channel = session(pair, b"count")
    channel.write(b"x" * 100_000)
    channel.loseWriteConnection()
    pair.pump()
    assert bytes(channel.data) == b"100000"
    assert channel.done.called
    pair.end()


@pytest.mark.parametrize("size", [1, 32768, 3_000_000])
def test_much_data_down(size: int) -> None:
    """What a server sends arrives whole, with EOF behind the last byte."""
    pair = entered()
    channel = session(pair, b"send %d" % size)
    pair.pump()
    assert bytes(channel.data) == b"".join(pattern(size))
    assert channel.eof
    assert channel.code == 0
    pair.end()


def test_a_reader_that_rests_stops_the_writer() -> None:
    """While nobody takes the data, no more than a window of it comes, and nothing piles up at the sender."""
    pair = entered()
    channel = ClientSession()
    connection = pair.client.service
    now(pair, connection.open(channel))
    channel.pauseProducing()
    now(pair, connection.sendRequest(channel, b"exec", string(b"send 50000000"), 1))
    assert (channel.size, channel.localWindowLeft) == (0, 0)
    (far,) = pair.server.service.channels.values()
    assert far.unsent_bytes <= len(BLOCK)
    channel.resumeProducing()
    pair.pump(100_000)
    assert channel.size == 50_000_000
    pair.end()


def test_a_process_that_does_not_read_stops_the_client() -> None:
    """A client that pushes to a process that does not read is stopped by the window."""
    pair = entered()
    channel = session(pair, b"mute")
    asked: list[bool] = []

    class Producer:
        def resumeProducing(self) -> None:
            asked.append(True)
            channel.write(BLOCK)

        def stopProducing(self) -> None:
            pass

    channel.registerProducer(Producer(), False)
    pair.pump()
    assert len(asked) == limits.FIRST_WINDOW // len(BLOCK)
    (far,) = pair.server.service.channels.values()
    assert (far.received, far.localWindowLeft) == (0, 0)
    pair.end()


def test_a_writer_that_takes_no_pause_is_stopped() -> None:
    """A program error that writes without end costs one channel, not all of the memory."""
    pair = entered()
    channel = session(pair, b"mute")
    for _ in range(400):
        channel.write(BLOCK)
    assert channel.unsent_bytes <= limits.CHANNEL_BUFFER
    pair.pump()
    assert channel.closing
    pair.end()


def test_requests_wait_for_the_one_before() -> None:
    """While a request is being answered, what the client sends next waits, and keeps its order."""
    pair = entered()
    channel = ClientSession()
    connection = pair.client.service
    now(pair, connection.open(channel))
    answers: list[Any] = []
    for command in (b"slow", b"hash"):
        connection.sendRequest(channel, b"exec", string(command), 1).addBoth(answers.append)
    channel.write(b"data")
    channel.loseWriteConnection()
    pair.pump()
    (far,) = pair.server.service.channels.values()
    assert not answers
    assert not far.received
    pair.avatar.slow[0].callback(True)
    pair.pump()
    assert answers == [True, True]
    assert far.received == 4
    assert channel.done.called
    pair.end()


def test_many_requests_wait_for_the_one_before() -> None:
    """As many requests as may wait are answered in one go, and the connection goes on."""
    pair = entered()
    channel = ClientSession()
    connection = pair.client.service
    now(pair, connection.open(channel))
    answers: list[Any] = []
    connection.sendRequest(channel, b"exec", string(b"slow"), 1).addBoth(answers.append)
    for _ in range(limits.PENDING_EVENTS * 64):
        connection.sendRequest(channel, b"nonesuch@example.com", b"", 1).addErrback(answers.append)
    pair.pump(100_000)
    with capturedLogs() as log:
        pair.avatar.slow[0].callback(True)
        pair.pump(100_000)
    assert [each is True or bool(each.check(RequestRefused)) for each in answers] == [True] * (1 + 64 * 64)
    assert not any("log_failure" in event for event in log)
    assert not pair.server.ended
    pair.end()


def test_a_request_that_breaks() -> None:
    """An error inside the server refuses that request, says nothing of its inside, and leaves the rest alone."""
    pair = entered()
    channel = ClientSession()
    now(pair, pair.client.service.open(channel))
    with capturedLogs() as log, pytest.raises(RequestRefused) as refused:
        now(pair, pair.client.service.sendRequest(channel, b"exec", string(b"fail"), 1))
    assert "secret" not in str(refused.value)
    assert any("log_failure" in event for event in log)
    assert session(pair, b"hello").code == 3
    pair.end()


def test_refused_channels() -> None:
    """A refused channel tells its reason; one that broke tells nothing of the server's inside."""
    pair = entered()
    for kind, code, word in ((b"x11", 1, "not here"), (b"broken", 2, "something went wrong")):
        channel = ClientSession()
        channel.name = kind
        with capturedLogs(), pytest.raises(ChannelRefused) as refused:
            now(pair, pair.client.service.open(channel))
        assert refused.value.code == code
        assert word in str(refused.value)
        assert "secret" not in str(refused.value)
    assert not pair.client.service.channels
    pair.end()


def test_ten_thousand_channels() -> None:
    """A client gets no more channels than allowed, and the server lives on."""
    pair = entered(options=options(limits=Limits(max_channels=10)))
    refused: list[Any] = []
    opened: list[Any] = []
    for _ in range(10_000):
        pair.client.service.open(ClientSession()).addCallbacks(opened.append, refused.append)
    pair.pump(100_000)
    assert len(opened) == 10
    assert {failure.value.code for failure in refused} == {4}
    assert not pair.server.ended
    pair.end()


def test_global_requests() -> None:
    """Global requests are answered in order: with data, yes, or no."""
    pair = entered()
    connection = pair.client.service
    asked = [connection.sendGlobalRequest(name, b"", 1) for name in (b"good", b"plain", b"unknown")]
    pair.pump()
    assert asked[0].result == b"reply"
    assert asked[1].result == b""
    asked[2].addErrback(lambda failure: failure.trap(RequestRefused))
    pair.end()


def test_the_end_of_the_connection_reaches_everyone() -> None:
    """When the wire is cut, channels close, questions fail, and the user is logged out once."""
    pair = entered()
    channel = session(pair, b"mute")
    waiting = pair.client.service.sendGlobalRequest(b"good", b"", 1)
    opening = pair.client.service.open(ClientSession())
    failed: list[Any] = []
    waiting.addErrback(failed.append)
    opening.addErrback(failed.append)
    gone: list[Any] = []
    pair.client.service.disconnected.addCallback(gone.append)
    pair.end()
    assert channel.done.called
    assert len(failed) == 2
    assert gone == [None]
    assert pair.avatar.logged_out == 1
    assert pair.avatar.closed_channels == 1
    assert not pair.clock.getDelayedCalls()


def test_keepalive() -> None:
    """A peer that is silent for too long is given up, with its channels; one that answers stays."""
    pair = entered(options=options(keepalive_interval=30, keepalive_count_max=2))
    session(pair, b"mute")
    for _ in range(20):
        pair.clock.advance(30)
        pair.pump()
    assert not pair.server.ended
    for turn in range(5):
        assert pair.server.ended is (turn >= 4), turn
        pair.ends[0].written.clear()
        pair.clock.advance(30)
    assert pair.server.ended
    pair.end()
    assert pair.avatar.closed_channels == 1


# -- hostile peers --


def raw(pair: Pair, number: int, body: bytes) -> None:
    pair.client.seal(bytes((number,)), body)
    pair.pump()


def far_channel(pair: Pair) -> Any:
    return next(iter(pair.server.service.channels.values()))


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (m.CHANNEL_DATA, uint32(7) + string(b"x")),
        (m.CHANNEL_EXTENDED_DATA, uint32(7) + uint32(1) + string(b"x")),
        (m.CHANNEL_WINDOW_ADJUST, uint32(7) + uint32(1)),
        (m.CHANNEL_EOF, uint32(7)),
        (m.CHANNEL_CLOSE, uint32(7)),
        (m.CHANNEL_REQUEST, uint32(7) + string(b"exec") + b"\1"),
        (m.CHANNEL_SUCCESS, uint32(7)),
        (m.CHANNEL_FAILURE, uint32(0)),
        (m.CHANNEL_OPEN_CONFIRMATION, uint32(7) + uint32(0) * 3),
        (m.CHANNEL_OPEN_FAILURE, uint32(0) + uint32(1) + string(b"") * 2),
        (m.REQUEST_SUCCESS, b""),
        (m.CHANNEL_DATA, b""),
        (m.CHANNEL_DATA, uint32(0)),
        (m.CHANNEL_DATA, uint32(0) + uint32(5) + b"x"),
        (m.CHANNEL_DATA, uint32(0) + string(b"x") + b"more"),
        (m.CHANNEL_DATA, uint32(0) + string(bytes(limits.CHANNEL_PACKET + 1))),
        (m.CHANNEL_WINDOW_ADJUST, uint32(0) + uint32(0xFFFFFFFF)),
        (m.CHANNEL_OPEN, string(b"session")),
        (m.GLOBAL_REQUEST, b"\xff\xff\xff\xff"),
    ],
)
def test_messages_that_make_no_sense(number: int, body: bytes) -> None:
    """A peer that breaks the rules loses its connection; there is no traceback, and nothing is left."""
    pair = entered()
    session(pair, b"mute")
    with capturedLogs() as log:
        raw(pair, number, body)
    assert pair.server.ended
    assert not [event for event in log if "log_failure" in event]
    pair.end()
    assert pair.avatar.closed_channels == 1
    assert not pair.clock.getDelayedCalls()


@pytest.mark.parametrize(
    "messages",
    [
        [(m.CHANNEL_EOF, b""), (m.CHANNEL_DATA, string(b"x"))],
        [(m.CHANNEL_EOF, b""), (m.CHANNEL_EOF, b"")],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_DATA, string(b"x"))],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_CLOSE, b"")],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_REQUEST, string(b"exec") + b"\1" + string(b"hello"))],
    ],
)
def test_after_the_end(messages: list[tuple[int, bytes]]) -> None:
    """Data after EOF and anything after CLOSE end the connection."""
    pair = entered()
    session(pair, b"mute")
    for number, body in messages:
        raw(pair, number, uint32(0) + body)
    assert pair.server.ended
    pair.end()
    assert pair.avatar.closed_channels == 1


def test_after_the_end_while_a_request_waits() -> None:
    """The same holds while the answer to a request is awaited."""
    for first in (m.CHANNEL_EOF, m.CHANNEL_CLOSE):
        pair = entered()
        session(pair, b"mute")
        raw(pair, m.CHANNEL_REQUEST, uint32(0) + string(b"exec") + b"\1" + string(b"slow"))
        raw(pair, first, uint32(0))
        assert not pair.server.ended
        raw(pair, m.CHANNEL_DATA, uint32(0) + string(b"x"))
        assert pair.server.ended
        pair.end()
        pair.avatar.slow[0].callback(True)
        assert pair.avatar.closed_channels == 1


def test_more_than_the_window() -> None:
    """A peer that sends more than it was allowed to is cut off before that is kept."""
    pair = entered()
    session(pair, b"mute")
    for _ in range(4):
        raw(pair, m.CHANNEL_DATA, uint32(0) + string(bytes(limits.FIRST_WINDOW // 4)))
    assert not pair.server.ended
    raw(pair, m.CHANNEL_DATA, uint32(0) + string(b"x"))
    assert pair.server.ended
    pair.end()


@pytest.mark.parametrize("window", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("packet", [0, 1, 0xFFFFFFFF])
def test_odd_windows(window: int, packet: int) -> None:
    """Windows of nothing and of everything, and packets of one byte: the data arrives as far as the window goes."""
    pair = entered()
    channel = ClientSession()
    connection = pair.client.service
    channel.conn = connection
    channel.id = 9
    connection.channels[9] = channel
    connection._asked_for[9] = lambda problem: None
    raw(pair, m.CHANNEL_OPEN, string(b"session") + uint32(9) + uint32(window) + uint32(packet))
    channel.localWindowLeft, channel.localMaxPacket = window, max(1, packet)
    connection.sendRequest(channel, b"exec", string(b"send 1000"), 0)
    pair.pump()
    assert channel.size == min(window, 1000)
    if window == 1:
        connection.adjustWindow(channel, 999)
        channel.localWindowLeft += 999
        pair.pump()
        assert channel.size == 1000
    pair.end()


def test_a_flood_of_questions() -> None:
    """Requests whose answers take long cannot pile up without end."""
    pair = entered()
    session(pair, b"mute")
    pair.client.seal(bytes((m.CHANNEL_REQUEST,)), uint32(0) + string(b"exec") + b"\1" + string(b"slow"))
    for _ in range(limits.PENDING_EVENTS * 64 + 2):
        pair.client.seal(bytes((m.CHANNEL_REQUEST,)), uint32(0) + string(b"exec") + b"\1" + string(b"hello"))
    pair.pump(100_000)
    assert pair.server.ended
    pair.end()


def test_small_windows_on_our_side() -> None:
    """A client that grants little at a time still gets everything."""
    pair = entered(client_options=ClientOptions())
    channel = session(pair, b"send 100000", localWindow=1000, localMaxPacket=100)
    pair.pump(100_000)
    assert channel.size == 100_000
    pair.end()


def test_a_client_has_no_channels_for_servers() -> None:
    """A server cannot open channels to a client that expects none."""
    pair = entered()
    result = pair.server.service.open(ClientSession())
    pair.pump()
    result.addErrback(lambda failure: failure.trap(ChannelRefused))
    assert not pair.client.service.channels
    pair.end()


WORDS = st.sampled_from([uint32(0), uint32(1), uint32(2**31), uint32(2**32 - 1), b"\0", b"\1", string(b"session")])
BODIES = st.lists(st.one_of(WORDS, st.binary(max_size=6), st.binary(max_size=40).map(string)), max_size=6).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(80, 100), BODIES), max_size=8))
def test_nonsense_after_login(messages: list[tuple[int, bytes]]) -> None:
    """Whatever someone who is logged in sends: no traceback, no channel, timer or question left, one log-out."""
    with capturedLogs() as log:
        pair = entered()
        session(pair, b"echo")
        pair.client.legal = dict.fromkeys(pair.client.legal, frozenset())  # it hears nothing: answers end it
        for number, body in messages:
            if not pair.server.ended:
                pair.client.seal(bytes((number,)), body)
                pair.pump()
        pair.end()
    assert not [event for event in log if "log_failure" in event]
    assert not pair.clock.getDelayedCalls()
    assert not pair.server.factory.connections
    assert pair.avatar.logged_out == 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["down", "up", "pause", "resume", "rekey", "rekey far", "eof", "close", "open"]),
            st.integers(0, 3),
            st.integers(1, 200_000),
        ),
        max_size=30,
    )
)
def test_any_order_of_use(steps: list[tuple[str, int, int]]) -> None:
    """Opening, writing, resting, re-keying and closing in any order: what was written arrives whole and in order, and
    nothing is left."""
    pair = entered()
    channels: list[ClientSession] = []
    written: list[bytearray] = []
    for what, which, size in steps:
        if what == "open" and len(channels) < 4:
            channels.append(session(pair, b"echo"))
            written.append(bytearray())
        if what == "rekey":
            pair.client.rekey()
        if what == "rekey far":
            pair.server.rekey()
        if which < len(channels):
            channel = channels[which]
            if what == "up" and not channel._eof_wanted and not channel.closing:
                written[which] += BLOCK[: size % len(BLOCK)]
                channel.write(BLOCK[: size % len(BLOCK)])
            elif what == "pause":
                channel.pauseProducing()
            elif what == "resume":
                channel.resumeProducing()
            elif what == "eof":
                channel.loseWriteConnection()
            elif what == "close":
                channel.loseConnection()
        if size % 3:
            pair.pump()
    for channel in channels:
        channel.resumeProducing()
        channel.loseWriteConnection()
    pair.pump()
    for channel, sent in zip(channels, written, strict=True):
        assert channel.done.called
        if channel.code is not None:
            assert channel.data == sent
        else:
            assert sent.startswith(channel.data)
    assert not pair.client.service.channels
    assert not pair.server.service.channels
    assert not pair.server.ended
    pair.end()


def test_tiny_packets_cost_no_more_than_their_window() -> None:
    """A client that sends byte by byte to a process that does not read fills a window, and not the memory with it."""
    pair = entered()
    channel = session(pair, b"mute")
    (far,) = pair.server.service.channels.values()
    sent = b"".join(bytes((n % 256, n // 256 % 256)) for n in range(100_000))
    for at in range(0, len(sent), 2):
        far.localWindowLeft -= 2
        far.got_data(0, sent[at : at + 2])
    cast("Connection", channel.conn).sendEOF(channel)
    pair.pump()
    assert len(far._held) < 10
    got: list[bytes] = []
    far.dataReceived = got.append
    far.eofReceived = lambda: got.append(b"EOF")
    far.resumeProducing()
    assert b"".join(got) == sent + b"EOF"
    pair.end()


def test_windows_are_small_until_there_is_a_consumer() -> None:
    """A thousand channels of one client hold some megabytes, not gigabytes; one that is read gets its whole window."""
    pair = entered()
    for _ in range(200):
        now(pair, pair.client.service.open(ClientSession()))
    channels = list(pair.server.service.channels.values())
    windows = [channel.localWindowLeft for channel in channels]
    assert windows[:32] == [limits.FIRST_WINDOW] * 32
    assert set(windows[32:]) == {limits.NARROW_WINDOW}
    for client in (pair.client.service.channels[0], pair.client.service.channels[199]):
        client.write(bytes(limits.NARROW_WINDOW * 4))
        pair.pump()
    assert channels[0].localWindowLeft > limits.CHANNEL_WINDOW // 2
    assert channels[199].localWindowLeft > limits.CHANNEL_WINDOW // 2
    pair.end()


def test_requests_that_wait_are_few() -> None:
    """A client that sends big requests behind one that is slow to answer is disconnected: they fill no memory."""
    pair = entered()
    channel = session(pair, b"mute")
    (far,) = pair.server.service.channels.values()
    far._answering = True
    for _ in range(limits.CONNECTION_BUDGET // 100_000):
        pair.client.service.sendRequest(channel, b"env", bytes(100_000))
    pair.pump()
    assert pair.server.ended
