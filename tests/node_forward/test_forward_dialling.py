"""A dial on its own: which address wins, and when it gives up."""

from __future__ import annotations

import errno
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.node.forward.bind import CLIENT_SPECIFIED, EVERYWHERE, NO, YES, listen_on
from teleconch.node.forward.dialling import DEADLINE, HEAD_START, Address, Dial
from teleconch.node.forward.forwarding import _host
from teleconch.node.forward.listening import LOOPBACK, close_all, listen_tcp

DEAF: Address = (socket.AF_INET, ("192.0.2.1", 9))  # RFC 5737: nothing answers there


def _drive(dial: Dial) -> None:
    for _ in range(100):
        if dial.over:
            return
        _, ready, _ = select.select([], list(dial.sockets), [], 1)
        for fd in ready:
            dial.ready(fd, 0.0)


def _refused() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return (socket.AF_INET, sock.getsockname())


def test_next_address_after_a_refusal() -> None:
    """A name whose first address refuses is reached at its second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dial = Dial(1, [_refused(), (socket.AF_INET6, ("::1", 1, 0, 0)), (socket.AF_INET, server.getsockname())], 0.0)
        _drive(dial)
        assert dial.won is not None
        assert dial.won.getpeername() == server.getsockname()
        dial.won.close()
    assert not dial.sockets


def test_next_address_while_the_first_is_silent() -> None:
    """A name whose first address does not answer is reached at its second after a quarter of a second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dial = Dial(1, [DEAF, (socket.AF_INET, server.getsockname())], 100.0)
        if dial.sockets:  # a machine without any route says no at once
            assert dial.due == 100.0 + HEAD_START
            dial.pass_time(100.0 + HEAD_START / 2)
            assert len(dial.sockets) == 1
            dial.pass_time(100.0 + HEAD_START)
        for _ in range(10):
            for fd in select.select([], list(dial.sockets), [], 0.1)[1]:
                dial.ready(fd, 101.0)
        assert dial.won is not None
        dial.won.close()
    assert not dial.sockets


def test_deadline() -> None:
    """A target that never answers is given up."""
    dial = Dial(1, [DEAF], 0.0)
    dial.pass_time(DEADLINE)
    assert dial.error in (errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH)
    assert not dial.sockets


def test_all_refuse() -> None:
    """The reason is that of the last address."""
    dial = Dial(1, [_refused(), _refused()], 0.0)
    _drive(dial)
    assert dial.error == errno.ECONNREFUSED


def test_a_word_too_many() -> None:
    """A stale word from the kernel about another socket is not taken for a connection."""
    dial = Dial(1, [DEAF], 0.0)
    for fd in (*dial.sockets, 99_999):
        dial.ready(fd, 0.0)
    assert dial.won is None
    dial.close()


def test_no_address() -> None:
    """A name without addresses ends at once."""
    assert Dial(1, [], 0.0).error == errno.EADDRNOTAVAIL


def test_one_port_for_all_addresses() -> None:
    """Port 0 gives the same port on each loopback address."""
    sockets, port = listen_tcp(LOOPBACK, 0)
    assert {sock.getsockname()[1] for sock in sockets} == {port}
    assert {sock.getsockname()[0] for sock in sockets} == set(LOOPBACK)
    close_all(sockets)


@given(st.binary(max_size=20) | st.sampled_from([b"127.0.0.1", b"::1", b"0.0.0.0", b"::", b"*", b"localhost"]))
def test_gateway_ports(asked: bytes) -> None:
    """GatewayPorts=no never listens beyond loopback, whatever is asked; yes always does."""
    assert set(listen_on(asked, NO)) <= set(LOOPBACK)
    assert set(listen_on(asked, "what is this")) <= set(LOOPBACK)
    assert listen_on(asked, YES) == EVERYWHERE


@pytest.mark.parametrize("gateway_ports", [NO, CLIENT_SPECIFIED])
def test_one_family_of_loopback(gateway_ports: str) -> None:
    """Who asks for 127.0.0.1 or ::1 gets this one, so that a program on the other does not stand in the way."""
    for asked in ("127.0.0.1", "::1"):
        assert listen_on(asked.encode(), gateway_ports) == (asked,)


def test_gateway_ports_client_specified() -> None:
    """GatewayPorts=clientspecified listens as asked."""
    assert {listen_on(asked, CLIENT_SPECIFIED) for asked in (b"", b"*")} == {EVERYWHERE}
    assert {listen_on(asked, CLIENT_SPECIFIED) for asked in (b"0.0.0.0", b"::")} == {("0.0.0.0",), ("::",)}
    assert listen_on(b"localhost", CLIENT_SPECIFIED) == LOOPBACK
    assert listen_on(b"192.0.2.7", CLIENT_SPECIFIED) == ("192.0.2.7",)


def test_host_names() -> None:
    """A host name of an ordinary length passes as it is."""
    assert _host(b"a" * 255) == b"a" * 255


def test_low_port_whatever_the_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that gives low ports to anyone does not make them a user's."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PermissionError):
        listen_tcp(LOOPBACK, 999)
