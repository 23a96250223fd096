"""HTTPS_PROXY, ALL_PROXY and NO_PROXY: the way through an HTTP proxy."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.client.http_proxy import HTTPProxy, http_proxy
from teleconch.client.tcp import HTTPS, SSH, connect_tcp
from teleconch.errors import BadParameter, ConnectionProblem

URL = "http://proxy.corp:3128"


class ConnectProxy(threading.Thread):
    """A small CONNECT proxy: notes what was asked, and answers with ``answer`` (None: connects)."""

    def __init__(self, answer: bytes | None = None) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answer = answer
        self.asked: list[str] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(4096)
            if not more:
                return
            head += more
        self.asked.append(head.decode())
        if self.answer is not None:
            client.sendall(self.answer)
            client.close()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        far = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: here\r\n\r\n")
        for source, sink in ((far, client), (client, far)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy(answer: bytes | None = None) -> Iterator[ConnectProxy]:
    running = ConnectProxy(answer)
    running.start()
    try:
        yield running
    finally:
        running.listener.shutdown(socket.SHUT_RDWR)
        running.listener.close()


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, int]]:
    """A server that greets first, as SSH does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.sendall(b"SSH-2.0-greeting\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield "127.0.0.1", listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    ("environment", "variables", "expected"),
    [
        ({}, HTTPS, None),
        ({"HTTPS_PROXY": ""}, HTTPS, None),
        ({"HTTPS_PROXY": URL}, HTTPS, ("HTTPS_PROXY", "proxy.corp", 3128)),
        ({"https_proxy": URL}, HTTPS, ("HTTPS_PROXY", "proxy.corp", 3128)),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, HTTPS, ("HTTPS_PROXY", "a", 1)),
        ({"HTTPS_PROXY": "proxy.corp:3128/"}, HTTPS, ("HTTPS_PROXY", "proxy.corp", 3128)),
        ({"HTTPS_PROXY": "http://proxy.corp"}, HTTPS, ("HTTPS_PROXY", "proxy.corp", 80)),
        ({"HTTPS_PROXY": "http://[2001:db8::1]:3128"}, HTTPS, ("HTTPS_PROXY", "2001:db8::1", 3128)),
        ({"ALL_PROXY": URL}, HTTPS, ("ALL_PROXY", "proxy.corp", 3128)),
        ({"HTTPS_PROXY": URL}, SSH, None),
        ({"ALL_PROXY": URL}, SSH, ("ALL_PROXY", "proxy.corp", 3128)),
        ({"all_proxy": "socks5://127.0.0.1:1080"}, SSH, None),
    ],
)
def test_which_proxy(
    environment: dict[str, str], variables: tuple[str, ...], expected: tuple[str, str, int] | None
) -> None:
    """The variables mean what they mean to curl and to Go; the SSH port has one of its own."""
    found = http_proxy(variables, "tele.example.com", 3080, environment)
    assert (found and (found.variable, found.host, found.port)) == expected


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("", "tele.example.com", False),
        ("*", "tele.example.com", True),
        ("example.com", "tele.example.com", True),
        (".example.com", "tele.example.com", True),
        ("*.example.com", "tele.example.com", True),
        ("example.com", "Tele.Example.COM.", True),
        ("example.com", "notexample.com", False),
        ("other.org, tele.example.com", "tele.example.com", True),
        ("tele.example.com:3080", "tele.example.com", True),
        ("tele.example.com:443", "tele.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("2001:db8::/32", "2001:db8::5", True),
        ("[2001:db8::5]:3080", "2001:db8::5", True),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "::1", True),
    ],
)
def test_no_proxy(exceptions: str, host: str, direct: bool) -> None:
    """NO_PROXY lists names, addresses and networks; this machine is never asked for through a proxy."""
    found = http_proxy(HTTPS, host, 3080, {"HTTPS_PROXY": URL, "no_proxy": exceptions})
    assert (found is None) == direct


@given(st.text(), st.text(), st.text())
def test_whatever_stands_there(url: str, exceptions: str, host: str) -> None:
    """Any text gives a proxy, none, or a sentence."""
    with contextlib.suppress(BadParameter):
        http_proxy(HTTPS, host, 3080, {"HTTPS_PROXY": url, "NO_PROXY": exceptions})


