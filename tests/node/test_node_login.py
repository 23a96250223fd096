"""What surrounds a login: who may enter, the greeting, records, the user's own variables, and PAM in a real stack."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import task

from teleconch.errors import BadParameter
from teleconch.node.launch import variables
from teleconch.node.start import LoginRules
from tests.worlds.checks import found
from tests.worlds.node import Client, World, alive, running_node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

pytestmark = [pytest.mark.program("ssh"), pytest.mark.root]

UTMP = Path("/run/utmp")
LASTLOG, LASTLOG_SIZE = Path("/var/log/lastlog"), 292


def _shell(world: World, login: str = "root") -> Client:
    """An interactive login."""
    return world.start(options=("-tt",), login=login, pty=True, stdin=None)


async def _left(client: Client, *lines: str) -> str:
    """What an interactive login shows from its start to the end, after typing ``lines`` and exit."""
    client.write("".join(f"{line}\n" for line in (*lines, "exit")).encode())
    return (await client.done).out.decode().replace("\r", "")


def _who() -> str:
    """Asked for the file: without, it asks logind where there is one, which knows PAM's sessions only."""
    return subprocess.run(["who", UTMP], capture_output=True, text=True, check=True).stdout


def _last(login: str) -> str:
    return subprocess.run(["last", "-w", login], capture_output=True, text=True, check=True).stdout


def _forget(login: str) -> None:
    """Nobody with this user ID was ever here; Debian 13's useradd leaves what its last owner did."""
    if LASTLOG.exists():
        with LASTLOG.open("r+b") as file:
            file.seek(pwd.getpwnam(login).pw_uid * LASTLOG_SIZE)
            file.write(bytes(LASTLOG_SIZE))


@pytest.fixture
def utmp() -> Iterator[None]:
    """A file of who is logged in, where the machine has none."""
    made = not UTMP.exists()
    if made:
        UTMP.touch(0o664)
    yield
    if made:
        UTMP.unlink()


# --- who may enter ---------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nologin(world: World, other_user: str) -> None:
    """While /etc/nologin is there, users read its text and do not get in; root does."""
    world.allow("root", other_user)
    file = Path("/etc/nologin")
    file.write_text("Down for repair,\nback at noon.\n")
    try:
        user = await world.ssh("id", login=other_user)
        root = await world.ssh("echo in")
    finally:
        file.unlink()
    assert (user.out, user.code) == (b"", 255)
    assert b"Down for repair,\nback at noon." in user.err
    assert root.out == b"in\n"


