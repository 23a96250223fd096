"""As root with unprivileged logins: what one user tries against the others, root, and the node itself (issue 4)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import task

from teleconch.codec import string
from teleconch.errors import TeleconchError
from teleconch.node import process
from teleconch.node.start import LoginRules
from teleconch.service.log import format_line
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, RequestRefused
from tests.worlds.certificates import user_cert
from tests.worlds.checks import found
from tests.worlds.node import World, alive, running_node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply, until

pytestmark = [pytest.mark.root, pytest.mark.program("ssh", "useradd", "runuser")]


def as_user(user: str, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python of the user's, beside any session."""
    line = ["runuser", "-u", user, "--", "/usr/bin/python3", "-c", code, *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")


def own(user: str, path: Path) -> Path:
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    return path


class Session(Channel):
    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        self.said += data

    def closed(self) -> None:
        self.over = True


async def opened(connection: Connection) -> Session:
    session = Session()
    await connection.open(session)
    return session


# --- the launcher, which all sessions share --------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_client_that_is_gone_before_its_shell(world: World, other_user: str) -> None:
    """A user who asks for a shell on a terminal and is gone at once ends no other's session."""
    world.allow("root", other_user)
    victim = world.start("echo here; exec sleep 60", stdin=None)
    await victim.until(b"here")
    launcher = world.node.parts.launcher.pid
    assert launcher is not None
    os.kill(launcher, signal.SIGSTOP)  # it is busy: the start is read when the terminal is gone
    connection = await world.connect(other_user)
    session = await opened(connection)
    pty = string(b"xterm") + struct.pack(">4L", 80, 24, 0, 0) + string(b"")
    await reply(connection.sendRequest(session, b"pty-req", pty, wantReply=1))
    await reply(connection.sendRequest(session, b"shell", b"", wantReply=1))
    connection.transport.loseConnection()
    await until(lambda: len(world.node.parts.live) == 1)
    os.kill(launcher, signal.SIGCONT)
    assert (await world.ssh("echo next")).out == b"next\n"
    assert alive(launcher)
    assert not victim.done.called


NO_PROCESSES = """
import os, sys
sys.path.append(sys.argv[1])
from teleconch.node import launched
real = os.fork
def fork():
    if os.path.exists({flag!r}):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return real()
os.fork = fork
launched.main()
"""


@pytest_twisted.ensureDeferred
async def test_machine_full_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_user: str, utmp: None
) -> None:
    """While a user's processes leave no room for another one, sessions go on; hang-ups and logouts come later."""
    flag = tmp_path / "full"
    monkeypatch.setattr(process, "_CODE", NO_PROCESSES.format(flag=str(flag)))
    world = await running_node(tmp_path)
    world.allow("root", other_user)
    victim = world.start("echo here; exec sleep 60", stdin=None)
    await victim.until(b"here")
    theirs = world.start(options=("-tt",), login=other_user, pty=True, stdin=None)
    theirs.write(b"trap '' HUP; echo $((6*7)) $$.; sleep 61; echo\n")
    await theirs.until(b"42 ")
    pid = int(found(rb"42 (\d+)\.", theirs.out)[1])
    quiet = world.start("echo $$.; exec sleep 62 < /dev/null", login=other_user, stdin=None)
    await quiet.until(b".")
    flag.touch()
    assert b"no process or memory left" in (await world.ssh("echo in")).err
    for client in (theirs, quiet):
        client.kill()
        await client.done
    os.kill(pid, signal.SIGKILL)
    await task.deferLater(reactor, 0.3)
    assert not victim.done.called
    assert alive(int(quiet.out.rstrip(b".\n")))
    flag.unlink()
    await until(lambda: not alive(int(quiet.out.rstrip(b".\n"))))
    await until(lambda: other_user not in subprocess.run(["who"], capture_output=True, text=True).stdout)
    assert (await world.ssh("echo in")).out == b"in\n"
    assert not victim.done.called
    await world.close()


