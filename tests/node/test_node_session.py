"""Sessions through OpenSSH's ssh: what a user sees."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import task

from tests.worlds.checks import found
from tests.worlds.node import ME, Client, World, alive, own_signals
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

pytestmark = pytest.mark.program("ssh")
HOME = pwd.getpwnam(ME).pw_dir


def _resize(client: Client, columns: int, rows: int) -> None:
    fcntl.ioctl(client.transport.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


# --- exec and shell --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_exec(world: World) -> None:
    """`ssh HOST command` runs it, and gives its output, its errors apart, and its exit status."""
    result = await world.ssh("echo out; echo err >&2; exit 7")
    assert (result.out, result.err, result.code) == (b"out\n", b"err\n", 7)


@pytest_twisted.ensureDeferred
async def test_login_shell_reads_stdin(world: World) -> None:
    """`ssh HOST < script` runs a login shell that reads the script, in the home directory."""
    result = await world.ssh(stdin=b"echo $0; pwd; shopt -q login_shell && echo login; umask\nexit 3\n")
    assert result.out == f"-bash\n{HOME}\nlogin\n0022\n".encode()
    assert result.code == 3


@pytest_twisted.ensureDeferred
async def test_stdin_to_the_last_byte(world: World) -> None:
    """Megabytes piped through `ssh HOST cat` come back whole, and EOF reaches the command."""
    data = os.urandom(1 << 20) * 6
    result = await world.ssh("cat", stdin=data)
    assert hashlib.sha256(result.out).digest() == hashlib.sha256(data).digest()
    assert result.code == 0


@pytest_twisted.ensureDeferred
async def test_output_to_the_last_byte(world: World) -> None:
    """Output that is still on its way when the command exits is not lost."""
    result = await world.ssh("head -c 5000000 /dev/zero; head -c 300000 /dev/zero >&2; exit 4")
    assert (len(result.out), len(result.err), result.code) == (5_000_000, 300_000, 4)


@pytest_twisted.ensureDeferred
async def test_command_that_does_not_read(world: World) -> None:
    """`ssh HOST true < bigfile` ends, although nobody reads the file."""
    result = await world.ssh("exec 0<&-; exit 0", stdin=bytes(8 << 20))
    assert result.code == 0


@pytest_twisted.ensureDeferred
async def test_background_child_keeps_the_pipe(world: World) -> None:
    """Without a terminal, output of a background child still arrives after the command has exited, as with sshd."""
    result = await world.ssh("(sleep 0.5; echo late) & echo early; exit 5")
    assert (result.out, result.code) == (b"early\nlate\n", 5)


@pytest_twisted.ensureDeferred
async def test_background_child_with_closed_output(world: World) -> None:
    """A daemon that lets go of its output does not keep `ssh` waiting, and lives on."""
    result = await world.ssh("setsid sleep 77 >/dev/null 2>&1 </dev/null & echo $!")
    pid = int(result.out)
    assert alive(pid)
    os.kill(pid, 9)


@pytest_twisted.ensureDeferred
async def test_killed_by_a_signal(world: World) -> None:
    """A command that dies by a signal is no success: ssh says 255, the log names the signal."""
    result = await world.ssh("kill -KILL $$")
    assert result.code == 255
    (event,) = world.logged("session.end")
    assert event["exit_code"] == -9


@pytest_twisted.ensureDeferred
async def test_log_of_a_session(world: World) -> None:
    """An auditor finds who ran what, as whom, from where, on which node, and how it ended."""
    await world.ssh("exit 6")
    (start,) = world.logged("session.start")
    (end,) = world.logged("session.end")
    for event in start, end:
        assert (event["user"], event["login"], event["server_id"]) == ("alice", ME, world.member.uuid)
        assert event["addr_remote"].startswith("127.0.0.1:")
        assert event["sid"] == start["sid"]
    assert (start["command"], end["exit_code"]) == ("exit 6", 6)


@pytest_twisted.ensureDeferred
async def test_several_sessions_on_one_connection(world: World) -> None:
    """ControlMaster: sessions that share a connection do not disturb each other, and each has its own id."""
    path = world.path / "control"
    master = world.start("-N", options=("-M", "-S", str(path)), stdin=None)
    await until(path.exists)
    share = ("-S", str(path))
    runs = [world.start(f"echo $SSH_SESSION_ID; exit {n}", options=share) for n in range(5)]
    results = [await run.done for run in runs]
    assert [result.code for result in results] == [0, 1, 2, 3, 4]
    assert len({result.out for result in results}) == 5
    await world.ssh(options=("-O", "exit", *share))
    await master.done


# --- environment -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_variables_of_the_session(world: World) -> None:
    """A session knows who, where and which it is, and nothing of the daemon's own environment."""
    os.environ["NODE_SECRET"] = "leak"
    try:
        result = await world.ssh("exec env -0")
    finally:
        del os.environ["NODE_SECRET"]
    found = dict(pair.split("=", 1) for pair in result.out.decode().split("\0") if pair)
    port = found["SSH_CLIENT"].split()[1]
    expected = {
        "USER": ME,
        "LOGNAME": ME,
        "HOME": HOME,
        "SHELL": pwd.getpwnam(ME).pw_shell,
        "MAIL": f"/var/mail/{ME}",
        "SSH_CLIENT": f"127.0.0.1 {port} {world.port}",
        "SSH_CONNECTION": f"127.0.0.1 {port} 127.0.0.1 {world.port}",
        "SSH_TELEPORT_USER": "alice",
        "SSH_TELEPORT_HOST_UUID": world.member.uuid,
        "SSH_TELEPORT_CLUSTER_NAME": "example.com",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert re.fullmatch(r"[0-9a-f-]{36}", found["SSH_SESSION_ID"])
    assert "NODE_SECRET" not in found
    assert "SSH_TTY" not in found


@pytest_twisted.ensureDeferred
async def test_variables_that_a_client_sets(world: World) -> None:
    """LANG, LC_*, COLORTERM, TELEPORT_SESSION pass; what could change how programs load does not."""
    good = {"LANG": "C.UTF-8", "LC_TIME": "C", "COLORTERM": "truecolor", "TELEPORT_SESSION": "x y"}
    bad = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "ENV", "IFS", "PATH", "HOME", "SSH_TTY", "FOO")
    sent = good | dict.fromkeys(bad, "/tmp/evil")
    setting = "SetEnv=" + " ".join(f'{name}="{value}"' for name, value in sent.items())
    result = await world.ssh("exec env -0", options=("-o", setting))
    found = dict(pair.split("=", 1) for pair in result.out.decode().split("\0") if pair)
    assert {name: found.get(name) for name in good} == good
    assert not [name for name in bad if found.get(name) == "/tmp/evil"]


