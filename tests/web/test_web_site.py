"""HTTP and TLS under limits, with peers that do not keep to the rules."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from teleconch.admission import Room
from teleconch.errors import BadParameter
from teleconch.resources.login import ClusterStatus
from teleconch.resources.secret import Secret
from teleconch.web import site
from teleconch.web.tls import CurrentCertificate, TLSFiles, files_reader, make_context
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.reactor import reactor
from tests.worlds.web import Web

HOST = b"Host: localhost\r\n"


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)


@pytest_twisted.ensureDeferred
async def test_pipelining(web: Web) -> None:
    """Requests sent in one go are answered each once, in order, with its own body (CVE-2024-41671)."""
    await web.start()
    login = b'{"user": "a"}'
    sent = (
        b"GET /webapi/ping HTTP/1.1\r\n" + HOST + b"\r\n"
        b"POST /webapi/ssh/certs HTTP/1.1\r\n" + HOST
        + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(login) + login
        + b"GET /one HTTP/1.1\r\n" + HOST + b"\r\n"
        b"GET /webapi/two HTTP/1.1\r\n" + HOST + b"\r\n"
        b"GET /web/style.css HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        b"GET /after/the/end HTTP/1.1\r\n" + HOST + b"\r\n"
    )  # fmt: skip
    answer = await web.raw(sent)
    assert statuses(answer) == [b"200", b"400", b"404", b"404", b"200"]
    parts = (b"server_version", b"password is missing", b"Nothing here", b'{"error": {"message": "There is', b":root {")
    places = [answer.index(part) for part in parts]
    assert places == sorted(places)


@pytest_twisted.ensureDeferred
async def test_slow_request_in_between(web: Web) -> None:
    """A request that waits for auth holds the ones behind it on its connection; their answers are not mixed up."""
    await web.start()
    status = web.auth.status
    waiting: Deferred[None] = Deferred()

    async def slow() -> ClusterStatus:
        await waiting
        answer: ClusterStatus = await status()
        return answer

    web.auth.status = slow
    sent = b"GET /webapi/ping HTTP/1.1\r\n" + HOST + b"\r\nGET /x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    answered = Deferred.fromCoroutine(web.raw(sent))
    await deferLater(reactor, 0.2)
    assert (await web.get("/")).status == 200, "others are served meanwhile"
    waiting.callback(None)
    assert statuses(await answered) == [b"200", b"404"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /webapi/users HTTP/1.1\r\n" + HOST + b"Content-Length: 70000\r\n\r\n", b"413"),
        (b"POST /webapi/users HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n", b"413"),
        (
            b"POST /webapi/users HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 2 + b"8\r\nxxxxxxxx\r\n0\r\n\r\n",
            b"413",
        ),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 20000 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 100 + b"\r\n", b"400"),
        (b"GET /" + b"y" * 20000 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello", b"400"),
        (b"garbage\r\n\r\n", b"400"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_too_much(web: Web, request_: bytes, status: bytes) -> None:
    """Bodies, headers and lines without end, and lengths that contradict each other, end the connection."""
    await web.start()
    answer = await web.raw(request_, 20)
    assert statuses(answer)[:1] == [status] or answer == b""
    assert len(statuses(answer)) <= 1
    assert not web.api.calls


class _Idle(Protocol):
    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def idle(web: Web) -> _Idle:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", web.port)
    return cast("_Idle", await endpoint.connect(Factory.forProtocol(_Idle)))


@pytest_twisted.ensureDeferred
async def test_handshake_deadline(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that connect and say nothing are dropped, and keep nobody else waiting (CVE-2026-7776)."""
    monkeypatch.setattr(site, "HANDSHAKE_DEADLINE", 0.4)
    await web.start()
    silent = [await idle(web) for _ in range(50)]
    assert (await web.get("/")).status == 200
    await gatherResults([each.lost for each in silent]).addTimeout(5, reactor)