@pytest_twisted.ensureDeferred
async def test_launcher_that_is_started_again(world: World, other_user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that had to be started again gives sessions the machine's limit of files, not the daemon's."""
    world.allow(other_user)
    before = (await world.ssh("ulimit -Sn", login=other_user)).out
    soft, hard = 600, min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1)
    monkeypatch.setattr(world.node.parts.launcher, "_files", (soft, hard))  # as it was when the daemon raised its own
    os.kill(world.node.parts.launcher.pid or 0, signal.SIGKILL)
    await until(lambda: world.node.parts.launcher.pid is None)
    after = await world.ssh("ulimit -Sn; ulimit -Hn", login=other_user)
    assert int(before) != soft
    assert after.out.decode() == f"{soft}\n{hard}\n"


@pytest.fixture
def utmp() -> Iterator[None]:
    """A file of who is logged in, where the machine has none."""
    path = Path("/run/utmp")
    made = not path.exists()
    if made:
        path.touch(0o664)
    yield
    if made:
        path.unlink(missing_ok=True)


@pytest_twisted.ensureDeferred
async def test_records_that_a_user_has_locked(tmp_path: Path, other_user: str, utmp: None) -> None:
    """A user who holds a lock on utmp, which anyone can, does not keep the node from stopping in time."""
    world = await running_node(tmp_path)
    world.allow(other_user)
    clients = [world.start(options=("-tt",), login=other_user, pty=True, stdin=None) for _ in range(3)]
    for client in clients:
        client.write(b"trap '' HUP; echo $((6*7))_; sleep 60; sleep 60\n")
        await client.until(b"42_")
    code = "import fcntl, struct, time; f = open('/run/utmp', 'rb')\n"
    code += "fcntl.lockf(f, fcntl.LOCK_SH); print('held', flush=True); time.sleep(100)"
    holder = as_user(other_user, code)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    began = time.monotonic()
    await world.close()
    assert time.monotonic() - began < 5
    subprocess.run(["pkill", "-KILL", "-u", other_user], check=False)
    holder.communicate()
    await until(lambda: other_user not in subprocess.run(["who"], capture_output=True, text=True).stdout)


@pytest_twisted.ensureDeferred
async def test_signals_without_end(world: World, other_user: str) -> None:
    """A client that sends signals faster than they can be delivered fills no queue, and others' sessions start."""
    world.allow("root", other_user)
    connection = await world.connect(other_user)
    session = await opened(connection)
    await reply(connection.sendRequest(session, b"exec", string(b"trap '' USR1; echo on; sleep 60"), wantReply=1))
    await until(lambda: session.said)
    launcher = world.node.parts.launcher
    os.kill(launcher.pid or 0, signal.SIGSTOP)
    try:
        for _ in range(3000):
            connection.sendRequest(session, b"signal", string(b"USR1"))
        await task.deferLater(reactor, 0.5)
        assert len(launcher._outgoing) < 10
    finally:
        os.kill(launcher.pid or 0, signal.SIGCONT)
    assert (await world.ssh("echo in")).out == b"in\n"
    connection.close()
    await connection.disconnected


# --- what a session's processes are ----------------------------------------------------------------------------------

STATUS = "grep -E '^(Cap...|NoNewPrivs|Seccomp|Groups|Uid|Gid):' /proc/self/status"


@pytest_twisted.ensureDeferred
async def test_rights_of_a_session(world: World, other_user: str) -> None:
    """A session has its user's ids and groups, no capability, and may run set-user-ID programs, as with sshd."""
    world.allow(other_user)
    result = await world.ssh(STATUS, login=other_user)
    found = {name.decode(): value.split() for name, _, value in (x.partition(b":") for x in result.out.splitlines())}
    entry = pwd.getpwnam(other_user)
    groups = os.getgrouplist(other_user, entry.pw_gid)
    assert found.pop("Uid") == [b"%d" % entry.pw_uid] * 4
    assert found.pop("Gid") == [b"%d" % entry.pw_gid] * 4
    assert set(map(int, found.pop("Groups"))) == set(groups)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(found[name][0], 16) == 0, name
    assert found["NoNewPrivs"] == [b"0"]
    program = Path("/tmp") / f"{other_user}-id"
    try:
        subprocess.run(["cp", "/usr/bin/id", str(program)], check=True)
        program.chmod(0o4755)
        assert b"euid=0(root)" in (await world.ssh(str(program), login=other_user)).out
    finally:
        program.unlink()


KEYRINGS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def keyctl(*a): return libc.syscall(250, *a)
name = sys.argv[1].encode()
if sys.argv[2] == "add":
    print(libc.syscall(248, b"user", name, b"secret", 6, -3) > 0)
else:
    print(keyctl(10, -3, b"user", name, 0) > 0)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls the kernel by number")
@pytest_twisted.ensureDeferred
async def test_keyrings(tmp_path: Path, other_user: str) -> None:
    """Keys that the daemon was started with, or that another session keeps, are not in reach of a session."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(250, 1, None)  # the daemon's own session keyring
    name = f"teleconch-{secrets.token_hex(4)}"
    if libc.syscall(248, b"user", name.encode(), b"daemon", 6, -3) < 0:
        pytest.skip("no keyrings here")
    assert libc.syscall(250, 5, libc.syscall(250, 10, -3, b"user", name.encode(), 0), 0x3F3F3F3F) == 0
    world = await running_node(tmp_path)
    world.allow("root", other_user)
    script = tmp_path / "keys.py"
    script.write_text(KEYRINGS)
    tmp_path.chmod(0o755)

    async def run(what: str, which: str, login: str) -> bytes:
        return (await world.ssh("python3", "-", which, what, login=login, stdin=KEYRINGS.encode())).out

    assert await run("find", name, other_user) == b"False\n"
    assert await run("add", name + "s", other_user) == b"True\n"
    assert await run("find", name + "s", "root") == b"False\n"
    await world.close()


@pytest_twisted.ensureDeferred
async def test_all_of_a_users_processes_killed(tmp_path: Path, other_user: str) -> None:
    """`kill -9 -1` ends what is the user's; the node, its PAM sessions and the others' sessions go on."""
    world = await running_node(tmp_path, rules=LoginRules(pam_service="sshd"))
    world.allow("root", other_user)
    victim = world.start("echo here; exec sleep 60", stdin=None)
    await victim.until(b"here")
    launcher = world.node.parts.launcher.pid
    forward = world.start(
        "echo ready; exec sleep 61", options=("-R", f"/tmp/{other_user}.s:127.0.0.1:1"), login=other_user, stdin=None
    )
    await forward.until(b"ready")
    for _ in range(3):
        await world.ssh("kill -9 -1; sleep 30 & kill -9 -1 $$", login=other_user)
    await forward.done
    assert (await world.ssh("echo in", login=other_user)).out == b"in\n"
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    await until(lambda: len(children.read_text().split()) == 1)
    assert not victim.done.called
    assert world.node.parts.launcher.pid == launcher
    await world.close()
    Path(f"/tmp/{other_user}.s").unlink(missing_ok=True)


@pytest_twisted.ensureDeferred
async def test_uid_0_by_another_name(world: World) -> None:
    """A second account with root's id is let in by its own name only, with its own home, as root."""
    name = f"toor{secrets.token_hex(3)}"
    subprocess.run(["useradd", "-o", "-u", "0", "-m", "-s", "/bin/sh", name], check=True)
    try:
        world.allow(name)
        result = await world.ssh("id -u; echo $USER $HOME; pwd", login=name)
        assert result.out.decode() == f"0\n{name} /home/{name}\n/home/{name}\n"
        assert (await world.ssh("id", login="root")).code == 255
        world.allow("root")
        assert (await world.ssh("id", login=name)).code == 255
    finally:
        # userdel would look for the processes of uid 0
        subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", f"/home/{name}", f"/var/mail/{name}"], check=True)


@pytest_twisted.ensureDeferred
async def test_one_uid_two_names(world: World, other_user: str) -> None:
    """Of two accounts with one id, each gets its own groups, name and home."""
    name = f"tw{secrets.token_hex(3)}"
    uid = pwd.getpwnam(other_user).pw_uid
    subprocess.run(["useradd", "-o", "-u", str(uid), "-m", "-s", "/bin/sh", name], check=True)
    try:
        world.allow(name)
        result = await world.ssh("echo $USER; pwd; id -G", login=name)
        user, home, groups = result.out.decode().splitlines()
        assert (user, home) == (name, f"/home/{name}")
        assert set(map(int, groups.split())) == set(os.getgrouplist(name, pwd.getpwnam(name).pw_gid))
    finally:
        subprocess.run(["userdel", "-f", "-r", name], check=False, capture_output=True)


# --- names and other words of strangers ------------------------------------------------------------------------------

ODD = [b"root\n", b"root\0", b"-", b"", b"0", b"ROOT", b"../root", b"ro/ot", b" root", b"root,x", b"*", b"\xff",
       b"r" * 10_000, b"\x1b[2Jroot", "\u202eroot".encode(), b"-oProxyCommand=x"]  # fmt: skip


class Bytes(str):
    """A login that goes out as it is."""

    def __new__(cls, raw: bytes) -> Bytes:
        self = super().__new__(cls, raw.decode("latin-1"))
        self.raw = raw
        return self

    raw: bytes

    def encode(self, *how: str) -> bytes:
        return self.raw


@pytest.mark.program("ssh-keygen")
@pytest.mark.parametrize("login", ODD)
@pytest_twisted.ensureDeferred
async def test_odd_logins(world: World, login: bytes) -> None:
    """An odd login opens nothing, even where a certificate names it, and is one line of plain text in the log."""
    signer = world.path / "ca"
    signer.touch(0o600)
    signer.write_text(world.authorities.user.ssh_private_key.reveal())
    world.key()
    principal = login.decode("latin-1") if 0 < len(login) < 1000 and b"\0" not in login else "x"
    line = ["ssh-keygen", "-q", "-s", str(signer), "-I", "alice", "-n", principal.replace(",", "\\,"), "-V", "-1m:+10m"]
    subprocess.run([*line, str(world.path / "key.pub")], check=True, capture_output=True)
    named = (world.path / "key-cert.pub").read_text()
    world.allow("root")
    for certificate in (named, (world.path / "key-cert.pub").read_text()):
        try:
            connection = await world.connect(Bytes(login), certificate)
        except TeleconchError:
            continue
        session = await opened(connection)  # a name as good as any, of which the machine knows nothing
        await reply(connection.sendRequest(session, b"exec", string(b"id"), wantReply=1))
        await until(lambda session=session: session.over)  # type: ignore[misc]
        assert session.said == b""
        connection.close()
        await connection.disconnected
    assert not world.logged("session.start", success=True)
    ended = [event for event in world.events if "connection ended" in event.get("log_format", "")]
    assert ended or [event for event in world.events if event.get("success") is False]
    for event in world.events:
        written = format_line(event)
        assert written.endswith("\n")
        assert written[:-1].isprintable()
        assert len(written) < 8000


@pytest_twisted.ensureDeferred
async def test_words_for_the_log(world: World, other_user: str) -> None:
    """Whatever a user puts into commands, paths, requests and the goodbye, the log stays lines of plain text."""
    world.allow(other_user)
    evil = b"x\nroot logged in\r\x1b]0;t\x07\x1b[2J\xe2\x80\xae\xff\x9b1m"
    connection = await world.connect(other_user)
    for name, data in (
        (b"exec", string(b"true " + evil)),
        (b"subsystem", string(evil)),
        (b"env", string(evil) + string(evil)),
        (b"pty-req", string(evil) + struct.pack(">4L", 1, 1, 0, 0) + string(evil)),
        (evil[:20], evil),
        (b"x11-req", b"\0" + string(evil) + string(evil) + b"\0\0\0\0"),
    ):
        session = await opened(connection)
        with contextlib.suppress(RequestRefused):
            await reply(connection.sendRequest(session, name, data, wantReply=1))
        session.loseConnection()
    for kind, data in (
        (evil, b""),
        (b"direct-tcpip", string(evil) + struct.pack(">L", 1) + string(evil) + struct.pack(">L", 1)),
        (b"direct-streamlocal@openssh.com", string(b"/tmp/" + evil) + string(evil) + struct.pack(">L", 1)),
    ):
        channel = Channel()
        channel.name = kind
        with pytest.raises(ChannelRefused):
            await connection.open(channel, data)
    for name, data in (
        (b"tcpip-forward", string(evil) + struct.pack(">L", 0)),
        (b"streamlocal-forward@openssh.com", string(b"/nonexistent/" + evil)),
        (evil, evil),
    ):
        with contextlib.suppress(RequestRefused):
            await reply(connection.sendGlobalRequest(name, data, wantReply=1))
    connection.transport.sendDisconnect(11, evil)
    await connection.disconnected
    await until(lambda: not world.node.parts.users)
    lines = [format_line(event) for event in world.events]
    assert len(lines) > 10
    for line in lines:
        assert line[:-1].isprintable(), line
        assert not line.startswith("root")


# --- files and folders of the user's ---------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_home_that_changes_during_the_login(tmp_path: Path, other_user: str) -> None:
    """Whoever swaps the home for a link to root's during logins sees nothing of root's, and changes nothing there."""
    world = await running_node(tmp_path, rules=LoginRules(user_environment=True))
    world.allow(other_user)
    homes = Path(f"/home/{other_user}.d")
    roots = Path(f"/root/{other_user}.d")
    homes.mkdir(mode=0o755)
    own(other_user, homes)
    (roots / ".tsh").mkdir(parents=True)
    roots.chmod(0o700)
    (roots / ".tsh/environment").write_text("STOLEN=1\n")
    (roots / ".hushlogin").touch()
    before = sorted(str(path) for path in roots.rglob("*"))
    subprocess.run(["usermod", "-d", str(homes / "home"), other_user], check=True)
    swap = (
        "import os, sys, itertools\n"
        "home, root = sys.argv[1], sys.argv[2]\n"
        "os.makedirs(home + '1/.tsh'); open(home + '1/.tsh/environment', 'w').write('MINE=1\\n')\n"
        "os.symlink(root, home + '2')\n"
        "print('on', flush=True)\n"
        "for n in itertools.count():\n"
        "    which = home + str(n % 2 + 1)\n"
        "    os.rename(which, home); os.rename(home, which)\n"
        "    e = home + '1/.tsh/'\n"
        "    os.rename(e + 'environment', e + 'x')\n"
        "    (os.mkfifo, lambda p: os.symlink(root + '/.tsh/environment', p))[n % 2](e + 'environment')\n"
        "    os.rename(e + 'x', e + 'environment')\n"
    )
    attacker = as_user(other_user, swap, str(homes / "home"), str(roots))
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"on\n"
        for n in range(24):
            result = await world.ssh(
                "env; pwd; ls -la ~ 2>&1; touch ~/written 2>/dev/null; true",
                login=other_user,
                options=("-tt",) if n % 3 == 0 else (),
                pty=n % 3 == 0,
            )
            assert b"STOLEN" not in result.out + result.err
            assert other_user.encode() in result.out
        assert attacker.poll() is None, attacker.stderr and attacker.stderr.read()
        assert sorted(str(path) for path in roots.rglob("*")) == before
    finally:
        subprocess.run(["pkill", "-KILL", "-u", other_user], check=False)
        attacker.communicate()
        await world.close()
        subprocess.run(["rm", "-rf", str(homes), str(roots)], check=True)


@pytest_twisted.ensureDeferred
async def test_records_are_roots_to_write(world: World, other_user: str, utmp: None) -> None:
    """A login makes no file at a path that a user could point elsewhere: lastlog as a link is not followed."""
    world.allow(other_user)
    lastlog, kept = Path("/var/log/lastlog"), Path(f"/var/log/lastlog.{other_user}")
    victim = world.path / "victim"
    victim.write_bytes(b"")
    lastlog.rename(kept)
    try:
        lastlog.symlink_to(victim)
        client = world.start(options=("-tt",), login=other_user, pty=True, stdin=None)
        client.write(b"echo $((6*7))_; exit\n")
        assert b"42_" in (await client.done).out
        assert victim.read_bytes() == b""
    finally:
        kept.rename(lastlog)


# --- LD_PRELOAD and its like -----------------------------------------------------------------------------------------

# Without headers and start files: a compiler is enough.
PRELOAD = r"""
int open(const char *, int, ...), getuid(void), geteuid(void), snprintf(char *, unsigned long, const char *, ...);
long readlink(const char *, char *, unsigned long), write(int, const void *, unsigned long);
__attribute__((constructor)) static void loaded(void) {
    char line[200], exe[100] = {0};
    int fd = open(WITNESS, 02001);
    if (readlink("/proc/self/exe", exe, 99) < 0) exe[0] = 0;
    int size = snprintf(line, sizeof line, "%d %d %s\n", getuid(), geteuid(), exe);
    if (fd >= 0 && write(fd, line, size) < 0) exe[0] = 0;
}
"""
ROADS = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GCONV_PATH", "LOCPATH", "NLSPATH", "MALLOC_TRACE",
         "GLIBC_TUNABLES", "HOSTALIASES", "RES_OPTIONS", "RESOLV_HOST_CONF", "LOCALDOMAIN", "TZDIR", "GETCONF_DIR",
         "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PERL5LIB", "RUBYOPT", "NODE_OPTIONS", "BASH_ENV", "ENV", "IFS",
         "SHELLOPTS", "BASHOPTS", "PS4", "ZDOTDIR", "SSH_AUTH_SOCK", "SSH_USER_AUTH", "DYLD_INSERT_LIBRARIES",
         "ld_preload", "Ld_Preload")  # fmt: skip


