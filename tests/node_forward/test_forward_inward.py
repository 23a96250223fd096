"""-R: listeners on the node, whose connections go to the client's side."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from teleconch.codec import string, uint32
from teleconch.node.forward import forwarding
from teleconch.node.forward.bind import CLIENT_SPECIFIED, NO, YES
from teleconch.ssh.channel import Channel
from teleconch.ssh.ends import RelayChannel
from teleconch.ssh.problems import RequestRefused
from teleconch.ssh.reader import Reader
from tests.worlds import waiting
from tests.worlds.forward import ask, children, free_port, listeners, listens, master, program, upper
from tests.worlds.node import World, running_node
from tests.worlds.waiting import until

pytestmark = pytest.mark.program("ssh")


@pytest_twisted.ensureDeferred
async def test_remote_forward_port_zero_and_cancel(world: World) -> None:
    """`ssh -R 0:...` tells the port; both loopback addresses answer; `ssh -O cancel` ends it, for a new one."""
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        ssh = await master(world)
        result = await ssh.control("forward", "-R", f"0:{target}")
        port = int(result.out)
        for host in ("127.0.0.1", "::1"):
            assert await ask((host, port), b"back" * 100_000) == b"BACK" * 100_000
        assert world.logged("port", kind="tcpip-forward", success=True)[0]["addr"].endswith(f":{port}")
        await ssh.control("cancel", "-R", f"{port}:{target}")
        await ssh.control("cancel", "-R", f"0:{target}")
        await until(lambda: not listens(("127.0.0.1", port)))
        assert not listens(("::1", port))
        assert (await ssh.control("forward", "-R", f"{port}:{target}")).code == 0
        assert await ask(("127.0.0.1", port), b"again") == b"AGAIN"
        await ssh.end()
    await until(lambda: not listens(("127.0.0.1", port)))


BOTH = {"127.0.0.1", "::1"}
ALL = {"0.0.0.0", "::"}


@pytest.mark.parametrize(
    ("gateway_ports", "listening"),
    [
        (NO, {"": BOTH, "*:": BOTH, "0.0.0.0:": BOTH, "[::]:": BOTH, "192.0.2.7:": BOTH, "127.0.0.1:": {"127.0.0.1"}}),
        (YES, {"": ALL, "localhost:": ALL, "127.0.0.1:": ALL, "192.0.2.7:": ALL}),
        (
            CLIENT_SPECIFIED,
            {"": BOTH, "*:": ALL, "0.0.0.0:": {"0.0.0.0"}, "[::1]:": {"::1"}, "127.0.0.9:": {"127.0.0.9"}},
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_gateway_ports(tmp_path: Path, gateway_ports: str, listening: dict[str, set[str]]) -> None:
    """Where `ssh -R` listens is the administrator's choice (gateway_ports), and with 'no' it is never the network."""
    world = await running_node(tmp_path, gateway_ports=gateway_ports)
    try:
        ssh = await master(world)
        for bind, addresses in listening.items():
            port = free_port()
            assert (await ssh.control("forward", "-R", f"{bind}{port}:127.0.0.1:1")).code == 0
            assert listeners(port) == addresses
            await ssh.control("cancel", "-R", f"{bind}{port}:127.0.0.1:1")
            await until(lambda port=port: not listeners(port))  # type: ignore[misc]  # mypy infers no default
        await ssh.end()
    finally:
        await world.close()


