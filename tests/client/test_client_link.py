"""The SSH connection of `tsh ssh`: against OpenSSH's server, and against servers that lie."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleconch.ca.keys import new_ssh_key, public_blob
from teleconch.client.link import ENDED, ChannelUser, Link
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, TrustError
from teleconch.ssh import algorithms, kex, limits, messages, packet, states
from teleconch.ssh.signatures import load_private_key, sign

PRIVATE, PUBLIC = new_ssh_key()
KEY = load_private_key(PRIVATE.reveal())
BLOB = public_blob(PUBLIC)


class Recorder(ChannelUser):
    """Runs a command as soon as the channel is open, and keeps what comes."""

    def __init__(self, command: bytes = b"true") -> None:
        self.command = command
        self.out, self.err, self.over = bytearray(), bytearray(), False
        self.status: Any = None
        self.link: Any = None
        self.running = False

    def answered(self, success: bool) -> None:
        self.running = success

    def opened(self, link: Link) -> None:
        self.link.send_request(b"exec", string(self.command), True)

    def data(self, data: bytes) -> None:
        self.out += data
        self.link.credit(len(data))

    def error_data(self, data: bytes) -> None:
        self.err += data
        self.link.credit(len(data))

    def request(self, name: bytes, data: bytes) -> None:
        if name == b"exit-status":
            self.status = int.from_bytes(data, "big")

    def closed(self) -> None:
        self.over = True


def new_link(
    recorder: Recorder | None = None, verify: Callable[..., Any] = lambda blob: None, user: str = "root"
) -> Link:
    recorder = recorder or Recorder()
    link = recorder.link = Link(user, KEY, BLOB, verify, recorder, b"session")
    return link


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of OpenSSH's server, which changes keys every megabyte."""
    folder = tmp_path_factory.mktemp("sshd")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    (folder / "authorized").write_text(PUBLIC + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "StrictModes no\nUsePAM no\nPidFile none\nRekeyLimit 1M\nPermitRootLogin yes\n"
    )
    os.makedirs("/run/sshd", exist_ok=True)
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    process = subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        select.select([], [], [], 0.02)
    yield port
    process.terminate()
    process.wait()


def converse(port: int, recorder: Recorder, link: Link, feed: bytes = b"") -> None:
    """Run a link over a socket until its channel is over; ``feed`` is written to the channel once the command runs."""
    wants_eof = bool(feed)
    until = time.monotonic() + 30
    with socket.create_connection(("127.0.0.1", port)) as tcp:
        while link.state != ENDED and not recorder.over and time.monotonic() < until:
            if recorder.running and feed and link.unsent < 100_000:
                link.write(feed[:100_000])
                feed = feed[100_000:]
            elif wants_eof and not feed:
                wants_eof = False
                link.write_eof()
            tcp.sendall(link.take())
            if select.select([tcp], [], [], 0 if recorder.running and feed and link.unsent < 100_000 else 1)[0]:
                data = tcp.recv(65536)
                if data:
                    link.feed(data)
                else:
                    link.lost()


@pytest.mark.root
def test_command_on_openssh(sshd: int) -> None:
    """A command runs on OpenSSH's server, and its status comes back."""
    recorder = Recorder(b"echo out; echo err >&2; exit 7")
    converse(sshd, recorder, new_link(recorder))
    assert (bytes(recorder.out), bytes(recorder.err), recorder.status) == (b"out\n", b"err\n", 7)


@pytest.mark.root
def test_server_changes_keys(sshd: int) -> None:
    """A long download survives the server's key changes."""
    recorder = Recorder(b"head -c 8000000 /dev/zero")
    link = new_link(recorder)
    converse(sshd, recorder, link)
    assert len(recorder.out) == 8_000_000
    assert link.exchanges > 3


@pytest.mark.root
def test_both_change_keys(sshd: int) -> None:
    """A long upload survives key changes of both sides."""
    recorder = Recorder(b"sha256sum")
    link = new_link(recorder)
    link.transport.rekey_bytes = 700_000
    data = os.urandom(6_000_000)
    converse(sshd, recorder, link, data)
    assert recorder.status == 0, link.problem
    assert link.exchanges > 2
    expected = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout
    assert bytes(recorder.out) == expected


