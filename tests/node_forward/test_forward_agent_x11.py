"""-A and -X: the agent's socket and the display of a session."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.codec import boolean, string, uint32
from teleconch.errors import BadParameter
from teleconch.node.forward import x11
from teleconch.ssh.channel import Channel
from teleconch.ssh.problems import RequestRefused
from tests.worlds.forward import agent_folders, children, listens, master, program, ssh_agent
from tests.worlds.node import World
from tests.worlds.waiting import reply, until

pytestmark = pytest.mark.program("ssh", "ssh-agent", "ssh-add")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real ssh-agent with one key."""
    key = tmp_path / "in-agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "in the agent", "-f", str(key)], check=True)
    with ssh_agent(tmp_path / "agent") as variables:
        subprocess.run(["ssh-add", "-q", str(key)], env=variables | {"PATH": os.environ["PATH"]}, check=True)
        yield variables


@pytest_twisted.ensureDeferred
async def test_agent(world: World, agent: dict[str, str]) -> None:
    """`ssh -A`: `ssh-add -l` on the node lists the client's keys; the socket is the user's alone, and goes."""
    before = agent_folders()
    command = "ssh-add -l; stat -c %a $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK"
    result = await world.ssh(command, options=("-A",), env=agent)
    key, socket, folder, path = result.out.decode().splitlines()
    assert "in the agent" in key
    assert (socket, folder) == ("600", "700")
    assert path.startswith("/tmp/ssh-")
    assert Path(path).name.startswith("agent.")
    await until(lambda: agent_folders() == before)
    assert world.logged("port", kind="auth-agent-req@openssh.com", success=True)


@pytest_twisted.ensureDeferred
async def test_agent_for_hundreds_of_sessions(world: World) -> None:
    """Hundreds of sessions of one connection that ask for the agent while its process is being started all get it."""
    connection = await world.connect()
    launcher = world.node.parts.launcher.pid or 0
    os.kill(launcher, signal.SIGSTOP)
    try:
        answers = []
        for _ in range(500):
            session = Channel()
            session.name = b"session"
            await connection.open(session)
            answers.append(connection.sendRequest(session, b"auth-agent-req@openssh.com", b"", wantReply=1))
        assert not answers[0].called
    finally:
        os.kill(launcher, signal.SIGCONT)
    for answer in answers:
        await reply(answer)
    connection.close()
    await connection.disconnected


@pytest_twisted.ensureDeferred
async def test_no_agent_unless_asked(world: World, agent: dict[str, str]) -> None:
    """Without -A there is no socket, and no process for it."""
    result = await world.ssh("echo ${SSH_AUTH_SOCK-none}", options=("-a",), env=agent)
    assert result.out == b"none\n"


@pytest_twisted.ensureDeferred
async def test_sessions_share_the_agent(world: World, agent: dict[str, str]) -> None:
    """Two sessions of one connection have one agent's socket; a session that did not ask has none."""
    ssh = await master(world, "-A", env=agent)
    shared = ("-S", ssh.path)
    one = await world.ssh("echo $SSH_AUTH_SOCK; ssh-add -l", options=(*shared, "-A"), env=agent)
    two = await world.ssh("echo $SSH_AUTH_SOCK; ssh-add -l", options=(*shared, "-A"), env=agent)
    none = await world.ssh("echo ${SSH_AUTH_SOCK-none}", options=(*shared, "-a"), env=agent)
    assert one.out == two.out
    assert b"in the agent" in one.out
    assert none.out == b"none\n"
    await ssh.end()


@pytest_twisted.ensureDeferred
async def test_agent_after_a_kill(world: World, agent: dict[str, str]) -> None:
    """After `kill -9` of ssh the agent's socket and folder are gone."""
    before = agent_folders()
    client = world.start("echo $SSH_AUTH_SOCK; exec sleep 60", options=("-A",), env=agent, stdin=None)
    await client.until(b"agent.")
    assert agent_folders() - before
    client.kill()
    await client.done
    await until(lambda: agent_folders() == before and not children(world))


@pytest_twisted.ensureDeferred
async def test_agent_after_the_node_is_killed(world: World, agent: dict[str, str]) -> None:
    """The child cleans up when the daemon's end of its socket is just gone."""
    before = agent_folders()
    client = world.start("echo $SSH_AUTH_SOCK; exec sleep 60", options=("-A",), env=agent, stdin=None)
    await client.until(b"agent.")
    (node,) = [transport.service.avatar for transport in world.node.factory.connections]
    node.forwarding.errands._control.shutdown(2)
    await until(lambda: agent_folders() == before)
    client.kill()
    await client.done