@pytest.fixture
def trap(other_user: str) -> Iterator[tuple[Path, Path]]:
    """A library, and the file to which it tells who has loaded it."""
    folder = Path("/tmp") / f"{other_user}.d"
    folder.mkdir(mode=0o755)
    witness, library = folder / "witness", folder / "evil.so"
    witness.touch()
    witness.chmod(0o666)
    (folder / "evil.c").write_text(PRELOAD)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-nostdlib", f'-DWITNESS="{witness}"', "-o", str(library), str(folder / "evil.c")],
        check=True,
    )
    yield library, witness
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.program("cc", "sudo", "xauth")
@pytest_twisted.ensureDeferred
async def test_preloading(tmp_path: Path, other_user: str, trap: tuple[Path, Path]) -> None:
    """A library that a user wants loaded, by env requests or his own file, is loaded by nothing at all, as the node
    takes none of the variables for it."""
    library, witness = trap
    sudoers = Path("/etc/sudoers.d") / other_user
    rules = LoginRules(user_environment=True)
    world = await running_node(tmp_path, rules=rules, accept_env=("*", "LD_*"))
    world.allow(other_user)
    folder = Path(pwd.getpwnam(other_user).pw_dir, ".tsh")
    folder.mkdir()
    own(other_user, folder)
    (folder / "environment").write_text("".join(f"{name}={library}\n" for name in ROADS))
    own(other_user, folder / "environment")
    try:
        sudoers.write_text(f"{other_user} ALL=(ALL) NOPASSWD: ALL\n")
        connection = await world.connect(other_user)
        for on_terminal in (False, True):
            session = await opened(connection)
            for name in ROADS:
                body = string(name.encode()) + string(str(library).encode())
                connection.sendRequest(session, b"env", body)
            if on_terminal:
                pty = string(b"xterm") + struct.pack(">4L", 80, 24, 0, 0) + string(b"")
                await reply(connection.sendRequest(session, b"pty-req", pty, wantReply=1))
            command = b"env; sudo -n id; passwd -S; su -c id < /dev/null; id; echo all; exit"
            await reply(connection.sendRequest(session, b"exec", string(command), wantReply=1))
            await until(lambda session=session: session.over)  # type: ignore[misc]
            assert b"all" in session.said
            assert b"uid=0(root)" in session.said, "sudo did its part"
            assert str(library).encode() not in session.said
        for options in (("-Y",), ("-A",), ("-R", f"/tmp/{other_user}.s:127.0.0.1:1")):
            await world.ssh("true", options=options, login=other_user)
        connection.close()
        await connection.disconnected
        assert witness.read_text() == ""
        # The trap works: where the user sets it himself, his own programs load it, and sudo does not.
        await world.ssh(f"LD_PRELOAD={library} sudo -n id; LD_PRELOAD={library} id", login=other_user)
        uid = pwd.getpwnam(other_user).pw_uid
        assert witness.read_text().splitlines() == [f"{uid} {uid} /usr/bin/id"]
    finally:
        sudoers.unlink(missing_ok=True)
        await world.close()


