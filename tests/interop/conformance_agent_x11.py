"""Rows for -A and -X: the agent's socket and the display of a session."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from twisted.internet import task

from teleconch.ca.ssh import PERMITS
from teleconch.codec import boolean, string, uint32
from teleconch.ssh.connection import Connection
from teleconch.ssh.reader import Reader
from tests.interop.conformance import Side, behaviour, processes, until, usermod
from tests.interop.forwarding_clients import Raw, beside, connected, master, opened, requested
from tests.worlds.forward import listeners, ssh_agent
from tests.worlds.reactor import reactor

AGENT = "Forwarding: -A"
DISPLAY = "Forwarding: -X"
AGENT_REQUEST, X11_REQUEST = b"auth-agent-req@openssh.com", b"x11-req"
COOKIE = "0123456789abcdef0123456789abcdef"

ONLY_WHO_ASKED = (
    "Only a session that asked for the agent is told of it. ssh -A asks for each of its sessions, so that one with -a "
    "on a shared connection has no agent, as was meant."
)


async def _session(connection: Connection, command: str, *requests: tuple[bytes, bytes]) -> tuple[Raw, str]:
    """A session with these requests before its command, and their answers."""
    session = await opened(connection, b"session")
    assert isinstance(session, Raw), session
    answers = [await requested(session, *request) for request in requests]
    assert await requested(session, b"exec", string(command.encode())) == "yes"
    return session, " ".join(answers)


async def _said(connection: Connection, command: str, *requests: tuple[bytes, bytes]) -> str:
    """What the command says."""
    session, answers = await _session(connection, command, *requests)
    assert await until(lambda: "CLOSE" in session.heard)
    return f"{answers} {session.out.decode().strip()}".strip()


# --- the agent -------------------------------------------------------------------------------------------------------


@contextmanager
def _agent(side: Side) -> Iterator[dict[str, str]]:
    """A real ssh-agent with one key."""
    key = side.world.path / f"agent-key-{side.name}"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", str(key)], check=True)
    try:
        with ssh_agent(side.world.path / f"agent-{side.name}") as variables:
            subprocess.run(["ssh-add", "-q", str(key)], env=variables | {"PATH": os.environ["PATH"]}, check=True)
            yield variables
    finally:
        for file in (key, key.with_suffix(".pub")):
            file.unlink(missing_ok=True)


@behaviour(AGENT, "ssh-add -l through -A; the form of SSH_AUTH_SOCK")
async def agent_works(side: Side) -> str:
    with _agent(side) as variables:
        said = await side.ssh("ssh-add -l; echo $SSH_AUTH_SOCK", options=("-A",), env=variables)
    listed, path = said.out.decode().splitlines()
    form = re.sub(r"ssh-\w{10,12}/agent\.\d+$", "ssh-XXXXXXXXXX/agent.PID", path)
    return f"{listed.split()[2]} {form}"


@behaviour(AGENT, "Owner and mode of the folder")
async def agent_folder(side: Side) -> str:
    async with connected(side) as (connection, _):
        said = await _said(connection, "stat -c '%U %A' ${SSH_AUTH_SOCK%/*}", (AGENT_REQUEST, b""))
    return said.replace(side.user, "USER")


@behaviour(
    AGENT,
    "Owner and mode of the socket",
    reason="In a folder that nobody else can enter, it makes no difference; the node's is closed twice.",
)
async def agent_socket(side: Side) -> str:
    async with connected(side) as (connection, _):
        said = await _said(connection, "stat -c '%U %A' $SSH_AUTH_SOCK", (AGENT_REQUEST, b""))
    return said.replace(side.user, "USER")


@behaviour(AGENT, "Without -A")
async def agent_not_asked(side: Side) -> str:
    with _agent(side) as variables:
        said = await side.ssh("echo ${SSH_AUTH_SOCK-none}", options=("-a",), env=variables)
    return said.out.decode()


@behaviour(AGENT, "Two sessions of one connection that ask for it: one socket")
async def agent_shared(side: Side) -> str:
    with _agent(side) as variables:
        async with master(side, "-A", env=variables) as ssh:
            share = ("-S", ssh.path, "-A")
            said = [await side.ssh("ssh-add -l; echo $SSH_AUTH_SOCK", options=share, env=variables) for _ in "ab"]
    words = [each.out.split() for each in said]
    return f"{words[0][2].decode()} {words[1][2].decode()}, {'one' if words[0][-1] == words[1][-1] else 'two'}"


@behaviour(AGENT, "A session that did not ask, beside one that did", reason=ONLY_WHO_ASKED)
async def agent_of_others(side: Side) -> str:
    async with connected(side) as (connection, _):
        await _said(connection, "true", (AGENT_REQUEST, b""))
        said = await _said(connection, "echo ${SSH_AUTH_SOCK:-none}")
    return "the agent" if "agent." in said else said


@behaviour(
    AGENT,
    "The answers to requests: in one session twice, in a second session",
    reason="The second session has the agent on both; the node says so. OpenSSH's client does not ask for an answer.",
)
async def agent_answers(side: Side) -> str:
    async with connected(side) as (connection, _):
        request = (AGENT_REQUEST, b"")
        return f"{await _said(connection, 'true', request, request)}; {await _said(connection, 'true', request)}"


@behaviour(AGENT, "Asked for when the command runs already")
async def agent_late(side: Side) -> str:
    async with connected(side) as (connection, _):
        session, _ = await _session(connection, "sleep 0.3; echo ${SSH_AUTH_SOCK-none}")
        answer = await requested(session, AGENT_REQUEST)
        await until(lambda: "CLOSE" in session.heard)
    return f"{answer} {session.out.decode().strip()}"


@behaviour(AGENT, "The socket after its session, and after its connection; and when that breaks")
async def agent_end(side: Side) -> str:
    seen = []
    async with connected(side) as (connection, _):
        path = (await _said(connection, "echo $SSH_AUTH_SOCK", (AGENT_REQUEST, b""))).split()[-1]
        await task.deferLater(reactor, 0.2)
        seen.append("stands" if os.path.exists(path) else "gone")
    folder = os.path.dirname(path)
    seen.append("gone" if await until(lambda: not os.path.exists(folder), 3) else "stands")
    with _agent(side) as variables:
        client = side.start("echo $SSH_AUTH_SOCK; exec cat", options=("-A",), env=variables, stdin=None)
        await client.until(b"agent.")
        folder = os.path.dirname(client.out.decode().strip())
        client.kill()
        await client.done
    seen.append("gone" if await until(lambda: not os.path.exists(folder), 3) else "stands")
    return " ".join(seen)


@behaviour(AGENT, "Without permit-agent-forwarding; without permit-port-forwarding")
async def agent_permit(side: Side) -> str:
    seen = []
    for permit in ("permit-agent-forwarding", "permit-port-forwarding"):
        async with connected(side, without=(permit,)) as (connection, _):
            said = await _said(connection, "echo ${SSH_AUTH_SOCK:-none}", (AGENT_REQUEST, b""))
            seen.append(re.sub(r"/\S+", "the agent", said))
    return "; ".join(seen)


@behaviour(AGENT, "What the client is told of a connection; several at once")
async def agent_channels(side: Side) -> str:
    async with connected(side, login="root") as (connection, answering):
        session, _ = await _session(connection, "echo $SSH_AUTH_SOCK; exec cat", (AGENT_REQUEST, b""))
        await until(lambda: session.out)
        socks = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for sock in socks:
            sock.connect(session.out.decode().strip())
        await until(lambda: len(answering.opened) == 3)
        for sock in socks:
            sock.close()
    return " ".join(f"{kind.decode()} {data!r}" for kind, data in dict.fromkeys(answering.opened))


# --- X11 -------------------------------------------------------------------------------------------------------------


def _x11(single: bool = False, screen: int = 0, cookie: str = COOKIE) -> tuple[bytes, bytes]:
    return X11_REQUEST, boolean(single) + string(b"MIT-MAGIC-COOKIE-1") + string(cookie.encode()) + uint32(screen)


def _form(display: str) -> str:
    return re.sub(r":\d+", ":N", display)


def _port(display: str) -> int:
    return 6000 + int(display.split(":")[1].split(".")[0])


@behaviour(DISPLAY, "DISPLAY, and xauth's entry for it")
async def display(side: Side) -> str:
    async with connected(side) as (connection, _):
        said = await _said(connection, "echo $DISPLAY; xauth list $DISPLAY 2>&1; echo ${XAUTHORITY-none}", _x11())
    said = said.replace(socket.gethostname(), "HOST").replace(COOKIE, "COOKIE")
    return _form(" ".join(said.split()))


@behaviour(DISPLAY, "ssh -X and ssh -Y, as root too")
async def real(side: Side) -> str:
    authority = side.world.path / f"xauthority-{side.name}"
    variables = {"DISPLAY": ":98", "XAUTHORITY": str(authority)}
    subprocess.run(["xauth", "-q", "-f", str(authority), "add", ":98", ".", COOKIE], check=True)
    seen = []
    for option, login in (("-X", side.user), ("-Y", side.user), ("-Y", "root"), ("-x", side.user)):
        options = (option, "-o", "ForwardX11Timeout=0")
        said = await side.ssh("echo ${DISPLAY-none}", options=options, env=variables, login=login)
        seen.append(f"{option} {_form(said.out.decode().strip())}")
    return " ".join(seen)


@behaviour(DISPLAY, "Screen 3")
async def screen(side: Side) -> str:
    async with connected(side) as (connection, _):
        return _form(await _said(connection, "echo ${DISPLAY:-none}", _x11(screen=3)))


@behaviour(
    DISPLAY,
    "Screen 401",
    reason="OpenSSH's client ends at 400, and so does the node: what comes from a peer has a bound.",
)
async def screen_beyond(side: Side) -> str:
    async with connected(side) as (connection, _):
        return _form(await _said(connection, "echo ${DISPLAY:-none}", _x11(screen=401)))


async def _shown(connection: Connection, *requests: tuple[bytes, bytes]) -> tuple[Raw, str]:
    """A session that stays, and its display."""
    session, _ = await _session(connection, "echo $DISPLAY; exec cat", *requests)
    await until(lambda: session.out)
    return session, session.out.decode().strip()


@behaviour(DISPLAY, "Where the display listens; two sessions have two of them")
async def where(side: Side) -> str:
    async with connected(side) as (connection, _):
        shown = [(await _shown(connection, _x11()))[1] for _ in range(2)]
        places = [" ".join(sorted(listeners(_port(each)))) for each in shown]
    return f"{places[0]}; {places[1]}; {'two' if shown[0] != shown[1] else 'one'}"


@behaviour(DISPLAY, "What the client is told of a connection (RFC 4254 section 6.3.2)")
async def x11_told(side: Side) -> str:
    async with connected(side) as (connection, answering):
        _, shown = await _shown(connection, _x11())
        with socket.create_connection(("127.0.0.1", _port(shown))) as sock:
            await until(lambda: answering.opened)
            kind, data = answering.opened[0]
            reader = Reader(data)
            origin, right = reader.string().decode(), reader.uint32() == sock.getsockname()[1]
    return f"{kind.decode()} from {origin} {'right' if right else 'wrong'} {reader.rest()!r}"


@behaviour(DISPLAY, "A display for a single connection: the first, the second")
async def single(side: Side) -> str:
    seen = []
    async with connected(side) as (connection, answering):
        _, shown = await _shown(connection, _x11(single=True))
        for _ in range(2):
            with socket.socket() as sock:
                answer = await beside(sock.connect, ("127.0.0.1", _port(shown)))
                await until(lambda: answering.opened, 2)
                await until(lambda: not listeners(_port(shown)), 2)
            seen.append(answer or "taken")
    return f"{', '.join(seen)}; {len(answering.opened)} opened"


@behaviour(DISPLAY, "The display after its session, while the connection stands; a connection that it took")
async def x11_end(side: Side) -> str:
    async with connected(side) as (connection, answering):
        session, shown = await _shown(connection, _x11())
        sock = socket.create_connection(("127.0.0.1", _port(shown)))
        await until(lambda: answering.opened)
        session.loseConnection()
        gone = await until(lambda: not listeners(_port(shown)), 3)
        with sock:
            sock.settimeout(1)
            answer = await beside(sock.recv, 10)
    return f"{'gone' if gone else 'listens'}, {'closed' if answer == b'' else 'goes on'}"


@behaviour(DISPLAY, "The display when the connection breaks")
async def x11_cut(side: Side) -> str:
    async with connected(side) as (connection, _):
        _, shown = await _shown(connection, _x11())
    return "gone" if await until(lambda: not listeners(_port(shown)), 5) else "listens"


@behaviour(DISPLAY, "xauth's entry after the session")
async def entry_stays(side: Side) -> str:
    async with connected(side) as (connection, _):
        shown = (await _said(connection, "echo $DISPLAY", _x11())).split()[-1]
        said = await _said(connection, f"xauth list {shown}")
    return "stays" if COOKIE in said else "gone"


@behaviour(DISPLAY, "Asked for twice, and when the command runs already")
async def x11_again(side: Side) -> str:
    async with connected(side) as (connection, _):
        twice = _form(await _said(connection, "echo ${DISPLAY:-none}", _x11(), _x11()))
        session, _ = await _session(connection, "sleep 0.3; echo ${DISPLAY:-none}")
        late = await requested(session, *_x11())
        await until(lambda: "CLOSE" in session.heard)
    return f"{twice}; {late} {session.out.decode().strip()}"


@behaviour(DISPLAY, "Cookies that are commands: with a newline, with ';'")
async def cookies(side: Side) -> str:
    seen = []
    for cookie in ("00\nadd x", "00;id"):
        async with connected(side) as (connection, _):
            seen.append(_form(await _said(connection, "echo ${DISPLAY:-none}", _x11(cookie=cookie))))
    return "; ".join(seen)


@behaviour(
    DISPLAY,
    "An empty cookie",
    reason="Without a cookie xauth has nothing to add, and no program could use the display.",
)
async def no_cookie(side: Side) -> str:
    async with connected(side) as (connection, _):
        return _form(await _said(connection, "echo ${DISPLAY:-none}", _x11(cookie="")))


@behaviour(
    DISPLAY,
    "Without permit-X11-forwarding; without permit-port-forwarding",
    reason="A role allows forwarding of ports or does not, and certificates of a cluster have no other permit for "
    "displays: X11 stands behind the one.",
)
async def x11_permit(side: Side) -> str:
    assert "permit-X11-forwarding" in PERMITS
    seen = []
    for permit in ("permit-X11-forwarding", "permit-port-forwarding"):
        async with connected(side, without=(permit,)) as (connection, _):
            seen.append(_form(await _said(connection, "echo ${DISPLAY:-none}", _x11())))
    return "; ".join(seen)


@behaviour(DISPLAY, "An account whose home is missing")
async def x11_homeless(side: Side) -> str:
    assert await until(lambda: not processes(side))
    await usermod(side, "-d", "/nonexistent")
    try:
        async with connected(side) as (connection, _):
            seen = _form(await _said(connection, "echo ${DISPLAY:-none}", _x11()))
        gone = await until(lambda: not processes(side))
    finally:
        await usermod(side, "-d", f"/home/{side.user}")
    assert gone
    return seen


@behaviour(DISPLAY, "Leftovers of an agent and a display in /tmp and in the home")
async def leftovers(side: Side) -> str:
    owner = os.stat(side.home).st_uid
    before = _own(owner)
    async with connected(side) as (connection, _):
        await _said(connection, "true", _x11(), (AGENT_REQUEST, b""))
    await until(lambda: not processes(side))
    found = [path.name for path in side.home.iterdir() if path.name.startswith(".X")]
    return f"{len(_own(owner) - before)} in /tmp; {' '.join(found)}"


def _own(owner: int) -> set[str]:
    """What a user has in /tmp."""
    found = set()
    for name in os.listdir("/tmp"):
        with suppress(FileNotFoundError):  # others come and go
            if os.lstat(f"/tmp/{name}").st_uid == owner:
                found.add(name)
    return found