@pytest_twisted.ensureDeferred
async def test_an_address_that_is_not_here(tmp_path: Path) -> None:
    """Who asks for another machine's address gets no listener at all, rather than one elsewhere."""
    world = await running_node(tmp_path, gateway_ports=CLIENT_SPECIFIED)
    try:
        port = free_port()
        options = ("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"198.51.100.7:{port}:127.0.0.1:1")
        result = await world.ssh(options=options, stdin=None)
        assert b"remote port forwarding failed" in result.err
        assert not listeners(port)
    finally:
        await world.close()


@pytest_twisted.ensureDeferred
async def test_port_in_use(world: World) -> None:
    """A port that something else listens on is refused to ssh, and logged."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            result = await world.ssh(
                options=("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{port}:127.0.0.1:1"), stdin=None
            )
    assert b"remote port forwarding failed" in result.err
    assert world.logged("port", success=False)[0]["error"] == "Address already in use"


def _channel(kind: bytes) -> Channel:
    channel = Channel()
    channel.name = kind
    return channel


@pytest.mark.parametrize("end", ["refused", "gone"])
@pytest_twisted.ensureDeferred
async def test_sessions_come_after_the_answer(world: World, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A session is opened only after the listener that was asked for before it has been granted or refused, and not at
    all if the connection ends first: a client that gives up over a refusal runs nothing."""
    pending: Deferred[bool] = Deferred()
    monkeypatch.setattr(forwarding.Forwarding, "global_request", lambda self, name, data: pending)
    connection = await world.connect()
    told: list[str] = []
    asked = connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1)
    assert asked is not None
    asked.addErrback(lambda failure: told.append(str(failure.type and failure.type.__name__)))
    channel = _channel(b"session")
    opening = connection.open(channel)
    opening.addBoth(lambda result: told.append("open" if result is channel else result.type.__name__))
    await connection.open(_channel(b"direct-tcpip"), b"").addErrback(lambda failure: told.append("no target"))
    assert told == ["no target"]
    if end == "refused":
        pending.callback(False)
        await opening
        connection.close()
        await connection.disconnected
    else:
        connection.close()
        await connection.disconnected
        await until(lambda: not world.node.parts.users)
        pending.callback(False)
    assert told[1:] == (["RequestRefused", "open"] if end == "refused" else ["ConnectionLost", "RequestRefused"])
    assert len(world.logged("session.start")) == 0


class _Client:
    def __init__(self) -> None:
        self.opened: list[tuple[bytes, bytes]] = []
        self.channels: list[RelayChannel] = []

    def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> RelayChannel:
        self.opened.append((kind, data))
        channel = RelayChannel()
        self.channels.append(channel)
        return channel


@pytest_twisted.ensureDeferred
async def test_what_the_client_is_told(world: World) -> None:
    """A forwarded channel names the address as it was asked for, the real port, and who connected (RFC 4254 7.2)."""
    connection = await world.connect()
    connection.avatar = client = _Client()
    reply = await waiting.reply(connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1))
    port = Reader(reply).uint32()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        await until(lambda: client.opened)
        ((kind, data),) = client.opened
        reader = Reader(data)
        assert kind == b"forwarded-tcpip"
        assert (reader.string(), reader.uint32()) == (b"", port)
        assert (reader.string(), reader.uint32()) == (b"127.0.0.1", sock.getsockname()[1])
        reader.end()
    for request in (string(b"x") + uint32(port), string(b"") + uint32(1), b"\0"):  # another's, none, no request
        with pytest.raises(RequestRefused):
            await waiting.reply(connection.sendGlobalRequest(b"cancel-tcpip-forward", request, wantReply=1))
    assert (
        await waiting.reply(
            connection.sendGlobalRequest(b"cancel-tcpip-forward", string(b"") + uint32(port), wantReply=1)
        )
        == b""
    )
    assert not listens(("127.0.0.1", port))
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_malformed_requests(world: World) -> None:
    """Requests that cannot be are refused, without a fault in the log."""
    connection = await world.connect()
    for name, data in (
        (b"tcpip-forward", string(b"") + uint32(65_536)),
        (b"tcpip-forward", string(b"a\0") + uint32(0)),
        (b"tcpip-forward", b"\0\0"),
        (b"streamlocal-forward@openssh.com", string(b"")),
        (b"streamlocal-forward@openssh.com", string(b"\0abstract")),
        (b"cancel-streamlocal-forward@openssh.com", string(b"/etc/passwd")),
    ):
        with pytest.raises(RequestRefused):
            await waiting.reply(connection.sendGlobalRequest(name, data, wantReply=1))
    assert not [event for event in world.events if "log_failure" in event]
    assert os.path.exists("/etc/passwd")
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_too_many_listeners(world: World) -> None:
    """A client gets so many listeners and no more; after a cancel there is room again."""
    connection = await world.connect()
    ports = []
    for _ in range(forwarding.LISTENERS_MAX):
        reply = await waiting.reply(
            connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1)
        )
        ports.append(Reader(reply).uint32())
    with pytest.raises(RequestRefused):
        await waiting.reply(connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1))
    assert "listeners" in world.logged("port", success=False)[0]["error"]
    await waiting.reply(
        connection.sendGlobalRequest(b"cancel-tcpip-forward", string(b"") + uint32(ports[0]), wantReply=1)
    )
    await waiting.reply(connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1))
    connection.close()
    await connection.disconnected
    await until(lambda: not any(listens(("127.0.0.1", port)) for port in ports[1:]))


