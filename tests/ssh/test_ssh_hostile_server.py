"""What a hostile server can do to a client: to that on Twisted, and to that of ``tsh ssh``, which has none."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from teleconch.codec import name_list, string, uint32
from teleconch.ssh import limits, signatures, states
from teleconch.ssh import messages as m
from teleconch.ssh.reader import Reader
from teleconch.ssh.server import SSHServerTransport
from tests.worlds.hostile_server import (
    QUIET,
    Hostile,
    LinkClient,
    MakeClient,
    at,
    end,
    in_session,
    inject,
    twisted_client,
)
from tests.worlds.ssh import Pair, user_cert


@pytest.fixture(params=[twisted_client, LinkClient], ids=["twisted", "tsh-ssh"])
def client(request: pytest.FixtureRequest) -> MakeClient:
    made: MakeClient = request.param
    return made


@pytest.mark.parametrize("state", states.STATES)
def test_messages_that_are_not_legal(client: MakeClient, state: str) -> None:
    """A server that sends what it must not at that moment is left (rogue EXT_INFO, rogue sessions)."""
    for number in range(256):
        pair = at(client, state)
        inject(pair, number)
        if number not in states.CLIENT[state]:
            unknown = state == states.OPEN and number not in states.KNOWN
            assert pair.client.ended is not unknown, (state, number)
        elif number in QUIET and state in (states.SERVICE, states.AUTH, states.OPEN):
            assert not pair.client.ended, (state, number)
        end(pair)


@pytest.mark.parametrize("state", [states.START, states.KEYS, states.NEW])
@pytest.mark.parametrize("number", [m.IGNORE, m.DEBUG, m.UNIMPLEMENTED])
def test_only_the_exchange_before_the_first_keys(client: MakeClient, state: str, number: int) -> None:
    """Prefix truncation (Terrapin, CVE-2023-48795) needs an extra packet before the first keys; with strict key
    exchange it ends the connection."""
    pair = at(client, state)
    inject(pair, number)
    if state == states.START:  # the first packet was this one; then it goes on as if nothing was
        assert not pair.client.ended
        pair.server._our_kexinit = None
        type(pair.server).where = ""
        pair.server._send_kexinit()
        pair.pump()
    assert pair.client.ended
    end(pair)


def test_extensions_only_at_their_moment(client: MakeClient) -> None:
    """EXT_INFO may come right after the first NEWKEYS and while the user is let in; at any other time it ends the
    connection (CVE-2023-46445)."""
    for sent, good in (((m.EXT_INFO,), True), ((m.IGNORE, m.EXT_INFO), False), ((m.EXT_INFO, m.EXT_INFO), False)):
        pair = Pair(client, server=type("Server", (Hostile,), {"extensions": sent}))
        pair.pump()
        assert pair.client.ended is not good, sent
        end(pair)
    pair = at(client, states.AUTH)
    inject(pair, m.EXT_INFO)
    assert not pair.client.ended
    inject(pair, m.EXT_INFO, uint32(65) + string(b"") * 130)
    assert pair.client.ended
    end(pair)


@pytest.mark.parametrize(
    ("state", "number", "body"),
    [
        (states.SERVICE, m.SERVICE_ACCEPT, b""),
        (states.SERVICE, m.SERVICE_ACCEPT, string(b"ssh-connection")),
        (states.AUTH, m.USERAUTH_BANNER, b""),
        (states.AUTH, m.EXT_INFO, b""),
        (states.AUTH, m.USERAUTH_PK_OK, string(b"ssh-ed25519") + string(b"")),
        (states.NEW, m.NEWKEYS, b"more"),
    ],
)
def test_early_messages_that_make_no_sense(client: MakeClient, state: str, number: int, body: bytes) -> None:
    """The same for fields that do not fit and answers to what was not asked before the user is logged in."""
    pair = at(client, state)
    inject(pair, number, body)
    assert pair.client.ended
    end(pair)


@pytest.mark.parametrize(
    ("state", "size", "good"),
    [
        (states.START, limits.PACKET_MAX_FIRST, False),
        (states.SERVICE, limits.PACKET_MAX_FIRST, True),
        (states.AUTH, limits.PACKET_MAX_FIRST, True),
        (states.SERVICE, limits.PACKET_MAX_EARLY, False),
        (states.AUTH, limits.PACKET_MAX_EARLY, False),
        (states.OPEN, limits.PACKET_MAX_EARLY, True),
        (states.OPEN, limits.PACKET_MAX, False),
    ],
)
def test_long_packets(client: MakeClient, state: str, size: int, good: bool) -> None:
    """Before the user is logged in, a server gets no more memory than its messages need."""
    pair = at(client, state)
    inject(pair, m.IGNORE, string(bytes(size)))
    assert pair.client.ended is not good
    end(pair)


def test_a_flood_before_login(client: MakeClient) -> None:
    """A server cannot keep a client busy for ever with messages that say nothing, nor by keys that change."""
    for number in (m.IGNORE, m.PING, m.USERAUTH_BANNER):
        pair = at(client, states.AUTH)
        sent = 0
        while not pair.client.ended and sent <= limits.MESSAGES_EARLY:
            inject(pair, number)
            sent += 1
        assert limits.MESSAGES_EARLY - 10 < sent < limits.MESSAGES_EARLY
        end(pair)
    pair = at(client, states.AUTH)
    for _ in range(limits.MESSAGES_EARLY):
        if not pair.client.ended:
            pair.server.rekey()
            pair.pump()
    assert pair.client.ended
    end(pair)
    pair = at(client, states.OPEN)
    for _ in range(limits.MESSAGES_EARLY + 1):
        inject(pair, m.IGNORE)
    assert not pair.client.ended
    end(pair)


def test_new_keys_at_any_time(client: MakeClient) -> None:
    """A server may ask for new keys before the user is logged in, and after; nothing else may come until they are
    there, and all is as before then."""
    for state in (states.SERVICE, states.AUTH, states.OPEN):
        pair = at(client, state)
        pair.server.rekey()
        pair.pump()
        assert pair.client.state == state
        assert pair.server.keyExchanges == 2
        inject(pair, m.PING)
        assert pair.client.ended is (state == states.SERVICE)
        end(pair)
    for number in range(256):
        if number not in (m.IGNORE, m.UNIMPLEMENTED, m.DEBUG):
            pair, _ = in_session(client)
            pair.server.rekey()
            inject(pair, number)
            assert pair.client.ended, number
            end(pair)


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (m.CHANNEL_DATA, uint32(7) + string(b"x")),
        (m.CHANNEL_EXTENDED_DATA, uint32(7) + uint32(1) + string(b"x")),
        (m.CHANNEL_WINDOW_ADJUST, uint32(7) + uint32(1)),
        (m.CHANNEL_EOF, uint32(7)),
        (m.CHANNEL_CLOSE, uint32(7)),
        (m.CHANNEL_REQUEST, uint32(7) + string(b"x") + b"\1"),
        (m.CHANNEL_SUCCESS, uint32(7)),
        (m.CHANNEL_SUCCESS, uint32(0)),
        (m.CHANNEL_FAILURE, uint32(0)),
        (m.CHANNEL_OPEN_CONFIRMATION, uint32(0) + uint32(0) * 3),
        (m.CHANNEL_OPEN_CONFIRMATION, uint32(7) + uint32(0) * 3),
        (m.CHANNEL_OPEN_FAILURE, uint32(0) + uint32(1) + string(b"") * 2),
        (m.REQUEST_SUCCESS, b""),
        (m.REQUEST_FAILURE, b""),
        (m.CHANNEL_DATA, uint32(0)),
        (m.CHANNEL_DATA, uint32(0) + uint32(5) + b"x"),
        (m.CHANNEL_DATA, uint32(0) + string(b"x") + b"more"),
        (m.CHANNEL_DATA, uint32(0) + string(bytes(limits.CHANNEL_PACKET + 1))),
        (m.CHANNEL_EXTENDED_DATA, uint32(0) + uint32(1) + string(b"x") + b"more"),
        (m.CHANNEL_WINDOW_ADJUST, uint32(0) + uint32(0xFFFFFFFF)),
        (m.CHANNEL_OPEN, string(b"session") + uint32(0)),
        (m.GLOBAL_REQUEST, b"\xff\xff\xff\xff"),
        (m.PING, b""),
    ],
)
def test_messages_that_make_no_sense(client: MakeClient, number: int, body: bytes) -> None:
    """Confirmations and answers that nobody asked for, channels that are not there, fields that do not fit: the
    connection ends, and nothing of them is shown."""
    pair, session = in_session(client)
    inject(pair, number, body)
    assert pair.client.ended
    assert not session.heard
    end(pair)


@pytest.mark.parametrize(
    "messages",
    [
        [(m.CHANNEL_EOF, b""), (m.CHANNEL_DATA, string(b"x"))],
        [(m.CHANNEL_EOF, b""), (m.CHANNEL_EXTENDED_DATA, uint32(1) + string(b"x"))],
        [(m.CHANNEL_EOF, b""), (m.CHANNEL_EOF, b"")],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_DATA, string(b"x"))],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_WINDOW_ADJUST, uint32(1))],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_EOF, b"")],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_CLOSE, b"")],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_REQUEST, string(b"x") + b"\1")],
        [(m.CHANNEL_CLOSE, b""), (m.CHANNEL_OPEN_CONFIRMATION, uint32(0) * 3)],
    ],
)
def test_after_the_end(client: MakeClient, messages: list[tuple[int, bytes]]) -> None:
    """Data after EOF, a second EOF and anything after CLOSE end the connection, and nothing of it is shown."""
    pair, session = in_session(client)
    for number, body in messages:
        assert not pair.client.ended
        inject(pair, number, uint32(0) + body)
    assert pair.client.ended
    assert not session.heard
    end(pair)


def test_too_much_data(client: MakeClient) -> None:
    """What is longer than the window that was granted ends the connection before it is kept."""
    pair, session = in_session(client)
    far = next(iter(pair.server.service.channels.values()))
    granted = far.remoteWindowLeft
    session.hold()
    while granted:
        size = min(granted, limits.CHANNEL_PACKET)
        granted -= size
        inject(pair, m.CHANNEL_DATA, uint32(0) + string(bytes(size)))
    assert not pair.client.ended
    inject(pair, m.CHANNEL_DATA, uint32(0) + string(b"x"))
    assert pair.client.ended
    end(pair)


def test_nothing_is_heard_after_hanging_up(client: MakeClient) -> None:
    """What was on its way when the client closed its session is read and dropped, and still has to keep the rules."""
    late = [
        (m.CHANNEL_DATA, string(b"late")),
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + string(b"late")),
        (m.CHANNEL_REQUEST, string(b"late") + b"\1"),
        (m.CHANNEL_WINDOW_ADJUST, uint32(0xFFFFFFFF)),
        (m.CHANNEL_EOF, b""),
    ]
    pair, session = in_session(client)
    session.hang_up()
    for number, body in late:
        inject(pair, number, uint32(0) + body)
        assert not pair.client.ended, number
    assert not session.heard
    assert not session.over
    inject(pair, m.CHANNEL_DATA, uint32(0) + string(b"x"))
    assert pair.client.ended
    end(pair)


def test_the_end_of_data_is_heard(client: MakeClient) -> None:
    """What an honest server says of its session is heard."""
    pair, session = in_session(client)
    inject(pair, m.CHANNEL_DATA, uint32(0) + string(b"out "))
    inject(pair, m.CHANNEL_EXTENDED_DATA, uint32(0) + uint32(1) + string(b"err "))
    inject(pair, m.CHANNEL_EOF, uint32(0))
    inject(pair, m.CHANNEL_REQUEST, uint32(0) + string(b"exit-status") + b"\0" + uint32(0))
    assert (session.heard, session.over) == (b"out err exit-status", True)
    inject(pair, m.CHANNEL_CLOSE, uint32(0))
    assert not pair.client.ended
    end(pair)


def test_one_answer_to_one_question(client: MakeClient) -> None:
    """As many answers may come as there were questions, however late."""
    for question, good, bad in (
        ("ask", m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE),
        ("keep_alive", m.REQUEST_SUCCESS, m.REQUEST_FAILURE),
    ):
        pair, session = in_session(client)
        for _ in range(2):
            getattr(session, question)()
        for number in (good, bad):
            inject(pair, number, uint32(0))
            assert not pair.client.ended
        inject(pair, good, uint32(0))
        assert pair.client.ended
        end(pair)


def test_a_key_exchange_without_end(client: MakeClient) -> None:
    """A server that begins a key exchange and does not end it is left."""
    pair, session = in_session(client)
    pair.server.rekey()
    pair.pump()
    assert pair.client.state == states.KEYS
    if isinstance(session, LinkClient):
        for _ in range(4):
            session.keep_alive()
    else:
        pair.clock.advance(limits.KEX_SECONDS)
        pair.pump()
    assert pair.client.ended
    end(pair)


RSA = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
CERT = signatures.CERT_SUFFIX


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ((b"rsa-sha2-256",), b"rsa-sha2-256" + CERT),
        ((b"ssh-ed25519", b"rsa-sha2-256", b"rsa-sha2-512"), b"rsa-sha2-512" + CERT),
        ((b"rsa-sha2-256" + CERT,), b"rsa-sha2-256" + CERT),
        ((b"ssh-ed25519",), b"rsa-sha2-512" + CERT),
        (None, b"rsa-sha2-512" + CERT),
    ],
)
def test_the_server_says_which_signatures_it_takes(
    client: MakeClient, taken: tuple[bytes, ...] | None, expected: bytes
) -> None:
    """An RSA key signs as the server's ``server-sig-algs`` ask, which name no certificates (RFC 8308 section 3.1)."""
    asked = []

    class Choosy(SSHServerTransport):
        def _send_ext_info(self) -> None:
            if taken is not None:
                self.seal(bytes((m.EXT_INFO,)), uint32(1) + string(b"server-sig-algs") + name_list(taken))

        def message(self, number: int, body: bytes, sequence: int) -> None:
            if number == m.USERAUTH_REQUEST:
                reader = Reader(body)
                for _ in range(3):
                    reader.string()
                reader.boolean()
                asked.append(reader.string())
            super().message(number, body, sequence)

    line = "ssh-rsa " + b64encode(signatures.public_blob(RSA)).decode()
    certificate = user_cert(public_key=line)
    pair = Pair(lambda clock: client(clock, RSA_PEM, certificate), server=Choosy)
    pair.pump()
    assert asked == [expected]
    assert pair.client.state == states.OPEN
    end(pair)