@pytest_twisted.ensureDeferred
async def test_descriptors_and_signals_of_the_process(world: World) -> None:
    """A command starts with three descriptors, no blocked or ignored signals, in a session and group of its own."""
    result = await world.ssh("exec python3 -c 'import os; print(os.listdir(\"/proc/self/fd\"))'")
    assert result.out.split(b"\n")[0].count(b"'") == 2 * 4, result  # 0, 1, 2 and the directory
    result = await world.ssh("exec grep -E 'Sig(Blk|Ign)' /proc/self/status")
    assert own_signals(result.out) == [0, 0]
    result = await world.ssh("ps -o sid= -o pgid= -o pid= -p $$")
    assert len(set(result.out.split())) == 1


# --- terminals -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_terminal(world: World) -> None:
    """`ssh -tt` gives a terminal of the client's size, the controlling one, with TERM and SSH_TTY."""
    client = world.start("stty size; tty; echo $SSH_TTY $TERM; echo ok >/dev/tty; exit 9", options=("-tt",), pty=True)
    result = await client.done
    size, tty, names, ok = result.out.decode().splitlines()[:4]
    assert re.fullmatch(r"/dev/pts/\d+", tty)
    assert (names, ok) == (f"{tty} xterm", "ok")
    assert result.code == 9
    assert re.fullmatch(r"\d+ \d+", size)


@pytest_twisted.ensureDeferred
async def test_window_change(world: World) -> None:
    """Resizing the window reaches the program, as a signal and as the new size."""
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    client = world.start(script, options=("-tt",), pty=True, stdin=None)
    await client.until(b"ready")
    _resize(client, 133, 47)
    client.transport.signalProcess(signal.SIGWINCH)
    result = await client.done
    assert b"47 133" in result.out