@pytest_twisted.ensureDeferred
async def test_expired_account(world: World, other_user: str) -> None:
    """An account whose last day is over is refused; one whose last day is today is not."""
    world.allow(other_user)
    today = int(time.time() // 86400)
    subprocess.run(["chage", "-E", str(today), other_user], check=True)
    assert (await world.ssh("echo in", login=other_user)).out == b"in\n"
    subprocess.run(["chage", "-E", str(today - 1), other_user], check=True)
    result = await world.ssh("id", login=other_user)
    assert (result.out, result.code) == (b"", 255)
    assert b"has expired" in result.err
    assert world.logged("session.start", success=False, login=other_user)


@pytest_twisted.ensureDeferred
async def test_expired_password_is_no_obstacle(world: World, other_user: str) -> None:
    """A password that would have to be changed does not keep out who never types one, as with sshd without PAM."""
    world.allow(other_user)
    subprocess.run(["chage", "-d", "0", other_user], check=True)
    assert (await world.ssh("echo in", login=other_user)).out == b"in\n"


# --- greeting and records --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_greeting(world: World, other_user: str, utmp: None) -> None:
    """A login shows the last one and the message of the day; a command, or ~/.hushlogin, shows neither."""
    world.allow(other_user)
    _forget(other_user)
    motd = Path("/etc/motd").read_text() if Path("/etc/motd").exists() else ""
    first = await _left(_shell(world, other_user))
    assert "Last login" not in first
    assert motd in first
    second = await _left(_shell(world, other_user))
    assert re.search(r"Last login: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} from 127\.0\.0\.1\n", second)
    assert "Last login" not in (await world.ssh("true", options=("-tt",), login=other_user, pty=True)).out.decode()
    Path(pwd.getpwnam(other_user).pw_dir, ".hushlogin").touch()
    third = await _left(_shell(world, other_user))
    assert "Last login" not in third
    assert not motd or motd not in third


@pytest_twisted.ensureDeferred
async def test_who_and_last(world: World, other_user: str, utmp: None) -> None:
    """`who` lists a login while it lasts, and `last` keeps it; a connection that breaks is a logout too."""
    world.allow(other_user)
    for cut in (False, True):
        client = _shell(world, other_user)
        client.write(b"echo $((41+1))_; tty\n")
        await client.until(b"42_")
        await until(lambda: f"{other_user} " in _who())
        if cut:
            client.kill()
            await client.done
        else:
            await _left(client)
        await until(lambda: other_user not in _who())
        await until(lambda: re.search(rf"^{other_user}\s+pts/\d+\s+127\.0\.0\.1 .* - ", _last(other_user)))
        assert "still" not in _last(other_user)
        assert "gone" not in _last(other_user)
    await world.ssh("true", login=other_user)
    assert _last(other_user).count(f"{other_user} ") == 2, "commands are no logins"


# --- the user's own variables ----------------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def generous(tmp_path: Path) -> AsyncIterator[World]:
    """A node that reads ~/.tsh/environment and lets clients set GIT_* and LD_*."""
    world = await running_node(tmp_path, rules=LoginRules(user_environment=True), accept_env=("GIT_*", "LD_*", "*"))
    yield world
    await world.close()


def _own_file(login: str, text: str) -> Path:
    entry = pwd.getpwnam(login)
    folder = Path(entry.pw_dir, ".tsh")
    folder.mkdir(exist_ok=True)
    file = folder / "environment"
    file.write_text(text)
    for each in (folder, file):
        os.chown(each, entry.pw_uid, entry.pw_gid)
    return file


@pytest_twisted.ensureDeferred
async def test_own_variables(generous: World, other_user: str) -> None:
    """~/.tsh/environment sets variables, but none that changes how programs load or who the user seems to be."""
    generous.allow(other_user)
    bad = ("LD_PRELOAD", "ld_preload", "PYTHONPATH", "BASH_ENV", "IFS", "HOME", "USER", "SSH_TELEPORT_USER")
    _own_file(other_user, "# mine\nFOO=a b=c\n\nEDITOR=vi\nno line\n" + "".join(f"{name}=/evil\n" for name in bad))
    result = await generous.ssh("exec env", login=other_user)
    found = dict(line.split("=", 1) for line in result.out.decode().splitlines())
    assert (found["FOO"], found["EDITOR"], found["USER"]) == ("a b=c", "vi", other_user)
    assert "/evil" not in result.out.decode()
    assert b"line 5: this is not NAME=value" in result.err


@pytest_twisted.ensureDeferred
async def test_own_variables_are_off_unless_turned_on(world: World, other_user: str) -> None:
    """Without permit_user_env the file is not read."""
    world.allow(other_user)
    _own_file(other_user, "FOO=x\n")
    assert b"FOO" not in (await world.ssh("exec env", login=other_user)).out


@pytest_twisted.ensureDeferred
async def test_own_variables_open_nothing_of_others(generous: World, other_user: str) -> None:
    """A link to a file that only root may read shows nothing of it, and a FIFO does not hold up the login."""
    generous.allow(other_user)
    secret = generous.path / "secret"
    secret.write_text("STOLEN=yes\n")
    secret.chmod(0o600)
    file = _own_file(other_user, "")
    file.unlink()
    file.symlink_to(secret)
    assert b"STOLEN" not in (await generous.ssh("exec env", login=other_user)).out
    file.unlink()
    os.mkfifo(file)
    os.chmod(file, 0o666)
    assert (await generous.ssh("echo in", login=other_user)).out == b"in\n"


@pytest_twisted.ensureDeferred
async def test_clients_variables_by_configuration(generous: World) -> None:
    """accept_env lets further variables in, and can never let in LD_PRELOAD and its like."""
    names = ("GIT_AUTHOR_NAME", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV", "IFS", "SSH_TTY", "HOME")
    setting = "SetEnv=" + " ".join(f"{name}=/from-client" for name in names)
    result = await generous.ssh("exec env", options=("-o", setting))
    assert re.findall(rb"^(\w+)=/from-client", result.out, re.MULTILINE) == [b"GIT_AUTHOR_NAME"]


@given(st.binary(max_size=300))
def test_any_file_of_variables(whole: bytes) -> None:
    """Whatever a user writes there, what comes out can be an environment."""
    found, words = variables.parse(whole)
    assert len(words) <= 5
    for name, value in found.items():
        assert variables.settable(name.decode())
        assert b"\0" not in value
        assert b"\n" not in value


# --- PAM -------------------------------------------------------------------------------------------------------------


class Stack:
    """A PAM service made for the test; ``log`` gets a line for each opening and closing of a session."""

    def __init__(self, path: Path) -> None:
        self.service = f"teleconch-test-{secrets.token_hex(4)}"
        self.file = Path("/etc/pam.d", self.service)
        self.path = path
        self.log = path / "pam.log"
        self.limits = path / "limits.conf"
        self.limits.write_text("* hard nofile 321\n")
        self.variables = path / "pam.env"
        self.variables.write_text("FROM_PAM=yes\nLANG=C.UTF-8\n")
        script = path / "hook"
        script.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_TTY $(id -u)" >> {self.log}\n')
        script.chmod(0o755)
        self.write()

    def write(self, account: str = "account required pam_permit.so") -> None:
        self.file.write_text(
            f"auth required pam_deny.so\n{account}\n"
            f"session required pam_limits.so conf={self.limits}\n"
            f"session required pam_env.so envfile={self.variables} conffile=/dev/null\n"
            "session optional pam_umask.so nousergroups umask=0027\n"
            f"session required pam_exec.so quiet {self.path}/hook\n"
            f"session optional pam_echo.so PAM greets %u\n"
        )

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.file.unlink()


@pytest_twisted.async_yield_fixture
async def pam(tmp_path: Path, stack: Stack) -> AsyncIterator[World]:
    """A node with PAM."""
    world = await running_node(tmp_path, rules=LoginRules(pam_service=stack.service))
    yield world
    await world.close()


@pytest_twisted.ensureDeferred
async def test_pam_surrounds_the_process(pam: World, stack: Stack, other_user: str) -> None:
    """Limits, umask and variables of the stack hold in the session, which is opened and closed as root around it."""
    pam.allow(other_user)
    result = await pam.ssh("ulimit -Hn; umask; echo $FROM_PAM; id -un; exit 7", login=other_user)
    assert (result.out.split(), result.code) == ([b"321", b"0027", b"yes", other_user.encode()], 7)
    await until(lambda: len(stack.lines()) == 2)
    assert stack.lines() == [f"{kind}_session {other_user} 127.0.0.1 ssh 0" for kind in ("open", "close")]


@pytest_twisted.ensureDeferred
async def test_pam_on_a_terminal(pam: World, stack: Stack, other_user: str) -> None:
    """Modules know the terminal, and what they say greets the user; Ctrl-C and the exit status work as without PAM."""
    pam.allow(other_user)
    client = _shell(pam, other_user)
    client.write(b"sleep 1000\n")
    await client.until(b"sleep 1000")
    await task.deferLater(reactor, 0.3)
    client.write(b"\x03")
    shown = await _left(client, "echo after=$?")
    assert "after=130" in shown
    assert f"PAM greets {other_user}" in shown
    await until(lambda: len(stack.lines()) == 2)
    assert re.fullmatch(rf"open_session {other_user} 127\.0\.0\.1 /dev/pts/\d+ 0", stack.lines()[0])


@pytest_twisted.ensureDeferred
async def test_pam_account_refuses(pam: World, stack: Stack, other_user: str) -> None:
    """An account that the stack does not let in gets a sentence and no session; others get in."""
    stack.write(f"account required pam_succeed_if.so quiet user != {other_user}")
    pam.allow("root", other_user)
    refused = await pam.ssh("echo in", login=other_user)
    assert (refused.out, refused.code) == (b"", 255)
    assert b"PAM (account" in refused.err
    assert (await pam.ssh("echo in")).out == b"in\n"
    assert other_user not in "".join(stack.lines())


@pytest_twisted.ensureDeferred
async def test_pam_access(pam: World, stack: Stack, other_user: str) -> None:
    """pam_access decides by user and origin, so it is told the right origin."""
    rules = pam.path / "access.conf"
    stack.write(f"account required pam_access.so accessfile={rules}")
    pam.allow(other_user)
    rules.write_text(f"+:{other_user}:127.0.0.1\n-:ALL:ALL\n")
    assert (await pam.ssh("echo in", login=other_user)).out == b"in\n"
    rules.write_text(f"-:{other_user}:127.0.0.1\n+:ALL:ALL\n")
    assert (await pam.ssh("echo in", login=other_user)).code == 255


@pytest_twisted.ensureDeferred
async def test_pam_session_is_closed_after_a_cut(pam: World, stack: Stack, other_user: str) -> None:
    """When the connection breaks, the processes are hung up and the PAM session is closed; nothing stays."""
    pam.allow(other_user)
    for options, command in ((), "echo $$.; exec sleep 331"), (("-tt",), "echo $$.; exec sleep 332"):
        client = pam.start(command, options=options, login=other_user, pty=bool(options), stdin=None)
        await client.until(b".")
        pid = int(found(rb"(\d+)\.", client.out)[1])
        client.kill()
        await client.done
        await until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
    await until(lambda: [line.split("_")[0] for line in stack.lines()].count("close") == 2)
    launcher = pam.node.parts.launcher.pid
    await until(lambda: not Path(f"/proc/{launcher}/task/{launcher}/children").read_text())


@pytest_twisted.ensureDeferred
async def test_pam_session_is_closed_after_a_signal(pam: World, stack: Stack, other_user: str) -> None:
    """A process that dies by a signal is told as that, through the process that closes the PAM session."""
    pam.allow(other_user)
    assert (await pam.ssh("kill -TERM $$", login=other_user)).code == 255
    (event,) = pam.logged("session.end")
    assert event["exit_code"] == -15
    await until(lambda: len(stack.lines()) == 2)


@pytest_twisted.ensureDeferred
async def test_pam_wants_a_new_password(pam: World, stack: Stack, other_user: str) -> None:
    """Where the stack looks at passwords, an expired one can be changed on a terminal, and nothing else runs."""
    stack.write("account required pam_unix.so")
    subprocess.run(["chpasswd"], input=f"{other_user}:old-Secret1\n", text=True, check=True)
    subprocess.run(["chage", "-d", "0", other_user], check=True)
    pam.allow(other_user)
    refused = await pam.ssh("echo in", login=other_user)
    assert (refused.out, refused.code) == (b"", 1)
    assert b"needs a terminal" in refused.err
    client = _shell(pam, other_user)
    await client.until(b"assword")
    client.kill()
    await client.done


@pytest_twisted.ensureDeferred
async def test_pam_service_that_denies(pam: World, stack: Stack) -> None:
    """A service that cannot be read lets nobody in: not even root."""
    stack.write("account required pam_not_there.so")
    assert (await pam.ssh("echo in")).out == b""


@pytest_twisted.ensureDeferred
async def test_pam_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unprivileged node with PAM does not start, rather than run sessions past the stack."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BadParameter, match="runs as root"):
        await running_node(tmp_path, rules=LoginRules("sshd"))