@pytest.mark.root
@pytest.mark.parametrize("told", ["data", "request"])
def test_our_own_faults_are_not_the_servers(sshd: int, told: str) -> None:
    """What fails at our end, such as output that nobody reads, is raised and not taken for a fault of the server."""
    recorder = Recorder(b"echo out")

    def fail(*_: object) -> None:
        raise BrokenPipeError

    setattr(recorder, told, fail)
    with pytest.raises(BrokenPipeError):
        converse(sshd, recorder, new_link(recorder))


@pytest.mark.root
def test_unknown_key_is_refused(sshd: int) -> None:
    """Who is not let in is told so."""
    recorder = Recorder()
    recorder.link = Link(
        "root", load_private_key(new_ssh_key()[0].reveal()), BLOB, lambda blob: None, recorder, b"session"
    )
    converse(sshd, recorder, recorder.link)
    assert isinstance(recorder.link.problem, AccessDenied)


@pytest.mark.root
def test_host_key_is_asked_about_before_anything_secret(sshd: int) -> None:
    """A host that is not believed learns no user name."""
    asked = []

    def refuse(blob: bytes) -> None:
        asked.append(blob)
        raise TrustError("not this one.")

    recorder = Recorder()
    link = new_link(recorder, refuse)
    converse(sshd, recorder, link)
    assert len(asked) == 1
    assert str(link.problem) == "not this one."


SERVER_VERSION = b"SSH-2.0-Liar\r\n"


def plain(payload: bytes, sequence: int = 0) -> bytes:
    out: list[Any] = []
    packet.PlainSealer().seal(sequence, out, payload, b"")
    return b"".join(out)


def server_kexinit(strict: bool = True) -> bytes:
    offered = algorithms.choose()
    payload = kex.make_kexinit(offered, client=False, first=True, host_keys=(b"ssh-ed25519",))
    return payload if strict else payload.replace(algorithms.STRICT_SERVER, b"kex-strixt-s-v00@openssh.com")


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-1.5-old\r\n",
        b"x" * 300,
        b"hello\r\n" * 40,
        b"SSH-2.0-x\0y\r\n",
        SERVER_VERSION + b"\xff" * 40,
        SERVER_VERSION + plain(b"\x33"),
        SERVER_VERSION + plain(bytes((messages.USERAUTH_SUCCESS,))),
        SERVER_VERSION + plain(bytes((messages.CHANNEL_OPEN_CONFIRMATION,)) + uint32(0) * 4),
        SERVER_VERSION + plain(bytes((messages.NEWKEYS,))),
        SERVER_VERSION + plain(bytes((messages.KEX_REPLY,)) + string(b"") * 3),
        SERVER_VERSION + plain(bytes((messages.IGNORE,)) + string(b"")) + plain(server_kexinit()),
        SERVER_VERSION + plain(server_kexinit()) + plain(bytes((messages.IGNORE,)) + string(b"")),
        SERVER_VERSION + plain(server_kexinit()) + plain(server_kexinit()),
        SERVER_VERSION + plain(server_kexinit()) + plain(bytes((messages.KEX_REPLY,)) + string(BLOB) * 3),
        SERVER_VERSION + plain(server_kexinit()[:60]),
    ],
)
def test_server_that_lies(sent: bytes) -> None:
    """A wrong first word or a message at the wrong moment ends the connection with a sentence (CVE-2023-48795)."""
    recorder = Recorder()
    link = new_link(recorder)
    link.feed(sent)
    assert link.state == ENDED
    assert link.problem is not None
    assert recorder.over


def test_old_server_may_ignore() -> None:
    """Without strict key exchange, IGNORE and DEBUG may come at any time (RFC 4253 section 11)."""
    link = new_link()
    link.feed(SERVER_VERSION + plain(bytes((messages.IGNORE,)) + string(b"")) + plain(server_kexinit(strict=False)))
    assert link.state == states.KEYS