@pytest_twisted.ensureDeferred
async def test_interactive_shell(world: World) -> None:
    """Typing in an interactive shell works: echo, Ctrl-C to a running command, job control, Ctrl-D to leave."""
    client = world.start(options=("-tt",), pty=True, stdin=None)
    client.write(b"PS1='ready> '; echo $((40+2))x\n")
    await client.until(b"42x")
    client.write(b"sleep 1000\n")
    await client.until(b"sleep 1000")
    await task.deferLater(reactor, 0.3)
    client.write(b"\x03")
    client.write(b"echo after=$?\n")
    await client.until(b"after=130")
    client.write(b"sleep 1000 &\njobs\n")
    await client.until(b"Running")
    client.write(b"kill %1\nexit 8\n")
    assert (await client.done).code == 8


@pytest_twisted.ensureDeferred
async def test_terminal_does_not_wait_for_background(world: World) -> None:
    """With a terminal, a background child does not keep ssh waiting, as with sshd."""
    started = reactor.seconds()
    result = await world.ssh("sleep 30 & exit 2", options=("-tt",), pty=True)
    assert result.code == 2
    assert reactor.seconds() - started < 15


@pytest_twisted.ensureDeferred
async def test_full_speed_terminal_is_interrupted(world: World) -> None:
    """Ctrl-C ends a full-speed `yes` on a terminal."""
    client = world.start("yes", options=("-tt",), pty=True, stdin=None)
    await client.until(b"y\r\ny\r\n")
    client.write(b"\x03")
    result = await client.done
    assert result.code in (130, 255)


@pytest_twisted.ensureDeferred
async def test_certificate_without_pty(world: World) -> None:
    """A certificate without permit-pty gives commands but no terminal, and the log says why."""
    world.allow(ME, extensions=("permit-port-forwarding",))
    result = await world.ssh("tty", options=("-tt",), pty=True)
    assert b"PTY allocation request failed" in result.out
    assert world.logged("session.start", success=False)
    assert (await world.ssh("echo ok")).out == b"ok\n"


# --- other users -----------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_another_user(world: World, other_user: str) -> None:
    """Logging in as another user gives that user's ids and groups, and no way back to root."""
    world.allow(other_user)
    regain = (
        "import os\n"
        "for call, args in ((os.setuid, (0,)), (os.setgid, (0,)), (os.seteuid, (0,)), (os.setgroups, ([0],)),"
        " (os.setresuid, (0, 0, 0))):\n"
        "    try: call(*args); print('regained', call)\n"
        "    except PermissionError: pass\n"
        "print(os.getresuid(), os.getresgid())"
    )
    result = await world.ssh(f'id; pwd; umask; python3 -c "{regain}"; grep CapEff /proc/self/status', login=other_user)
    expected = subprocess.run(["id", other_user], capture_output=True, check=True).stdout
    entry = pwd.getpwnam(other_user)
    lines = result.out.splitlines()
    assert lines[0] + b"\n" == expected
    assert lines[1:3] == [entry.pw_dir.encode(), b"0022"]
    assert lines[3].decode() == f"{(entry.pw_uid,) * 3} {(entry.pw_gid,) * 3}"
    assert lines[4].split()[1] == b"0" * 16


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_terminal_belongs_to_the_user(world: World, other_user: str) -> None:
    """The terminal is the user's, for the group tty to write to, and for nobody else."""
    world.allow(other_user)
    result = await world.ssh("stat -c '%U %G %a' $(tty)", options=("-tt",), login=other_user, pty=True)
    assert result.out.splitlines()[0].decode() == f"{other_user} tty 620"


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_home_that_is_not_there(world: World, other_user: str) -> None:
    """Without a home directory there is a word about it, and a session in /."""
    subprocess.run(["usermod", "-d", "/nonexistent/home", other_user], check=True)
    world.allow(other_user)
    result = await world.ssh("pwd", login=other_user)
    assert result.out == b"/\n"
    assert b"Could not change to the home directory /nonexistent/home" in result.err


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_locked_shell(world: World, other_user: str) -> None:
    """An account with nologin as its shell gets what nologin says, as with sshd."""
    subprocess.run(["usermod", "-s", "/usr/sbin/nologin", other_user], check=True)
    world.allow(other_user)
    result = await world.ssh("id", login=other_user)
    assert result.code == 1
    assert b"uid=" not in result.out


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_shell_that_is_not_there(world: World, other_user: str) -> None:
    """An account whose shell is missing is refused with a sentence, not with silence."""
    subprocess.run(["usermod", "-s", "/bin/nothere", other_user], check=True, capture_output=True)
    world.allow(other_user)
    result = await world.ssh("id", login=other_user)
    assert result.code == 255
    assert b"/bin/nothere" in result.err