def test_a_kind_that_is_not_known() -> None:
    """A proxy that tsh cannot use is an error, and its password is not shown."""
    with pytest.raises(BadParameter, match="HTTPS_PROXY") as caught:
        http_proxy(HTTPS, "tele.example.com", 3080, {"HTTPS_PROXY": "socks5://joe:secret@proxy:1080"})
    assert "secret" not in str(caught.value)
    found = http_proxy(HTTPS, "tele.example.com", 3080, {"HTTPS_PROXY": "http://joe:secret@proxy:1080"})
    assert "secret" not in f"{found} {found!r}"


def through(monkeypatch: pytest.MonkeyPatch, port: int, host: str, target: int, auth: str = "") -> socket.socket:
    """A connection to a name that only the proxy on ``port`` is asked for."""
    monkeypatch.setenv("ALL_PROXY", f"http://{auth}127.0.0.1:{port}")
    return connect_tcp(host, target)


def test_connect(monkeypatch: pytest.MonkeyPatch, elsewhere: tuple[str, int]) -> None:
    """The connection leads to the server, whose first bytes are not lost; name and password go to the proxy."""
    monkeypatch.setattr("teleconch.client.http_proxy._is_direct", lambda *_: False)  # the only address there is here
    with proxy() as running:
        with through(monkeypatch, running.port, *elsewhere, auth="joe%40corp:p%3Aw@") as connected:
            assert connected.recv(100) == b"SSH-2.0-greeting\r\n"
        asked = running.asked[0]
    target = f"{elsewhere[0]}:{elsewhere[1]}"
    assert asked.startswith(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'joe@corp:p:w').decode()}\r\n" in asked


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants to know who you are"),
        (b"HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\n", r"does not lead to tele.example:3023 \(403 Forbidden\)"),
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        (b"", "closed the connection"),
        (b"x" * 20000, "endless"),
        (b"HTTP/1.1 200 \xff\r\n", "closed the connection"),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, answer: bytes, sentence: str) -> None:
    """What the HTTP proxy says instead of leading on is told, with the variable to look at."""
    with proxy(answer) as running, pytest.raises(ConnectionProblem, match=sentence) as caught:
        through(monkeypatch, running.port, "tele.example", 3023)
    assert "ALL_PROXY" in str(caught.value)


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that drips its answer does not hold tsh for longer than any server."""
    ours, theirs = socket.socketpair()
    from teleconch.client.http_proxy import ask_through

    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200")
        with pytest.raises(TimeoutError):
            ask_through(ours, HTTPProxy("ALL_PROXY", "p", 1), "h", 1, time.monotonic())


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the HTTP proxy itself cannot be reached, it is the one that is named."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionProblem, match=r"The HTTP proxy 127.0.0.1 accepts no connection .* check ALL_PROXY"):
        through(monkeypatch, port, "tele.example", 3023)


@pytest.mark.parametrize(
    ("environment", "https", "said"),
    [
        ({}, False, None),
        ({"HTTPS_PROXY": URL}, False, "HTTPS_PROXY is used for the HTTPS port only.* set ALL_PROXY=http://HOST:PORT"),
        ({"https_proxy": URL}, False, "set ALL_PROXY=http://HOST:PORT"),
        ({"ALL_PROXY": "socks5://a:1080", "HTTPS_PROXY": URL}, False, "ALL_PROXY was not used"),
        ({"ALL_PROXY": "socks5://a:1080"}, True, "ALL_PROXY was not used"),
        ({"ALL_PROXY": URL, "NO_PROXY": "*"}, False, "directly, not through ALL_PROXY, since NO_PROXY lists it"),
        ({"HTTPS_PROXY": URL, "NO_PROXY": "*"}, True, "directly, not through HTTPS_PROXY, since NO_PROXY lists it"),
    ],
)
def test_why_there_is_no_host(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], https: bool, said: str | None
) -> None:
    """A machine that has no names of the world's, since its way there is an HTTP proxy, is told of the variable that
    keeps tsh from that way; one without any variable is told nothing of them."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionProblem, match=r"There is no host tele\.\.example: check") as caught:
        connect_tcp("tele..example", 3023, https)
    if said is None:
        assert "_PROXY" not in str(caught.value)
    else:
        caught.match(said)


def test_why_this_machine_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is never reached through an HTTP proxy, so that none is spoken of."""
    monkeypatch.setenv("HTTPS_PROXY", URL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionProblem, match="accepts no connection") as caught:
        connect_tcp("127.0.0.1", port)
    assert "HTTPS_PROXY" not in str(caught.value)
