"""Every kind of forwarding against every permit: one table, nothing opened before the gate has decided."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import task

from teleconch.access.kinds import Kind
from teleconch.access.permit import AccessPermit
from teleconch.audit.emitter import Memory
from teleconch.audit.events import Peer
from teleconch.codec import boolean, string, uint32
from teleconch.errors import AccessDenied
from teleconch.node.gate import Gate, asked
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from teleconch.ssh.reader import Reader
from tests.worlds import waiting
from tests.worlds.forward import ask, children
from tests.worlds.node import ME, World

PORT, AGENT = "permit-port-forwarding", "permit-agent-forwarding"
COOKIE = boolean(False) + string(b"MIT-MAGIC-COOKIE-1") + string(b"00" * 16) + uint32(0)

ASKED: dict[bytes, tuple[str, str, bytes]] = {
    b"direct-tcpip": (PORT, "open", string(b"127.0.0.1") + uint32(1) + string(b"") + uint32(0)),
    b"direct-streamlocal@openssh.com": (PORT, "open", string(b"/nowhere") + string(b"") + uint32(0)),
    b"tcpip-forward": (PORT, "global", string(b"") + uint32(0)),
    b"streamlocal-forward@openssh.com": (PORT, "global", b""),
    b"x11-req": (PORT, "session", COOKIE),
    b"auth-agent-req@openssh.com": (AGENT, "session", b""),
}


async def _allowed(connection: Connection, kind: bytes, how: str, data: bytes) -> bool:
    channel = Channel()
    if how == "open":
        channel.name = kind
        try:
            await connection.open(channel, data)
        except ChannelRefused as refused:
            return refused.code != 1
        return True
    try:
        if how == "global":
            await waiting.reply(connection.sendGlobalRequest(kind, data, wantReply=1))
        else:
            channel.name = b"session"
            await connection.open(channel)
            await connection.sendRequest(channel, kind, data, wantReply=1)  # type: ignore[misc]
    except RequestRefused:
        return False
    return True


@pytest.mark.program("xauth")
@pytest.mark.parametrize("granted", [(), (PORT,), (AGENT,), (PORT, AGENT)], ids=["none", "port", "agent", "both"])
@pytest_twisted.ensureDeferred
async def test_matrix(world: World, granted: tuple[str, ...]) -> None:
    """Each kind is there with its permit and only with it; where nothing is permitted, no process even starts."""
    world.allow(ME, extensions=("permit-pty", *granted))
    connection = await world.connect()
    for kind, (needed, how, data) in ASKED.items():
        if kind.startswith(b"streamlocal"):
            data = string(os.fsencode(world.path / "socket"))
        assert await _allowed(connection, kind, how, data) == (needed in granted), kind
    refused = [kind for kind, (needed, _, _) in ASKED.items() if needed not in granted]
    events = [event for event in world.events if "does not allow" in str(event.get("error"))]
    assert [event["kind"].encode() for event in events] == refused
    for event in events:
        assert (event["user"], event["login"], event["success"]) == ("alice", ME, False)
    if not granted:
        assert not children(world)
    connection.close()
    await connection.disconnected


def test_the_table_is_whole() -> None:
    """A kind without a test is noticed."""
    carried = {Kind.FORWARDED_TCPIP, Kind.FORWARDED_STREAMLOCAL, Kind.AGENT, Kind.X11}
    of_proxies = {Kind.JUMP, Kind.AUTH_API}  # tests/proxy
    not_built = {Kind.JOIN}
    forwarding = {Kind(kind.decode()) for kind in ASKED}
    assert set(Kind) == forwarding | carried | set(IN_SESSIONS) | of_proxies | not_built | {Kind.USER_RC}


IN_SESSIONS: dict[Kind, tuple[bytes, bytes]] = {
    Kind.PTY: (b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) + uint32(0) + string(b"\0")),
    Kind.SHELL: (b"shell", b""),
    Kind.EXEC: (b"exec", string(b"true")),
    Kind.SFTP: (b"subsystem", string(b"sftp")),
    Kind.SCP_UPLOAD: (b"exec", string(b"scp -t /tmp")),
    Kind.SCP_DOWNLOAD: (b"exec", string(b"scp -f /tmp/none")),
}


@pytest.mark.parametrize("kind", IN_SESSIONS)
@pytest_twisted.ensureDeferred
async def test_sessions(world: World, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """What a session asks for is there with its permit and only with it, whatever the channel was opened with."""
    real = AccessPermit.check

    def check(permit: AccessPermit, wanted: Kind) -> None:
        if wanted is kind:
            raise AccessDenied(f"no {wanted}")
        real(permit, wanted)

    connection = await world.connect()
    for others in (*(other for other in IN_SESSIONS if other is not kind), kind):
        with monkeypatch.context() as patched:
            patched.setattr(AccessPermit, "check", check)
            channel = Channel()
            channel.name = b"session"
            await connection.open(channel)
            name, data = IN_SESSIONS[others]
            try:
                allowed = await connection.sendRequest(channel, name, data, wantReply=1)  # type: ignore[misc]
            except RequestRefused:
                allowed = False
            assert allowed == (others is not kind), others
    (refused,) = [event for event in world.events if event.get("error") == f"no {kind}"]
    assert (refused["event"], refused["success"]) == ("session.start", False)
    connection.close()
    await connection.disconnected


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        (None, {Kind.SHELL}),
        (b"", {Kind.EXEC}),
        (b"true -t", {Kind.EXEC}),
        (b"scpx -t /", {Kind.EXEC}),
        (b"scp -t /", {Kind.SCP_UPLOAD}),
        (b"scp -r -p -d -t -- -f", {Kind.SCP_UPLOAD}),
        (b"scp -rpt /", {Kind.SCP_UPLOAD}),
        (b"scp  -v -f x -t", {Kind.SCP_DOWNLOAD}),
        (b"scp -ft /", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD}),
        (b"scp a b:c", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD}),
        (b"scp $F /", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD}),
        (b"scp -t $F", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD}),
        (b"scp -t '-f' /", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD}),
        (b"scp -t \\-f /", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD}),
        (b"scp -f x; id", {Kind.SCP_DOWNLOAD, Kind.EXEC}),
        (b"scp -f x\nid", {Kind.SCP_DOWNLOAD, Kind.EXEC}),
        (b"scp -t `id`", {Kind.SCP_UPLOAD, Kind.EXEC}),
        (b"scp -f $(id)", {Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD, Kind.EXEC}),
    ],
)
def test_what_a_command_is(command: bytes | None, kinds: set[Kind]) -> None:
    """An scp is told by its flags; one that says nothing, or whose words the shell changes, needs both rights, and one
    with which another command may come needs that right as well."""
    assert set(asked(command)) == kinds


@pytest.mark.parametrize(("kind", "state"), list(itertools.product(Kind, ("raises", "nothing", "looks like one"))))
def test_gate_without_a_permit(kind: Kind, state: str) -> None:
    """An ended permit, or what only looks like a permit, opens nothing."""

    class Alike:
        kinds = frozenset(Kind)

        def check(self, kind: Kind) -> None:
            """Grants all."""

    def permit() -> Any:
        if state == "raises":
            raise AccessDenied("The certificate has expired.")
        return Alike() if state == "looks like one" else None

    with pytest.raises(AccessDenied):
        Gate(permit, Peer, Memory()).check(kind, "somewhere")


@pytest_twisted.ensureDeferred
async def test_listener_outlives_the_certificate(world: World) -> None:
    """Once the certificate has ended, a listener that still stands carries no new connection."""
    clock = task.Clock()
    connection = await world.connect()
    reply = await waiting.reply(connection.sendGlobalRequest(b"tcpip-forward", string(b"") + uint32(0), wantReply=1))
    (transport,) = world.node.factory.connections
    user = transport.service.avatar
    clock.advance(user.identity.valid_before + 1)
    user._parts = evolve(user._parts, now=clock.seconds)
    try:
        answer = await ask(("127.0.0.1", Reader(reply).uint32()), b"data")
    except ConnectionError:
        answer = b""
    assert answer == b""
    assert "expired" in world.logged("port", success=False, kind="forwarded-tcpip")[0]["error"]
    for name in (b"tcpip-forward", b"streamlocal-forward@openssh.com"):
        with pytest.raises(RequestRefused):
            await waiting.reply(connection.sendGlobalRequest(name, string(b"/tmp/x") + uint32(0), wantReply=1))
    connection.close()
    await connection.disconnected