@pytest.mark.program("cc")
@pytest_twisted.ensureDeferred
async def test_preloading_through_pam(tmp_path: Path, other_user: str, trap: tuple[Path, Path]) -> None:
    """A library in ~/.pam_environment, which some stacks read, is not loaded by what PAM runs as root at the end."""
    library, witness = trap
    service = Path("/etc/pam.d", f"teleconch-test-{secrets.token_hex(4)}")
    ran = tmp_path / "ran"
    service.write_text(
        "auth required pam_deny.so\naccount required pam_permit.so\n"
        f"session required pam_exec.so quiet log={ran} /usr/bin/env\n"
        "session required pam_env.so user_readenv=1 conffile=/dev/null\n"
    )
    home = Path(pwd.getpwnam(other_user).pw_dir)
    (home / ".pam_environment").write_text(f"LD_PRELOAD={library}\nMINE=yes\n")
    own(other_user, home / ".pam_environment")
    world = await running_node(tmp_path, rules=LoginRules(pam_service=service.name))
    world.allow(other_user)
    try:
        result = await world.ssh("echo $MINE", login=other_user)
        assert result.out == b"yes\n", "the stack reads that file"
        await until(lambda: ran.exists() and "close_session" in ran.read_text())
        await until(lambda: "MINE=yes" in ran.read_text())
        assert not [line for line in witness.read_text().splitlines() if line.split()[0] == "0"]
    finally:
        await world.close()
        service.unlink()