@settings(max_examples=300)
@given(st.binary(max_size=600), st.integers(1, 50))
def test_noise(noise: bytes, step: int) -> None:
    """Whatever a server sends, in whatever pieces, ends in a sentence at worst."""
    link = new_link()
    data = SERVER_VERSION + plain(server_kexinit()) + noise
    for at in range(0, len(data), step):
        link.feed(data[at : at + step])
    link.lost()
    assert link.state == ENDED
    assert link.problem is not None


def test_disconnect_is_told() -> None:
    """The reason that a server gives reaches the user."""
    link = new_link()
    link.feed(SERVER_VERSION + plain(bytes((messages.DISCONNECT,)) + uint32(12) + string(b"too many") + string(b"")))
    assert "too many" in str(link.problem)


@pytest.mark.parametrize("honest", [True, False])
def test_host_must_prove_its_key(honest: bool) -> None:
    """Who shows a host key without its private half (CVE-2024-45337) learns no user name; who has the key does."""
    asked: list[Any] = []
    link = new_link(verify=asked.append)
    offer = server_kexinit()
    link.feed(SERVER_VERSION + plain(offer))
    version, _, sent = link.take().partition(b"\r\n")
    view, at, payloads = memoryview(sent), 0, []
    while at < len(sent):
        opened = packet.PlainOpener().open(0, view, at, len(sent), 100_000)
        assert opened is not None
        found, at = opened
        payloads.append(found[1 : len(found) - found[0]])
    init = payloads[1][5:]
    name = kex.parse_kexinit(payloads[0]).kex[0]
    host_private, host_public = new_ssh_key()
    blob = public_blob(host_public)
    reply, secret = kex.server_exchange(name, init)
    digest = kex.exchange_hash(name, (version, SERVER_VERSION.strip()), (payloads[0], offer), blob, init, reply, secret)
    signer = load_private_key(host_private.reveal()) if honest else KEY
    signature = sign(signer, digest, b"ssh-ed25519")
    link.feed(plain(bytes((messages.KEX_REPLY,)) + string(blob) + string(reply) + string(signature)))
    assert link.state == (states.NEW if honest else ENDED), link.problem
    assert asked == ([blob] if honest else [])
    if not honest:
        assert "signature is wrong" in str(link.problem)


@pytest.mark.root
@pytest.mark.parametrize(("passed", "exchanges"), [(limits.REKEY_SECONDS - 1, 1), (limits.REKEY_SECONDS + 1, 2)])
def test_keys_are_changed_each_hour(sshd: int, passed: float, exchanges: int) -> None:
    """A session that says little gets new keys, too."""
    now = [5.0]

    class Patient(Recorder):
        def answered(self, success: bool) -> None:
            super().answered(success)
            now[0] += passed
            self.link.tick(9)

    recorder = Patient(b"cat")
    link = recorder.link = Link("root", KEY, BLOB, lambda blob: None, recorder, b"session", clock=lambda: now[0])
    converse(sshd, recorder, link, b"hello")
    assert (bytes(recorder.out), recorder.status, link.exchanges) == (b"hello", 0, exchanges)


@pytest.mark.root
@pytest.mark.parametrize(("passed", "patient"), [(limits.KEX_SECONDS - 1, True), (limits.KEX_SECONDS + 1, False)])
def test_key_exchange_that_does_not_end(sshd: int, passed: float, patient: bool) -> None:
    """A server that does not answer a key exchange is left after two minutes; nothing could be sent any more."""
    now = [5.0]

    class Slow(Recorder):
        def answered(self, success: bool) -> None:
            super().answered(success)
            self.link.rekey()
            now[0] += passed
            self.link.pass_time()

    recorder = Slow(b"exit 3")
    link = recorder.link = Link("root", KEY, BLOB, lambda blob: None, recorder, b"session", clock=lambda: now[0])
    converse(sshd, recorder, link)
    assert (recorder.status == 3) is patient
    assert ("does not answer the key exchange" in str(link.problem)) is not patient