def _display(world: World) -> tuple[dict[str, str], Path]:
    path = Path("/tmp/.X11-unix")
    path.mkdir(mode=0o1777, exist_ok=True)
    for number in range(70, 99):
        if not (path / f"X{number}").exists():
            return {"DISPLAY": f":{number}", "XAUTHORITY": str(world.path / "Xauthority")}, path / f"X{number}"
    raise AssertionError("no display is free")


ASK = (
    "import os,socket,subprocess;"
    "d=os.environ['DISPLAY'];n=int(d.split(':')[1].split('.')[0]);"
    "c=bytes.fromhex(subprocess.check_output(['xauth','list',d]).split()[2].decode());"
    "s=socket.create_connection(('127.0.0.1',6000+n));"
    "s.sendall(b'l\\0'+bytes([11,0,0,0,18,0,len(c),0,0,0])+b'MIT-MAGIC-COOKIE-1\\0\\0'+c);"
    "print(s.recv(100).decode(),d)"
)


@pytest.mark.program("xauth")
@pytest_twisted.ensureDeferred
async def test_x11(world: World) -> None:
    """`ssh -Y`: a program on the node that has the cookie from xauth reaches the client's display."""
    environment, path = _display(world)
    real = os.urandom(16).hex()
    subprocess.run(
        ["xauth", "-q", "-f", environment["XAUTHORITY"], "add", environment["DISPLAY"], ".", real], check=True
    )
    heard: list[bytes] = []

    def server(sock: object) -> None:
        heard.append(sock.recv(4096))  # type: ignore[attr-defined]
        sock.sendall(b"display")  # type: ignore[attr-defined]

    try:
        with program(server, str(path)):
            result = await world.ssh(f'python3 -c "{ASK}"', options=("-Y",), env=environment)
            assert result.out.startswith(b"display localhost:1"), result.err
            assert bytes.fromhex(real) in heard[0]
    finally:
        path.unlink(missing_ok=True)
    number = int(result.out.split(b":")[1].split(b".")[0])
    await until(lambda: not listens(("127.0.0.1", 6000 + number)))
    assert world.logged("x11-forward", kind="x11-req", success=True)


@pytest_twisted.ensureDeferred
async def test_x11_without_xauth(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the node has no xauth, X11 is refused with a word in the log, and the session goes on."""
    monkeypatch.setattr(x11, "PROGRAM", "/nowhere/xauth")
    environment, _ = _display(world)
    result = await world.ssh("echo ${DISPLAY-none}", options=("-Y",), env=environment)
    assert result.out == b"none\n"
    assert "xauth" in world.logged("x11-forward", success=False)[0]["error"]


@pytest.mark.parametrize(
    ("protocol", "cookie", "screen"),
    [
        (b"MIT-MAGIC-COOKIE-1\nadd x", b"00", 0),
        (b"MIT-MAGIC-COOKIE-1", b"00; id", 0),
        (b"MIT-MAGIC-COOKIE-1", b"", 0),
        (b"", b"00", 0),
        (b"a" * 5000, b"00", 0),
        (b"MIT-MAGIC-COOKIE-1", b"00", 1 << 31),
    ],
)
def test_x11_cookie_is_no_command(protocol: bytes, cookie: bytes, screen: int) -> None:
    """What a client calls a cookie cannot be a command to xauth."""
    with pytest.raises(BadParameter):
        x11.parse(boolean(False) + string(protocol) + string(cookie) + uint32(screen))


@pytest.mark.program("xauth")
@pytest_twisted.ensureDeferred
async def test_single_connection(world: World) -> None:
    """A display that was asked for one connection takes one; a session has one display."""
    connection = await world.connect()
    session = Channel()
    session.name = b"session"
    await connection.open(session)
    asked = boolean(True) + string(b"MIT-MAGIC-COOKIE-1") + string(b"00" * 16) + uint32(0)
    assert await connection.sendRequest(session, b"x11-req", asked, wantReply=1)  # type: ignore[misc]
    with pytest.raises(RequestRefused):
        await connection.sendRequest(session, b"x11-req", asked, wantReply=1)  # type: ignore[misc]
    (event,) = world.logged("x11-forward", success=True)
    address = ("127.0.0.1", 6000 + int(event["addr"].split(":")[1].split(".")[0]))
    assert listens(address)
    await until(lambda: not listens(address))
    connection.close()
    await connection.disconnected