# --- what all users share --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_descriptors_of_one_user(world: World) -> None:
    """A user who opens as much as he is given leaves enough for the others, and gets more when he closes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = [await world.connect() for _ in range(3)]
    sessions: list[Session] = []
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1  # by this process, and what other tests have left in it
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * used + 200, hard))
    try:
        refused = None
        for connection in connections * (used + 40):
            session = Session()
            try:
                await connection.open(session)
            except ChannelRefused as error:
                refused = error
                break
            sessions.append(session)
            await reply(connection.sendRequest(session, b"exec", string(b"echo on; exec sleep 60"), wantReply=1))
            await until(lambda session=session: session.said)  # type: ignore[misc]
        assert refused is not None
        assert refused.code == 4  # SSH_OPEN_RESOURCE_SHORTAGE
        assert len(sessions) > 10
        assert len(os.listdir("/proc/self/fd")) < 2 * used + 100
        with pytest.raises(RequestRefused):
            await reply(
                connections[0].sendGlobalRequest(b"tcpip-forward", string(b"") + struct.pack(">L", 0), wantReply=1)
            )
        with pytest.raises(TeleconchError):
            await world.connect()
        other = user_cert(world.authorities.user, world.public(), user="bob")
        connections.append(await world.connect(certificate=other))
        for _ in range(3):
            session = await opened(connections[-1])
            await reply(connections[-1].sendRequest(session, b"exec", string(b"echo in"), wantReply=1))
            await until(lambda session=session: session.over)  # type: ignore[misc]
            assert session.said == b"in\n"
        for session in sessions:
            session.loseConnection()
        await until(lambda: not world.node.parts.live)
        session = await opened(connections[0])
        await reply(connections[0].sendRequest(session, b"exec", string(b"echo again"), wantReply=1))
        await until(lambda: session.over)
        assert session.said == b"again\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for connection in connections:
        connection.close()
        await connection.disconnected


# --- time ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_channel_kept_for_later(tmp_path: Path) -> None:
    """A session that was opened, but not begun, before the certificate ended cannot be begun afterwards."""
    now = [time.time()]
    world = await running_node(tmp_path, now=lambda: now[0])
    connection = await world.connect()
    early, late = await opened(connection), await opened(connection)
    await reply(connection.sendRequest(early, b"exec", string(b"echo in"), wantReply=1))
    await until(lambda: early.over)
    assert early.said == b"in\n"
    now[0] += 7200
    with pytest.raises(RequestRefused):
        await reply(connection.sendRequest(late, b"exec", string(b"echo in"), wantReply=1))
    assert late.said == b""
    assert "expired" in world.logged("session.start", success=False)[-1]["error"]
    connection.close()
    await connection.disconnected
    await world.close()