@pytest_twisted.ensureDeferred
async def test_too_many_connections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers no open holds so many sockets and no more; when they end there is room again."""
    monkeypatch.setattr(forwarding, "CONNECTIONS_MAX", 5)
    connection = await world.connect()
    client: Any = _Client()
    client.lookupChannel = lambda *what: Deferred()
    connection.avatar = client
    reply = await waiting.reply(connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1))
    port = Reader(reply).uint32()
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    (node,) = [transport.service.avatar for transport in world.node.factory.connections]
    await until(lambda: len(world.logged("port", success=False)) == 3)
    assert node.forwarding._taken == 5
    connection.close()
    await connection.disconnected
    await until(lambda: node.forwarding._taken == 0)
    for sock in socks:
        sock.close()


@pytest_twisted.ensureDeferred
async def test_unix_listener(world: World) -> None:
    """`ssh -R /path:...` listens for the owner alone, does not replace what is there, and goes when it is cancelled."""
    path = str(world.path / "listener")
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        ssh = await master(world, "-R", f"{path}:{target}")
        await until(lambda: os.path.exists(path))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert await ask(path, b"unix" * 100_000) == b"UNIX" * 100_000
        taken = await world.ssh(options=("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{path}:{target}"), stdin=None)
        assert b"remote port forwarding failed" in taken.err
        await ssh.control("cancel", "-R", f"{path}:{target}")
        await until(lambda: not os.path.exists(path))
        await ssh.control("forward", "-R", f"{path}:{target}")
        assert await ask(path, b"again") == b"AGAIN"
        await ssh.end()
    await until(lambda: not os.path.exists(path))


@pytest_twisted.ensureDeferred
async def test_what_took_its_place_stays(world: World) -> None:
    """Where the user has put something else at the socket's path, that is not removed."""
    path = world.path / "listener"
    ssh = await master(world, "-R", f"{path}:127.0.0.1:1")
    await until(path.exists)
    path.unlink()
    path.write_text("mine")
    await ssh.end()
    await until(lambda: not children(world))
    assert path.read_text() == "mine"


@pytest_twisted.ensureDeferred
async def test_nothing_left_after_a_kill(world: World) -> None:
    """After `kill -9` of ssh no port, no socket, no process is left on the node."""
    path, port = str(world.path / "listener"), free_port()
    ssh = await master(world, "-R", f"{path}:127.0.0.1:1", "-R", f"{port}:127.0.0.1:1")
    await until(lambda: os.path.exists(path) and listens(("127.0.0.1", port)))
    assert children(world)
    ssh.client.kill()
    await ssh.client.done
    await until(lambda: not os.path.exists(path))
    await until(lambda: not children(world))
    assert not listens(("127.0.0.1", port))


@pytest_twisted.ensureDeferred
async def test_the_user_kills_the_child(world: World) -> None:
    """When someone kills the forwarding process, open connections stand, and the next forward starts another."""
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        ssh = await master(world)
        await ssh.control("forward", "-R", f"0:{target}")
        (child,) = children(world)
        os.kill(child, 9)
        await until(lambda: not children(world))
        result = await ssh.control("forward", "-R", f"0:{target}")
        assert re.fullmatch(rb"\d+\s*", result.out)
        assert await ask(("127.0.0.1", int(result.out)), b"new") == b"NEW"
        await ssh.end()
