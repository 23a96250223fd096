"""What a peer makes this process keep: bounded by bytes, for its connection and its user, and all given back."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs

from teleconch.ca.keys import public_blob
from teleconch.client.link import ENDED, ChannelUser, Link
from teleconch.codec import boolean, string, uint32
from teleconch.ssh import limits, signatures, states
from teleconch.ssh import messages as m
from teleconch.ssh.account import Account, account_of
from tests.worlds.ssh import USER_CERT, USER_PEM, Avatar, ClientSession, Pair, Session


def entered() -> Pair:
    pair = Pair()
    pair.pump()
    return pair


def held(pair: Pair) -> int:
    return int(pair.server.account.held)


class Pushy:
    """A client without scruples: raw messages, whatever the windows say."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        pair.client.service.packetReceived = lambda number, packet: None

    def send(self, number: int, *parts: bytes) -> None:
        self.pair.client.seal(bytes((number,)), b"".join(parts))
        self.pair.pump()

    def open(self, number: int, kind: bytes = b"session", rest: bytes = b"", window: int = 1 << 30) -> None:
        self.send(m.CHANNEL_OPEN, string(kind), uint32(number), uint32(window), uint32(1 << 15), rest)


def test_an_account() -> None:
    """A part takes from the whole; what does not fit in either is refused, and takes nothing from both."""
    whole = Account(100)
    one, two = Account(80, whole), Account(80, whole)
    assert one.take(60)
    assert not one.take(21)
    assert not two.take(41)
    assert (one.held, two.held, whole.held) == (60, 0, 60)
    assert two.take(40)
    assert not two.take(1, spare=True)
    one.give(60)
    assert not one.take(61, spare=True)
    assert one.take(35, spare=True)
    two.give(40)
    one.give(35)
    assert (one.held, two.held, whole.held) == (0, 0, 0)


def test_one_user_has_one_account() -> None:
    """All connections of a user count together, until the last is gone."""
    first, second = entered(), entered()
    assert first.server.account.whole is second.server.account.whole is account_of("alice")
    assert account_of("alice").held == held(first) + held(second) == 2 * limits.CONNECTION_COST
    account_of("alice").take(limits.USER_BUDGET - account_of("alice").held)
    third = Pair()
    third.pump()
    assert third.server.ended, "the user's other connections have it all"
    assert third.avatar.logged_out == 1
    account_of("alice").give(limits.USER_BUDGET - 2 * limits.CONNECTION_COST)
    for pair in (first, second, third):
        pair.end()
    assert account_of("alice").held == 0


def test_filled_windows_fit_into_the_budget() -> None:
    """A thousand sessions that are opened and filled, and never read, hold no more than the budget; what does not fit
    is refused with a sentence, and the connection goes on."""
    pair = entered()
    client = pair.client.service
    refused: list[Any] = []
    channels = [ClientSession() for _ in range(999)]
    for channel in channels:
        client.open(channel).addErrback(refused.append)
    pair.pump()
    for far in pair.server.service.channels.values():
        far.pauseProducing()
    sent = 0
    for channel in channels:
        if channel.remote_id is not None and not refused:
            sent += channel.remoteWindowLeft
            channel.write(bytes(channel.remoteWindowLeft))
    pair.pump()
    assert held(pair) <= limits.CONNECTION_BUDGET
    assert sent <= limits.CONNECTION_BUDGET
    assert sum(len(piece) for far in pair.server.service.channels.values() for _, piece in far._held) == sent
    assert all("close some of it" in str(failure.value) for failure in refused)
    assert not pair.server.ended
    for channel in channels:
        channel.loseConnection()
    pair.pump()
    assert held(pair) == limits.CONNECTION_COST
    pair.end()


def test_windows_grow_no_further_than_the_budget() -> None:
    """However many uploads run at once, the windows that are granted fit into the budget, and each still moves."""
    pair = entered()
    client = pair.client.service
    channels = [ClientSession() for _ in range(100)]
    for channel in channels:
        client.open(channel)
    pair.pump()
    for _ in range(5):
        for channel in channels:
            channel.write(bytes(200_000))
        pair.pump()
    windows = [far.localWindowSize for far in pair.server.service.channels.values()]
    assert max(windows) == limits.CHANNEL_WINDOW
    assert sum(windows) <= held(pair) <= limits.CONNECTION_BUDGET * 3 // 4
    assert {far.received for far in pair.server.service.channels.values()} == {1_000_000}
    pair.end()


@pytest.mark.parametrize("size", [0, 30_000, 200_000])
def test_answers_wait_for_new_keys_by_bytes(size: int) -> None:
    """Who asks for answers and holds the key exchange back gets the connection ended, before a megabyte waits."""
    for number, body in (
        (m.PING, string(bytes(size))),
        (250, bytes(size)),
        (m.GLOBAL_REQUEST, string(b"x") + boolean(True) + bytes(size)),
        (m.CHANNEL_REQUEST, uint32(0) + string(b"x") + boolean(True) + bytes(size)),
        (m.CHANNEL_OPEN, string(b"nothing") + bytes(12) + bytes(size)),
    ):
        pair = entered()
        Pushy(pair).open(0)
        pair.server.rekey()
        pair.ends[0].written.clear()  # our KEXINIT is lost: the client never answers it
        most = 0
        for _ in range(20_000):
            pair.client.seal(bytes((number,)), body)
            pair.pump()
            most = max(most, sum(len(payload) for _, payload in pair.server._blocked))
            if pair.server.ended:
                break
        assert pair.server.ended, number
        assert most <= limits.BLOCKED_BYTES
        pair.end()
        assert held(pair) == 0


