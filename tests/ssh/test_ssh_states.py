"""Every message number in every state, from a hostile client. For a hostile server: ``test_ssh_hostile_server``."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import pytest
from twisted.internet.task import Clock

from teleconch.codec import string, uint32
from teleconch.ssh import algorithms, states
from teleconch.ssh import messages as m
from teleconch.ssh.client import ClientOptions, SSHClientTransport
from teleconch.ssh.server import ServerOptions
from tests.worlds.ssh import ClientSession, Memory, Pair, make_client

# A body with which a message that is legal here does no harm.
HARMLESS = {m.PING: b"\0\0\0\0", m.DEBUG: b"\0" + bytes(8), m.UNIMPLEMENTED: bytes(4), m.IGNORE: bytes(4)}


class _Stopper:
    """Stops talking by itself when the peer is in ``where``; then messages are injected."""

    where: str = ""
    stopped = False

    def stop(self) -> None:
        self.stopped = True


class StoppingClient(_Stopper, SSHClientTransport):
    """Leaves the server in a state and goes no further."""

    def _send_kexinit(self) -> None:
        if self.where == states.START and self.sessionID is None:
            self._our_kexinit = b"never sent"
            return
        super()._send_kexinit()

    def kex_agreed(self, agreed: Any) -> None:
        if self.where != states.KEYS or self.sessionID is not None:
            super().kex_agreed(agreed)

    def _keys_made(self, secret: bytes, digest: bytes) -> None:
        if self.where != states.NEW:
            super()._keys_made(secret, digest)

    def connectionSecure(self) -> None:
        if self.where != states.SERVICE:
            super().connectionSecure()

    def _got_service_accept(self, body: bytes) -> None:
        if self.where != states.AUTH:
            super()._got_service_accept(body)

    def message(self, number: int, body: bytes, sequence: int) -> None:
        if not (self.where == states.START and number == m.KEXINIT):
            super().message(number, body, sequence)


def client_at(state: str) -> Pair:
    kind = type("Client", (StoppingClient,), {"where": state})
    pair = Pair(lambda clock: make_client(clock, kind))
    pair.pump()
    return pair


@pytest.mark.parametrize("state", states.STATES)
def test_server_ends_on_messages_that_are_not_legal(state: str) -> None:
    """A client that sends what it must not at that moment, logged in or not, is cut off, and gets nothing for it."""
    for number in range(256):
        pair = client_at(state)
        server = pair.server
        assert server.state == state
        before = server.service
        body = HARMLESS.get(number, b"")
        legal = number in states.SERVER[state]
        pair.client.seal(bytes((number,)), body)
        pair.pump()
        if not legal:
            unknown = state == states.OPEN and number not in states.KNOWN
            assert server.ended is not unknown, (state, number)
        elif number in HARMLESS and state in (states.SERVICE, states.OPEN):
            assert not server.ended, (state, number)
        if state != states.OPEN:
            assert not server.factory.realm.avatars, (state, number)
            assert server.state != states.OPEN
            assert before is None or not hasattr(before, "channels")
        pair.end()
        assert not pair.clock.getDelayedCalls(), (state, number)


def test_only_the_exchange_before_the_first_keys() -> None:
    """Prefix truncation (Terrapin) needs an extra packet before the first keys; under strict KEX it ends the connection
    (CVE-2023-48795)."""
    for number in (m.IGNORE, m.DEBUG, m.UNIMPLEMENTED):
        for state in (states.START, states.KEYS, states.NEW):
            pair = client_at(state)
            pair.client.seal(bytes((number,)), HARMLESS[number])
            if state == states.START:  # the peer's first packet is this one; then it goes on as if nothing was
                pair.client._our_kexinit = None
                type(pair.client).where = ""
                pair.client._send_kexinit()
            pair.pump()
            assert pair.server.ended, (number, state)
            pair.end()


def test_only_the_exchange_during_a_rekey() -> None:
    """Who has begun a key exchange must end it before anything else, data of an open channel too."""
    for number in range(256):
        pair = Pair()
        pair.pump()
        pair.client.rekey()
        pair.client.seal(bytes((number,)), HARMLESS.get(number, b""))
        pair.pump()
        assert pair.server.ended or number in (m.IGNORE, m.UNIMPLEMENTED, m.DEBUG), number
        pair.end()
    pair = Pair()
    pair.pump()
    channel = ClientSession()
    pair.client.service.open(channel)
    pair.pump()
    pair.client.rekey()
    pair.client.seal(bytes((m.CHANNEL_DATA,)), uint32(0) + string(b"data"))
    pair.pump()
    assert pair.server.ended
    pair.end()


def test_extensions_only_at_their_moment() -> None:
    """EXT_INFO counts right behind the first NEWKEYS; later it ends the connection
    (CVE-2023-46445)."""
    for before, good in (((), True), ((m.IGNORE,), False), ((m.EXT_INFO,), False)):
        pair = client_at(states.SERVICE)
        for number in before:
            pair.client.seal(bytes((number,)), bytes(4))
        pair.client.seal(bytes((m.EXT_INFO,)), bytes(4))
        pair.pump()
        assert pair.server.ended is not good, before
        pair.end()


def test_sequence_numbers_begin_again_with_new_keys() -> None:
    """Under strict KEX each NEWKEYS sets the sequence numbers to zero, so that nothing sent before can shift them."""
    pair = Pair()
    seen = []
    original = type(pair.server)._got_newkeys

    class Watching(type(pair.server)):  # type: ignore[misc]
        def _got_newkeys(self, body: bytes) -> None:
            original(self, body)
            seen.append((self._in_sequence, self._out_sequence))

    pair.server.__class__ = Watching
    pair.pump()
    assert seen[0][0] == 0
    assert pair.server._out_sequence < 10
    pair.client.rekey()
    pair.pump()
    assert len(seen) == 2
    assert seen[1][0] == 0
    assert pair.server.keyExchanges == 2
    pair.end()


def test_a_peer_without_strict_kex_gets_only_gcm() -> None:
    """With a peer that has no strict KEX, ChaCha20 and EtM are refused rather than left open to Terrapin."""

    class Lax(SSHClientTransport):
        agreeing = False
        _strict = property(lambda self: self.agreeing, lambda self, value: None)

        def _got_kexinit(self, body: bytes) -> None:
            self.agreeing = True
            super()._got_kexinit(body)
            self.agreeing = False

        def seal(self, head: bytes, body: Any = b"") -> None:
            if head[0] == m.KEXINIT and self.sessionID is None:
                head = head.replace(b"kex-strict-c-v00@openssh.com", b"kex-string-c-v00@openssh.com")
                self._our_kexinit = head
            super().seal(head, body)

    for cipher, good in (
        ("aes128-gcm@openssh.com", True),
        ("aes256-gcm@openssh.com", True),
        ("chacha20-poly1305@openssh.com", False),
        ("aes256-ctr", False),
    ):
        pair = Pair(partial(make_client, kind=Lax, options=ClientOptions(ciphers=(cipher,))))
        pair.pump()
        assert (pair.server.state == states.OPEN) is good, cipher
        pair.end()


class Unmarked(SSHClientTransport):
    """A client of before strict key exchange, such as OpenSSH up to 9.5."""

    def seal(self, head: bytes, body: Any = b"") -> None:
        if head[0] == m.KEXINIT and self.sessionID is None:
            head = head.replace(b"kex-strict-c-v00@openssh.com", b"kex-string-c-v00@openssh.com")
            self._our_kexinit = head
        super().seal(head, body)

    def _got_kexinit(self, body: bytes) -> None:
        super()._got_kexinit(body)
        self._strict = False


@pytest.mark.parametrize("version", [b"OpenSSH_7.4", b"OpenSSH_9.2p1 Debian-2", b"PuTTY_Release_0.78"])
def test_an_old_client_that_prefers_chacha_gets_in_with_gcm(version: bytes) -> None:
    """OpenSSH 7.4 has no strict KEX and asks for ChaCha20 first: it is offered AES-GCM alone, and works."""
    options = ClientOptions(ciphers=("chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-gcm@openssh.com"))

    def client(clock: Clock) -> SSHClientTransport:
        made = make_client(clock, Unmarked, options=options)
        made.ourVersionString = b"SSH-2.0-" + version
        return made

    pair = Pair(client)
    pair.pump()
    assert pair.server.state == states.OPEN
    assert not pair.server._strict
    assert set(pair.server.offered.ciphers) == {b"aes256-gcm@openssh.com", b"aes128-gcm@openssh.com"}
    pair.end()


@pytest.mark.parametrize(
    "options",
    [
        ClientOptions(ciphers=("aes128-ctr", "aes256-ctr"), mac_algos=("hmac-sha2-256", "hmac-sha2-512")),
        ClientOptions(ciphers=("aes256-ctr",), mac_algos=("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512")),
        ClientOptions(ciphers=("aes128-gcm@openssh.com",), kex_algos=("ecdh-sha2-nistp256",)),
    ],
)
def test_a_client_that_has_only_what_is_older_gets_in(options: ClientOptions) -> None:
    """Paramiko 2.12 (Debian 12) has CTR and plain MACs alone, FIPS 140 only NIST's curves: both get in, as on sshd."""

    def client(clock: Clock) -> SSHClientTransport:
        made = make_client(clock, Unmarked, options=options)
        made.ourVersionString = b"SSH-2.0-paramiko_2.12.0"
        return made

    pair = Pair(client)
    pair.pump()
    assert pair.server.state == states.OPEN
    pair.end()
    strict = ServerOptions(mac_algos=("hmac-sha2-256-etm@openssh.com",), kex_algos=("curve25519-sha256",))
    pair = Pair(client, options=strict)
    pair.pump()
    assert pair.server.state != states.OPEN, "the configuration says what is offered"
    pair.end()