@pytest_twisted.ensureDeferred
async def test_age(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that sends a byte now and then does not hold a connection for ever."""
    monkeypatch.setattr(site, "AGE_MAX", 0.5)
    await web.start()

    def drip() -> bool:
        with socket.create_connection(("127.0.0.1", web.port), 10) as plain:
            tls = web.context().wrap_socket(plain, server_hostname="localhost")
            tls.settimeout(0.05)
            tls.sendall(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(100):
                try:
                    tls.sendall(b"y")
                    if not tls.recv(100):
                        return True
                except TimeoutError:
                    pass
                except OSError:
                    return True
            return False

    assert await deferToThread(drip)


@pytest_twisted.ensureDeferred
async def test_connections_are_bounded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """One source can hold only so many silent connections: its oldest go, nobody is refused, and the log is short."""
    monkeypatch.setattr(site, "STEPS", (Room(4, 3), Room(9, 9), Room(9, 9), Room(9, 9)))
    events: list[Any] = []
    await web.start()
    add_observer(events.append)
    try:
        held = [await idle(web) for _ in range(3)]
        newer = [await idle(web) for _ in range(3)]
        await gatherResults([each.lost for each in held])
        assert (await web.get("/")).status == 200, "in the middle of a flood"
    finally:
        remove_observer(events.append)
    assert sum(not each.lost.called for each in newer) >= 2
    told = [each for each in events if each.get("log_format", "").startswith("connection refused")]
    assert [each["service"] for each in told] == ["web"], "a flood fills no log"
    for each in newer:
        each.transport.abortConnection()
    await gatherResults([each.lost for each in newer])
    for _ in range(100):
        if not len(web.server._connections.admission):
            break
        await deferLater(reactor, 0.01)
    else:
        raise AssertionError("a connection is counted for ever")


def half_request(web: Web, sent: bytes) -> ssl.SSLSocket:
    """A connection that has finished the handshake and sent this."""
    tls = web.context().wrap_socket(socket.create_connection(("127.0.0.1", web.port), 10), server_hostname="localhost")
    tls.sendall(sent)
    return tls


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: ",
        b"POST /webapi/users HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nx",
    ],
)
@pytest_twisted.ensureDeferred
async def test_half_requests_make_room(web: Web, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Connections that finish the handshake, and a request never, shut the port for nobody; nor for who is answered."""
    monkeypatch.setattr(site, "STEPS", (Room(9, 9), Room(9, 9), Room(4, 3), Room(9, 9)))
    await web.start()
    status = web.auth.status
    waiting: Deferred[None] = Deferred()

    async def slow() -> ClusterStatus:
        await waiting
        answer: ClusterStatus = await status()
        return answer

    web.auth.status = slow
    being_answered = Deferred.fromCoroutine(web.get("/webapi/ping"))
    held = [await deferToThread(half_request, web, sent) for _ in range(8)]
    assert (await web.get("/")).status == 200
    assert any("dataReceived" in vars(each) for each in web.server._connections.protocols), "no turns after handshakes"
    waiting.callback(None)
    assert (await being_answered).status == 200
    for each in held:
        each.close()


@pytest_twisted.ensureDeferred
async def test_a_request_has_a_deadline(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers that come byte by byte, without an end, end with the connection."""
    monkeypatch.setattr(site, "REQUEST_MAX", 0.3)
    await web.start()
    answer = await web.raw(b"GET / HTTP/1.1\r\nX: y\r\n", 20)
    assert answer == b""


def handshake(web: Web, **how: Any) -> str | None:
    context = web.context()
    for name, value in how.items():
        setattr(context, name, value)
    with socket.create_connection(("127.0.0.1", web.port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                return tls.version()
        except ssl.SSLError:
            return None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest_twisted.ensureDeferred
async def test_tls_versions(web: Web) -> None:
    """TLS 1.2 and 1.3 are spoken, nothing older; a client that knows only HTTP/2 is told so in the handshake."""
    await web.start()
    version = ssl.TLSVersion
    assert await deferToThread(handshake, web) == "TLSv1.3"
    assert await deferToThread(handshake, web, maximum_version=version.TLSv1_2) == "TLSv1.2"
    old = {"minimum_version": version.TLSv1, "maximum_version": version.TLSv1_1}
    assert await deferToThread(handshake, web, **old) is None


@pytest_twisted.ensureDeferred
async def test_renewed_certificate(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewed certificate is shown without a restart; one that cannot be used leaves the last good one."""
    from cryptography.x509 import load_der_x509_certificate

    def serial() -> int:
        with (
            socket.create_connection(("127.0.0.1", web.port), 10) as plain,
            web.context().wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return load_der_x509_certificate(tls.getpeercert(True) or b"").serial_number

    await web.start()
    first = await deferToThread(serial)
    web.files = web.certificate(2)
    assert await deferToThread(serial) == first, "files are not read for each connection"
    monkeypatch.setattr("teleconch.web.tls.LOOK_PERIOD", 0)
    second = await deferToThread(serial)
    assert second != first
    web.files = TLSFiles(Secret("nonsense"), "nonsense")
    assert await deferToThread(serial) == second
    other = web.certificate(3)
    web.files = TLSFiles(web.certificate(4).private_key, other.certificates)
    assert await deferToThread(serial) == second
    web.files = other
    assert await deferToThread(serial) not in (first, second)


def test_unusable_files(tmp_path: Path) -> None:
    """A key or certificate that is missing or wrong stops the start with a sentence, and without showing the key."""
    with pytest.raises(BadParameter, match=r"cannot be read: .*No such file"):
        CurrentCertificate(files_reader(tmp_path / "key", tmp_path / "cert"), lambda: 0.0)
    one, two = Web().certificate(), Web().certificate()
    for key, certificates in (
        (one.private_key, two.certificates),
        (Secret("secret nonsense"), one.certificates),
        (one.private_key, ""),
    ):
        with pytest.raises(BadParameter, match="HTTPS key and certificate cannot be used") as refused:
            make_context(TLSFiles(key, certificates))
        assert "nonsense" not in str(refused.value)


@pytest_twisted.ensureDeferred
async def test_stop(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web that is stopped lets go of everyone, also of who says nothing."""
    monkeypatch.setattr("teleconch.web.service.STOP_PATIENCE", 0.2)
    await web.start()
    silent = await idle(web)
    await web.stop()
    web.server = web.auth = None
    await silent.lost
