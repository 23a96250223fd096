"""Rows for sessions: commands, shells, terminals, signals, and how they end."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import struct
import termios
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from teleconch.codec import string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.ssh.channel import Channel
from teleconch.ssh.problems import RequestRefused
from tests.interop.conformance import Side, behaviour, processes, until
from tests.interop.forwarding_clients import connected, requested
from tests.worlds.checks import found
from tests.worlds.node import Client, alive
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply

COMMANDS = "Commands and shells"
TERMINALS = "Terminals"
ENDS = "Signals and ends"


class Session(Channel):
    """A session of our own client; ``heard`` has what the server sent, in order."""

    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.out = b""
        self.over: Deferred[None] = Deferred()

    def _hear(self, what: str) -> None:
        if not self.heard or self.heard[-1] != what:
            self.heard.append(what)

    def dataReceived(self, data: bytes) -> None:
        self.out += data
        self._hear("data")

    def extReceived(self, dataType: int, data: bytes) -> None:
        self._hear(f"extended {dataType}")

    def eofReceived(self) -> None:
        self._hear("EOF")

    def request_exit_status(self, data: bytes) -> bool:
        self._hear(f"exit-status {struct.unpack('>L', data)[0]}")
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        length = int.from_bytes(data[:4], "big")
        self._hear(f"exit-signal {data[4 : 4 + length].decode()} core={data[4 + length]}")
        return True

    def request_eow_openssh_com(self, data: bytes) -> bool:
        self._hear("eow")
        return True

    def closed(self) -> None:
        self._hear("CLOSE")
        self.over.callback(None)


async def raw(side: Side, *requests: tuple[bytes, bytes], login: str = "", end: bytes = b"") -> tuple[Session, str]:
    """A session with these requests in order, and which of them were taken. ``end`` is written, and then EOF."""
    connection = await side.connect(login)
    session = Session()
    await connection.open(session)
    answers = []
    for name, body in requests:
        try:
            await connection.sendRequest(session, name, body, 1).addTimeout(5, reactor)
            answers.append("yes")
        except RequestRefused:
            answers.append("no")
        except (DeferredTimeout, ConnectionProblem):
            connection.close()
            return session, " ".join([*answers, "disconnected"])
    if end:
        session.write(end)
        connection.sendEOF(session)
    await session.over
    connection.close()
    await connection.disconnected
    return session, " ".join(answers)


def _pty(modes: bytes = b"\0", term: bytes = b"xterm", rows: int = 24, columns: int = 80) -> tuple[bytes, bytes]:
    size = b"".join(map(uint32, (columns, rows, 0, 0)))
    return b"pty-req", string(term) + size + string(modes)


def _exec(command: str) -> tuple[bytes, bytes]:
    return b"exec", string(command.encode())


# --- commands and shells ---------------------------------------------------------------------------------------------


@behaviour(COMMANDS, "Exit status of a command")
async def exit_status(side: Side) -> str:
    return " ".join([str((await side.ssh(f"exit {code}")).code) for code in (0, 1, 7, 255)])


@behaviour(COMMANDS, "Output and errors apart")
async def apart(side: Side) -> str:
    result = await side.ssh("echo out; echo err >&2")
    return f"stdout: {result.out.decode()} stderr: {result.err.decode()}"


@behaviour(COMMANDS, "How the shell runs a command: $0, working directory, umask, login shell?")
async def command_shell(side: Side) -> str:
    said = await side.ssh(
        "echo $0; pwd | sed s,$HOME,HOME,; umask; shopt -q login_shell && echo login", login=side.user
    )
    return said.out.decode()


@behaviour(COMMANDS, "Login shell from a script on stdin")
async def login_shell(side: Side) -> str:
    script = b"echo $0; pwd | sed s,$HOME,HOME,; umask; shopt -q login_shell && echo login; exit 3\n"
    said = await side.ssh(login=side.user, stdin=script)
    return f"{said.out.decode()} {said.code}"


@behaviour(COMMANDS, "Commands with newlines, quotes and bytes that are not UTF-8 arrive as they are")
async def odd_command(side: Side) -> str:
    session, _ = await raw(side, (b"exec", string(b"printf '%s' 'a\n\"b\" \xff' | od -An -tx1")))
    return session.out.decode()


@behaviour(COMMANDS, "A second command on one channel")
async def second(side: Side) -> str:
    _, answers = await raw(side, _exec("sleep 0.3"), _exec("true"))
    return answers


@behaviour(COMMANDS, "An unknown subsystem")
async def unknown_subsystem(side: Side) -> str:
    result = await side.ssh("nonesuch", options=("-s",))
    return f"{result.err.decode().splitlines()[-1]}: {result.code}"


@behaviour(COMMANDS, "EOF reaches the command, and its answer the client (half-close)")
async def half_close(side: Side) -> str:
    result = await side.ssh("cat; sleep 0.2; echo after", stdin=b"in\n")
    return result.out.decode()


@behaviour(COMMANDS, "What ends a session: all of the output, exit status, EOF, CLOSE")
async def order(side: Side) -> str:
    session, _ = await raw(side, _exec("head -c 300000 /dev/zero; exit 3"))
    first, last = session.heard[0], session.heard[-1]  # where the status stands between them is left to chance by sshd
    told = sorted(set(session.heard) - {first, last})
    return f"{first} ({len(session.out)} bytes) first, then {' and '.join(told)}, {last} last"


@behaviour(COMMANDS, "A command that closes its output early")
async def closes_early(side: Side) -> str:
    result = await side.ssh("exec >&- 2>&-; sleep 0.3; exit 5")
    return f"ends with {result.code}"


@behaviour(COMMANDS, "A command that does not read its input")
async def reads_not(side: Side) -> str:
    return f"ends with {(await side.ssh('exec <&-; exit 4', stdin=bytes(4 << 20))).code}"


@behaviour(COMMANDS, "A client's user who reads no more (ssh HOST yes | head)")
async def unread(side: Side) -> str:
    client = side.start("yes; exit $?", stdin=None)
    await client.until(b"y")
    client.transport.closeStdout()
    return f"ends with {(await client.done).code}"


@behaviour(COMMANDS, "A background child that holds the output")
async def holds_output(side: Side) -> str:
    result = await side.ssh("(sleep 0.4; echo late) & echo early; exit 5")
    return f"{result.out.decode()} {result.code}"


@behaviour(COMMANDS, "Ten sessions on one connection (ControlMaster)")
async def control_master(side: Side) -> str:
    path = side.world.path / f"cm-{side.name}"
    master = side.start("-N", options=("-M", "-S", str(path)), stdin=None)
    await until(path.exists)
    share = ("-S", str(path))
    runs = [side.start(f"sleep 0.2; echo {n}; exit {n}", options=share) for n in range(10)]
    results = [await run.done for run in runs]
    await side.ssh(options=("-O", "exit", *share))
    await master.done
    return " ".join(f"{result.out.decode().strip()}={result.code}" for result in results)


@behaviour(COMMANDS, "Descriptors, blocked and ignored signals of a command")
async def clean_start(side: Side) -> str:
    result = await side.ssh("ls /proc/self/fd | tr '\\n' ' '; exec grep -E 'Sig(Blk|Ign)' /proc/self/status")
    seen = re.sub("[0-9a-f]{16}", lambda found: _signals(int(found[0], 16)), result.out.decode())
    return seen.replace(" 3 ", " ", 1)  # 3 is the directory


def _signals(mask: int) -> str:
    """As /proc shows them, without 32 and 33: those are the C library's own, which ignores them in what it spawns, so
    that whatever started the tests decides about them."""
    mask &= ~(0b11 << 31)
    return f"{mask:016x}" if mask else "none"


@behaviour(COMMANDS, "Leader of a session and a process group of its own")
async def own_session(side: Side) -> str:
    result = await side.ssh("ps -o sid=,pgid=,tty= -p $$ | sed s/$$/PID/g")
    return result.out.decode()


@behaviour(COMMANDS, "Resource limits without PAM")
async def limits(side: Side) -> str:
    code = "import resource; print([resource.getrlimit(n) for n in range(16)])"
    result = await side.ssh(f'python3 -c "{code}"')
    own = str([resource.getrlimit(n) for n in range(16)])
    return "the daemon's own" if result.out.decode().strip() == own else "others"


# --- terminals -------------------------------------------------------------------------------------------------------


@behaviour(TERMINALS, "Terminal, SSH_TTY and TERM")
async def terminal(side: Side) -> str:
    said = await side.ssh("tty; echo $SSH_TTY $TERM; echo ok >/dev/tty; exit 9", options=("-tt",), pty=True)
    tty = said.out.split()[0].decode()
    return f"{said.out.decode().replace(tty, 'TTY')} {said.code}".replace("Connection to 127.0.0.1 closed.", "")


@behaviour(TERMINALS, "Owner and mode of the terminal")
async def tty_mode(side: Side) -> str:
    said = await side.ssh("stat -c '%U %G %a' $(tty)", options=("-tt",), login=side.user, pty=True)
    return said.out.decode().splitlines()[0].replace(side.user, "USER")


_OPCODES = [*range(1, 19), *range(30, 43), *range(50, 63), *range(70, 76), *range(90, 94)]


async def _stty(side: Side, modes: bytes) -> str:
    session, _ = await raw(side, _pty(modes), _exec("stty -a"))
    return session.out.decode().replace("\r", "")


@behaviour(TERMINALS, "Every terminal mode of RFC 4254 and 8160, set and cleared")
async def modes(side: Side) -> str:
    seen = []
    for value in (0, 1):
        modes = b"".join(bytes([code]) + uint32(value if code >= 30 else code) for code in _OPCODES)
        seen.append(await _stty(side, modes + b"\0"))
    cleared, made = (set(re.findall(r"(?<=\s)-?[a-z]+[0-9]?\b(?! =)", said.lower())) for said in seen)
    keys = ", ".join(f"{name} {key}" for name, key in re.findall(r"(\w+) = (.*?);", seen[0]))
    return f"cleared: {' '.join(sorted(cleared - made))}; set: {' '.join(sorted(made - cleared))}; keys: {keys}"


@behaviour(TERMINALS, "A key that is turned off (255), unknown modes, speed")
async def odd_modes(side: Side) -> str:
    modes = bytes([1]) + uint32(255) + bytes([128]) + uint32(9600) + bytes([129]) + uint32(9600)
    said = await _stty(side, modes + bytes([159]) + uint32(1) + b"\0")
    return f"{found('speed [0-9]+', said)[0]}, {found('intr = [^;]*', said)[0]}"


@behaviour(TERMINALS, "Window size at the start, and when it changes")
async def window(side: Side) -> str:
    script = "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    client = side.start(script, options=("-tt",), pty=True, stdin=None)
    _resize(client, 80, 24)
    await client.until(b"ready")
    _resize(client, 133, 47)
    client.transport.signalProcess(signal.SIGWINCH)
    said = (await client.done).out.decode()
    return " then ".join(re.findall(r"\d+ \d+", said)[-1:])


def _resize(client: Client, columns: int, rows: int) -> None:
    fcntl.ioctl(client.transport.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@behaviour(TERMINALS, "Ctrl-C to a full-speed yes")
async def interrupt(side: Side) -> str:
    client = side.start("yes", options=("-tt",), pty=True, stdin=None)
    await client.until(b"y\r\ny\r\n")
    client.write(b"\x03")
    return f"ends with {(await client.done).code}"


@behaviour(TERMINALS, "Job control: Ctrl-Z, bg, fg, Ctrl-C, Ctrl-D")
async def jobs(side: Side) -> str:
    client = side.start(options=("-tt",), pty=True, stdin=None)
    seen = []
    for keys, wanted in (
        (b"PS1='> '; echo $((41+1))_\n", b"42_"),
        (b"sleep 1000\n", b"sleep 1000"),
        (b"\x1a", b"Stopped"),
        (b"bg\n", b"sleep 1000 &"),
        (b"fg\n", b"fg\r\n"),
        (b"\x03echo $?_\n", b"130_"),
    ):
        client.write(keys)
        await task.deferLater(reactor, 0.2)
        await client.until(wanted)
        seen.append(wanted.decode().strip())
        await task.deferLater(reactor, 0.2)
    client.write(b"\x04")
    return f"{', '.join(seen)}, ends with {(await client.done).code}"


@behaviour(TERMINALS, "UTF-8 letters that are cut by packet borders")
async def utf8(side: Side) -> str:
    result = await side.ssh("yes 'ä€𝄞' | head -50000", options=("-tt",), pty=True, env={"LC_ALL": "C.UTF-8"})
    lines = result.out.split(b"\r\n")
    return f"{lines.count('ä€𝄞'.encode())} whole lines of 50000"


@behaviour(TERMINALS, "A background child on a terminal")
async def background(side: Side) -> str:
    started = reactor.seconds()
    result = await side.ssh("sleep 20 & exit 2", options=("-tt",), pty=True)
    return f"{result.code}, {'at once' if reactor.seconds() - started < 10 else 'after it'}"


@behaviour(TERMINALS, "break, with and without a terminal")
async def breaks(side: Side) -> str:
    _, on = await raw(side, _pty(), _exec("sleep 0.5"), (b"break", uint32(500)))
    _, off = await raw(side, _exec("sleep 0.5"), (b"break", uint32(500)))
    return f"on: {on.split()[-1]}, off: {off.split()[-1]}"


@behaviour(TERMINALS, "A terminal that is asked for behind the command")
async def late_terminal(side: Side) -> str:
    _, answers = await raw(side, _exec("sleep 0.3"), _pty())
    return answers.split()[1]


@behaviour(TERMINALS, "A second terminal on one channel")
async def second_terminal(side: Side) -> str:
    _, answers = await raw(side, _pty(), _pty(), _exec("true"))
    return answers.split()[1]


@behaviour(TERMINALS, "Without permit-pty: the terminal, and a command without one")
async def no_permit(side: Side) -> str:
    async with connected(side, without=("permit-pty",)) as (connection, _):
        session = Session()
        await connection.open(session)
        answers = [await requested(session, *each) for each in (_pty(), _exec("tty"))]
        await session.over
    return f"{' '.join(answers)} {session.out.decode().strip()}"


# --- signals and ends ------------------------------------------------------------------------------------------------


async def _signalled(side: Side, name: str) -> str:
    connection = await side.connect()
    session = Session()
    await connection.open(session)
    await reply(connection.sendRequest(session, *_exec("ulimit -c 0; echo up; cat"), 1))
    await until(lambda: session.out)
    try:
        await reply(connection.sendRequest(session, b"signal", string(name.encode()), 1))
        answer = "yes"
    except RequestRefused:
        answer = "no"
        connection.sendEOF(session)  # a signal that was taken ends it, however long that takes
    await session.over
    connection.close()
    await connection.disconnected
    told = [each for each in session.heard if each.startswith("exit")]
    return f"{name}: {answer}, {told[0]}"


@behaviour(ENDS, "Signals: HUP, INT, KILL, QUIT, TERM, USR1, USR2")
async def signals(side: Side) -> str:
    return "; ".join([await _signalled(side, name) for name in ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2")])


@behaviour(
    ENDS,
    "Signals: ABRT, ALRM, FPE, ILL, PIPE, SEGV",
    reason="RFC 4254 lists them, and they are sent with the user's own rights, who can send them with kill.",
)
async def more_signals(side: Side) -> str:
    return "; ".join([await _signalled(side, name) for name in ("ABRT", "ALRM", "FPE", "ILL", "PIPE", "SEGV")])


@behaviour(ENDS, "Signals: STOP, CHLD, SIGTERM, 9, none")
async def no_signals(side: Side) -> str:
    answers = []
    for name in (b"STOP", b"CHLD", b"SIGTERM", b"9", b""):
        _, answer = await raw(side, _exec("sleep 0.2"), (b"signal", string(name)))
        answers.append(f"{name.decode() or 'none'}: {answer.split()[-1]}")
    return "; ".join(answers)


@behaviour(ENDS, "exit-signal of a command that died by TERM, SEGV, XCPU")
async def exit_signals(side: Side) -> str:
    told = []
    for name in ("TERM", "SEGV", "XCPU"):
        session, _ = await raw(side, _exec(f"ulimit -c 0; kill -{name} $$"))
        told += [each for each in session.heard if each.startswith("exit")]
    return "; ".join(told)


@behaviour(ENDS, "A variable that is not in the list: the answer")
async def env_answer(side: Side) -> str:
    _, answers = await raw(
        side, (b"env", string(b"LD_PRELOAD") + string(b"x")), (b"env", string(b"LANG") + string(b"C")), _exec("true")
    )
    return answers


async def _cut(side: Side, script: str, **how: Any) -> tuple[Client, int]:
    client = side.start(script, stdin=None, **how)
    await client.until(b".")
    pid = int(found(rb"(\d+)\.", client.out)[1])
    client.kill()
    await client.done
    return client, pid


@behaviour(ENDS, "A connection that breaks, with a terminal")
async def cut_terminal(side: Side) -> str:
    _, pid = await _cut(side, "echo $$.; sleep 351", options=("-tt",), pty=True)
    return "hung up" if await until(lambda: not alive(pid), 5) else "goes on"


@behaviour(
    ENDS,
    "A connection that breaks, without a terminal",
    reason="A session that nobody can see any more must leave nothing behind: its process group gets SIGHUP. What is "
    "to go on is started with nohup or setsid, as it is for a terminal.",
)
async def cut_command(side: Side) -> str:
    _, pid = await _cut(side, "echo $$.; sleep 3")
    gone = await until(lambda: not alive(pid), 1.5)
    if not gone:
        os.kill(pid, 9)
    return "hung up" if gone else "goes on until it writes or ends"


@behaviour(
    ENDS,
    "A channel that is closed while its command runs",
    reason="As for a connection that breaks: nobody can see the session any more.",
)
async def closed_channel(side: Side) -> str:
    async with connected(side) as (connection, _):
        session = Session()
        await connection.open(session)
        await requested(session, *_exec("echo $$; sleep 3"))
        await until(lambda: session.out)
        session.loseConnection()
        return "hung up" if await until(lambda: not alive(int(session.out)), 1.5) else "goes on until it writes or ends"


@behaviour(ENDS, "What is left of a terminal and its processes when the connection breaks")
async def left(side: Side) -> str:
    client = side.start("tty; sleep 353 & sleep 354", options=("-tt",), pty=True, stdin=None)
    await client.until(b"\n")
    tty = client.out.split()[0].decode()
    client.kill()
    await client.done
    gone = await until(lambda: not processes(side), 5)
    free = await until(lambda: not os.path.exists(tty), 5)
    return f"{'no process' if gone else 'processes'}, {'no terminal' if free else 'a terminal'}"


@behaviour(ENDS, "nohup, and a connection that breaks")
async def nohup(side: Side) -> str:
    script = "nohup sh -c 'echo $$. >/dev/tty; exec sleep 352' >/dev/null 2>&1 & wait"  # no hang-up before the nohup
    _, pid = await _cut(side, script, options=("-tt",), pty=True)
    await task.deferLater(reactor, 0.5)
    if not alive(pid):
        return "hung up"
    os.kill(pid, 9)
    return "goes on"