def test_a_usual_client_is_offered_nothing_older() -> None:
    """What is of last resort is not in the offer to a client that has something better."""
    pair = Pair()
    pair.pump()
    assert pair.server.state == states.OPEN
    assert not set(algorithms.MACS_ALSO).intersection(pair.server.offered.macs)
    assert not set(algorithms.KEX_ALSO).intersection(pair.server.offered.kex)
    pair.end()


OLD = ClientOptions(ciphers=("aes128-ctr",), mac_algos=("hmac-sha2-256",), kex_algos=("ecdh-sha2-nistp256",))


@pytest.mark.parametrize("kind", [Unmarked, SSHClientTransport])
@pytest.mark.parametrize("seconds", [0.6, 1.2, 5.0, 9.9])
def test_a_slow_line_is_no_reason_to_refuse(kind: type[SSHClientTransport], seconds: float) -> None:
    """However late a client's list of algorithms comes, if it can be in time at all, it gets what it can use."""
    pair = Pair(lambda clock: make_client(clock, kind, options=OLD))
    late, pair.ends[1].written = b"".join(pair.ends[1].written), deque()
    line, end, kexinit = late.partition(b"\r\n")
    pair.server.dataReceived(line + end)
    pair.clock.advance(seconds)
    pair.server.dataReceived(kexinit)
    pair.pump()
    assert pair.server.state == states.OPEN
    pair.end()