def test_a_hostile_server_fills_no_client() -> None:
    """The same toward a client, that of ``tsh ssh`` among them."""
    pair = entered()
    pair.client.rekey()
    pair.ends[1].written.clear()
    for _ in range(100):
        pair.server.seal(bytes((m.PING,)), string(bytes(200_000)))
        pair.pump()
    assert pair.client.ended
    pair.end()
    assert pair.client.account.held == 0
    key = signatures.load_private_key(USER_PEM.reveal())
    link = Link("root", key, public_blob(USER_CERT), lambda blob: None, ChannelUser(), b"session")
    link.feed(b"SSH-2.0-hostile\r\n")
    link.transport.account.widen(limits.CONNECTION_BUDGET, None)  # as after the login
    for _ in range(limits.BLOCKED_BYTES // 210_000):
        link.transport.sendPacket(m.PONG, string(bytes(200_000)))
        assert link.state == states.START
    link.transport.sendPacket(m.PONG, string(bytes(200_000)) * 2)
    assert link.state == ENDED
    assert "too much waits" in str(link.problem)
    assert sum(len(body) for _, body in link.transport._blocked) <= limits.BLOCKED_BYTES


def test_byte_by_byte_in_turns() -> None:
    """Data and extended data in turns, a byte each, cost the peer what they cost us."""
    pair = entered()
    pushy = Pushy(pair)
    for number in range(300):
        pushy.open(number)
    for far in pair.server.service.channels.values():
        far.pauseProducing()
    for number in range(300):
        for _ in range(2_000):
            pair.client.seal(bytes((m.CHANNEL_DATA,)), uint32(number) + string(b"x"))
            pair.client.seal(bytes((m.CHANNEL_EXTENDED_DATA,)), uint32(number) + uint32(1) + string(b"x"))
        pair.pump()
        if pair.server.ended:
            break
    assert pair.server.ended
    pair.end()
    assert held(pair) == 0


def test_opens_under_way_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels that are being decided on hold what their messages hold, and no more than the budget."""
    from twisted.internet.defer import Deferred

    waiting: list[Deferred[Any]] = []

    def dial(self: Avatar, kind: bytes, window: int, max_packet: int, data: bytes) -> Any:
        waiting.append(Deferred())
        return waiting[-1]

    monkeypatch.setattr(Avatar, "lookupChannel", dial)
    pair = entered()
    pushy = Pushy(pair)
    for number in range(300):
        pushy.open(number, b"direct-tcpip", bytes(200_000))
    assert 16 < len(waiting) <= limits.CONNECTION_BUDGET // 200_000
    assert held(pair) <= limits.CONNECTION_BUDGET
    for number, deferred in enumerate(waiting):
        if number % 2:
            deferred.callback(Session(pair.avatar))
        else:
            deferred.errback(RuntimeError("no"))
    with capturedLogs():
        pair.pump()
    pair.end()
    assert held(pair) == 0


def test_a_large_packet_before_there_are_keys() -> None:
    """Before there are keys a packet is no longer than RFC 4253 asks for: 2,000 half-open connections hold 70 MB."""
    pair = Pair()
    pair.ends[1].written.clear()
    pair.server.dataReceived(b"SSH-2.0-x\r\n" + uint32(limits.PACKET_MAX_FIRST + 4))
    assert pair.server.ended
    pair.end()
    assert limits.PACKET_MAX_FIRST >= 35_000


ACTS = st.lists(
    st.tuples(
        st.sampled_from(("open", "write", "exec", "env", "mute", "global", "close", "rekey", "answer", "resume")),
        st.integers(0, 200),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60, phases=(Phase.reuse, Phase.generate))
@given(acts=ACTS, cut=st.booleans())
def test_all_is_given_back(acts: list[tuple[str, int]], cut: bool) -> None:
    """Whatever a client opens, sends, asks and leaves, in whatever order: when it is gone, nothing is held for it."""
    pair = entered()
    client = pair.client.service
    channels: list[ClientSession] = []

    def ignore(result: object) -> None:
        return None

    for act, number in acts:
        channel = channels[number % len(channels)] if channels else None
        if act == "open" or channel is None:
            channels.append(ClientSession())
            client.open(channels[-1]).addErrback(ignore)
        elif act == "write":
            channel.write(os.urandom(8) * number * 200)
        elif act in ("exec", "env"):
            data = string((b"slow", b"mute", b"echo", b"count", b"hello")[number % 5])
            answer = client.sendRequest(channel, act.encode(), data + bytes(number if act == "env" else 0), 1)
            answer.addErrback(ignore)
        elif act == "global":
            client.sendGlobalRequest(b"good", bytes(number), 1).addErrback(ignore)
        elif act == "close":
            channel.loseConnection()
        elif act == "rekey":
            (pair.client, pair.server)[number % 2].rekey()
        elif act == "answer":
            for deferred in pair.avatar.slow:
                if not deferred.called:
                    deferred.callback(bool(number % 2))
        else:
            for far in list(pair.server.service.channels.values()) if pair.server.service else ():
                (far.pauseProducing if act == "mute" else far.resumeProducing)()
        pair.pump(number % 7)
    assert 0 <= held(pair) <= limits.CONNECTION_BUDGET
    if not cut:
        pair.pump()
        for channel in channels:
            channel.loseConnection()
        pair.pump()
        for deferred in pair.avatar.slow:
            if not deferred.called:
                deferred.callback(True)
        pair.pump()
        if not pair.server.ended:
            assert held(pair) == limits.CONNECTION_COST
    pair.end()
    for deferred in pair.avatar.slow:
        if not deferred.called:
            deferred.callback(True)
    assert held(pair) == 0
    assert pair.client.account.held == 0
    gc.collect()
    assert account_of("alice").held == 0