# --- ends and leaks --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_lost_connection_hangs_up(world: World) -> None:
    """When the connection breaks, the command and what it started in its group are hung up."""
    client = world.start("sleep 301 & echo $!; sleep 302 & echo $!; wait", stdin=None)
    await until(lambda: client.out.count(b"\n") == 2)
    pids = [int(pid) for pid in client.out.split()]
    client.kill()
    await client.done
    await until(lambda: not any(alive(pid) for pid in pids))
    await until(lambda: world.logged("session.end"))
    assert world.logged("session.end")[0]["error"] == "the connection was closed"


@pytest_twisted.ensureDeferred
async def test_lost_terminal_hangs_up(world: World) -> None:
    """When the connection of a terminal breaks, its programs are hung up and the terminal is gone."""
    client = world.start("tty; echo pid=$$.; sleep 303", options=("-tt",), pty=True, stdin=None)
    await client.until(b".\r\n")
    tty = Path(client.out.split()[0].decode())
    pid = int(found(rb"pid=(\d+)", client.out)[1])
    assert tty.exists()
    client.kill()
    await client.done
    await until(lambda: not alive(pid) and not tty.exists())


@pytest_twisted.ensureDeferred
async def test_nohup_survives(world: World) -> None:
    """`nohup` does what it is for."""
    client = world.start("nohup sh -c 'echo $$; exec sleep 304 >/dev/null 2>&1' & wait", stdin=None)
    await client.until(b"\n")
    pid = int(client.out)
    client.kill()
    await client.done
    await until(lambda: world.logged("session.end"))
    await task.deferLater(reactor, 0.3)
    assert alive(pid)
    os.kill(pid, 9)


def _inventory(world: World) -> tuple[int, int, int]:
    """Descriptors of the daemon and of the launcher, and the launcher's children."""
    launcher = world.node.parts.launcher.pid
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{launcher}/fd")), len(children)


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_after_many_sessions(world: World) -> None:
    """Fifty sessions with and without terminal, a third of them cut off: no process, descriptor or terminal stays."""
    await world.ssh("true")
    await until(lambda: not world.node.factory.connections)
    before = _inventory(world)
    for round in range(10):
        kinds = [world.start("sleep 0.01; echo x", stdin=None) for _ in range(2)]
        kinds += [world.start("echo x", options=("-tt",), pty=True, stdin=None)]
        cut = [world.start("echo go; sleep 305", stdin=None)]
        cut += [world.start("echo go; sleep 306", options=("-tt",), pty=True, stdin=None)]
        for client in cut:
            if round % 2:
                await client.until(b"go")
            client.kill()
            await client.done
        for client in kinds:
            assert (await client.done).code == 0
    await until(lambda: not world.node.factory.connections and not world.node.parts.live)
    await until(lambda: _inventory(world) == before)


@pytest_twisted.ensureDeferred
async def test_lost_launcher(world: World) -> None:
    """Should the launcher be killed, running sessions end with an error, and new ones work."""
    client = world.start("echo here; sleep 307", stdin=None)
    await client.until(b"here")
    pid = world.logged("session.start")[0]["pid"]
    launcher = world.node.parts.launcher.pid
    assert launcher is not None
    os.kill(launcher, 9)
    await until(lambda: world.node.parts.launcher.pid is None)
    with contextlib.suppress(ProcessLookupError):  # it was hung up, and PID 1 may have reaped it
        os.kill(pid, 9)
    assert (await client.done).code == 255
    assert (await world.ssh("echo again")).out == b"again\n"