class Waiting(SSHClientTransport):
    """Sends its KEXINIT after the server's."""

    def begin(self) -> None:
        self._flush()


@pytest.mark.parametrize("options", [OLD, ClientOptions()])
@pytest.mark.parametrize("kind", [Waiting, type("Both", (Waiting, Unmarked), {})])
def test_who_waits_for_our_list_gets_in(kind: type[SSHClientTransport], options: ClientOptions) -> None:
    """A client that waits for the server's list of algorithms gets it, and can use it: at once where it is known to
    wait, else after a part of the time that it has for logging in."""
    for version, seconds in ((b"Renci.SshNet.SshClient.0.0.1", 0.0), (b"unknown", 10.0)):

        def client(clock: Clock, version: bytes = version) -> SSHClientTransport:
            made = make_client(clock, kind, options=options)
            made.ourVersionString = b"SSH-2.0-" + version
            return made

        pair = Pair(client)
        pair.pump()
        assert (pair.server.state == states.OPEN) is not bool(seconds), version
        pair.clock.advance(seconds)
        pair.pump()
        assert pair.server.state == states.OPEN
        pair.end()


def test_memory_ends_are_real_enough() -> None:
    """The pair in memory, used above, logs in for real."""
    pair = Pair()
    pair.pump()
    assert pair.server.state == pair.client.state == states.OPEN
    assert isinstance(pair.ends[0], Memory)
    assert isinstance(pair.clock, Clock)
    pair.end()
    assert pair.avatar.logged_out == 1
