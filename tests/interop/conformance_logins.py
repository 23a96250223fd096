"""Rows for logins without PAM: variables, accounts, greeting and records."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.interop import conformance_records as records
from tests.interop.conformance import Side, behaviour, until, usermod

VARIABLES = "Variables"
ACCOUNTS = "Accounts"
GREETING = "Greeting and records"


async def env(side: Side, *sent: str, login: str = "", **how: Any) -> dict[str, str]:
    """The environment of a command; ``sent`` are the client's variables."""
    options = ("-o", "SetEnv=" + " ".join(sent)) if sent else ()
    said = await side.ssh("exec env", login=login or side.user, options=options, **how)
    return dict(line.split("=", 1) for line in said.out.decode().splitlines() if "=" in line)


def _same(side: Side, text: str) -> str:
    return text.replace(side.user, "USER").replace(str(side.world.port), "PORT")


@behaviour(VARIABLES, "USER, LOGNAME, HOME, SHELL, MAIL, PATH")
async def usual(side: Side) -> str:
    found = await env(side)
    names = ("USER", "LOGNAME", "HOME", "SHELL", "MAIL", "PATH")
    return _same(side, " ".join(f"{name}={found.get(name)}" for name in names))


@behaviour(VARIABLES, "PATH of root")
async def root_path(side: Side) -> str:
    return (await env(side, login="root"))["PATH"]


@behaviour(VARIABLES, "SSH_CLIENT, SSH_CONNECTION")
async def connection(side: Side) -> str:
    found = await env(side)
    text = f"{found['SSH_CLIENT']}; {found['SSH_CONNECTION']}"
    return re.sub(r"\b\d{4,5}\b", "PORT", text)


@behaviour(
    VARIABLES,
    "Other variables of a command",
    reason="A session is to know which session of which cluster it is; the names are Teleport's.",
)
async def others(side: Side) -> str:
    usual = {"USER", "LOGNAME", "HOME", "SHELL", "MAIL", "PATH", "SSH_CLIENT", "SSH_CONNECTION", "PWD", "SHLVL", "_"}
    return " ".join(sorted(set(await env(side)) - usual - {"OLDPWD"})) or "none"


@behaviour(VARIABLES, "Variables that a client may set (AcceptEnv as the node's list)")
async def accepted(side: Side) -> str:
    names = ("LANG", "LC_TIME", "COLORTERM", "TELEPORT_SESSION", "FOO", "PATH", "LD_PRELOAD", "BASH_ENV", "IFS")
    found = await env(side, *(f"{name}=C.UTF-8" for name in names))
    return " ".join(name for name in names if found.get(name) == "C.UTF-8")


def _own_file(side: Side, text: str) -> None:
    entry = pwd.getpwnam(side.user)
    folder = side.home / (".ssh" if side.name == "sshd" else ".tsh")
    folder.mkdir(exist_ok=True)
    (folder / "environment").write_text(text)
    for each in (folder, folder / "environment"):
        os.chown(each, entry.pw_uid, entry.pw_gid)


@behaviour(VARIABLES, "The user's file of variables (~/.ssh/environment, ~/.tsh/environment), turned on")
async def own_file(side: Side) -> str:
    _own_file(side, "# mine\nFOO=a b\n\nEDITOR=vi\nPATH=/bin:/opt/own\n")
    found = await env(side)
    return " ".join(f"{name}={found.get(name)}" for name in ("FOO", "EDITOR", "PATH"))


@behaviour(VARIABLES, "The same, turned off (PermitUserEnvironment, permit_user_env)", user_environment=False)
async def own_file_off(side: Side) -> str:
    _own_file(side, "FOO=a\n")
    return (await env(side)).get("FOO", "not read")


@behaviour(
    VARIABLES,
    "LD_PRELOAD, BASH_ENV, IFS, HOME in the user's file",
    reason="What changes how programs load or shells start never passes, by no road: a restricted shell stays one.",
)
async def own_bad(side: Side) -> str:
    names = ("LD_PRELOAD", "BASH_ENV", "IFS", "HOME")
    _own_file(side, "".join(f"{name}=/evil\n" for name in names))
    found = await env(side)
    _own_file(side, "")
    return " ".join(name for name in names if found.get(name) == "/evil") or "none is taken"


# --- accounts --------------------------------------------------------------------------------------------------------


@behaviour(
    ACCOUNTS,
    "Home directory is missing",
    reason="The same place and the same status; the sentence is the node's own, and says where the session goes on.",
)
async def no_home(side: Side) -> str:
    await usermod(side, "-d", "/nonexistent")
    said = await side.ssh("pwd", login=side.user)
    await usermod(side, "-d", f"/home/{side.user}")
    return f"{said.out.decode()} {said.code}; {said.err.decode()}"


@behaviour(ACCOUNTS, "Shell is nologin")
async def nologin_shell(side: Side) -> str:
    await usermod(side, "-s", "/usr/sbin/nologin")
    said = await side.ssh("id", login=side.user)
    await usermod(side, "-s", "/bin/bash")
    return f"{said.out.decode()} {said.code}"


async def _entry(side: Side) -> str:
    said = await side.ssh("echo in", login=side.user)
    words = said.err.decode().strip().splitlines()
    told = re.sub(r"^.*(Permission denied).*$", r"\1", words[-1]) if words else ""
    return f"{said.out.decode().strip() or 'refused'} ({said.code}) {told}".replace(side.user, "USER").strip()


@behaviour(
    ACCOUNTS,
    "Shell is missing",
    reason="sshd refuses the login itself; the node lets the certificate in and refuses each session with a sentence.",
)
async def no_shell(side: Side) -> str:
    await usermod(side, "-s", "/bin/nothere")
    said = await _entry(side)
    await usermod(side, "-s", "/bin/bash")
    return said


@behaviour(
    ACCOUNTS,
    "/etc/nologin, for a user",
    reason="The same text. 255 is the node's status for every session that could not start.",
)
async def nologin(side: Side) -> str:
    file = Path("/etc/nologin")
    file.write_text("Down for repair\n")
    try:
        return await _entry(side)
    finally:
        file.unlink()


@behaviour(ACCOUNTS, "/etc/nologin, for root")
async def nologin_root(side: Side) -> str:
    file = Path("/etc/nologin")
    file.write_text("Down for repair\n")
    try:
        said = await side.ssh("echo in", login="root")
    finally:
        file.unlink()
    return said.out.decode()


@behaviour(
    ACCOUNTS,
    "Expired account",
    reason="sshd refuses the login itself, without a word; the node refuses each session and says why.",
)
async def expired(side: Side) -> str:
    subprocess.run(["chage", "-E", str(int(time.time() // 86400) - 1), side.user], check=True)
    said = await _entry(side)
    subprocess.run(["chage", "-E", "-1", side.user], check=True)
    return said


@behaviour(ACCOUNTS, "Account on its last day")
async def last_day(side: Side) -> str:
    subprocess.run(["chage", "-E", str(int(time.time() // 86400)), side.user], check=True)
    said = await _entry(side)
    subprocess.run(["chage", "-E", "-1", side.user], check=True)
    return said


@behaviour(ACCOUNTS, "Expired password")
async def expired_password(side: Side) -> str:
    subprocess.run(["chage", "-d", "0", side.user], check=True)
    said = await _entry(side)
    subprocess.run(["chage", "-d", str(int(time.time() // 86400)), side.user], check=True)
    return said


@behaviour(
    ACCOUNTS,
    "Locked password ('!' in shadow)",
    reason="Nobody logs in to a node with a password, and accounts made for certificates have none: only an expired "
    "account or shell keeps out. sshd with UsePAM, Debian's default, lets it in as well.",
)
async def locked(side: Side) -> str:
    await usermod(side, "-p", "!")
    said = await _entry(side)
    await usermod(side, "-p", "*")
    return said


# --- greeting and records --------------------------------------------------------------------------------------------


async def _login(side: Side, *lines: str) -> str:
    client = side.start(options=("-tt",), login=side.user, pty=True, stdin=None)
    await client.until(b"$ ")
    client.write("".join(f"{line}\n" for line in (*lines, "exit")).encode())
    return (await client.done).out.decode().replace("\r", "")


def _greeting(said: str) -> str:
    motd = Path("/etc/motd").read_text().strip() if Path("/etc/motd").exists() else ""
    last = re.search(r"Last login: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}( from [\d.]+)?\n", said)
    found = [last is not None and f"Last login: DATE{last[1]}", bool(motd) and motd in said and "message of the day"]
    return ", ".join(each for each in found if each) or "nothing"


@behaviour(GREETING, "First login, second login, ~/.hushlogin")
async def greeting(side: Side) -> str:
    seen = [_greeting(await _login(side)), _greeting(await _login(side))]
    (side.home / ".hushlogin").touch()
    seen.append(_greeting(await _login(side)))
    (side.home / ".hushlogin").unlink()
    return "; ".join(seen)


@behaviour(GREETING, "A command on a terminal")
async def quiet_command(side: Side) -> str:
    return _greeting((await side.ssh("true", options=("-tt",), login=side.user, pty=True)).out.decode())


@behaviour(
    GREETING,
    "/run/motd.dynamic, without PAM",
    reason="With PAM, Debian shows it through pam_motd, which the node without PAM stands in for.",
)
async def dynamic(side: Side) -> str:
    file = Path("/run/motd.dynamic")
    before = file.read_bytes() if file.exists() else None
    file.write_text("It is raining\n")
    try:
        said = await _login(side)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
    return "shown" if "It is raining" in said else "not shown"


@contextmanager
def _utmp() -> Iterator[None]:
    """The file of who is logged in, where the machine has none."""
    made = not Path("/run/utmp").exists()
    if made:
        Path("/run/utmp").touch(0o664)
    try:
        yield
    finally:
        if made:
            Path("/run/utmp").unlink()


def _who(side: Side) -> str:
    lines = subprocess.run(["who"], capture_output=True, text=True).stdout.splitlines()
    mine = [line for line in lines if line.startswith(f"{side.user} ")]
    return re.sub(r"pts/\d+ +\S+ \S+", "pts/N DATE", " ".join(mine)).replace(side.user, "USER") or "nobody"


@behaviour(GREETING, "who, during and after a login, and after a connection that breaks")
async def who(side: Side) -> str:
    seen = []
    with _utmp():
        for cut in (False, True):
            client = side.start(options=("-tt",), login=side.user, pty=True, stdin=None)
            client.write(b"echo $((41+1))_\n")
            await client.until(b"42_")
            seen.append(_who(side))
            if cut:
                client.kill()
            else:
                client.write(b"exit\n")
            await client.done
            await until(lambda: _who(side) == "nobody", 5)
            seen.append(_who(side))
    return "; ".join(seen)


@behaviour(GREETING, "last")
async def last(side: Side) -> str:
    with _utmp():
        await _login(side)
        await until(lambda: " - " in _last(side), 5)
    shown = re.sub(r"pts/\d+", "pts/N", _last(side)).replace(side.user, "USER")
    return re.sub(r"\w{3} \w{3} [ \d]\d \d\d:\d\d - \d\d:\d\d +\(00:0\d\)", "DATE", shown)


def _last(side: Side) -> str:
    lines = subprocess.run(["last", "-w", side.user], capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[0].replace("gone - ", "gone: ")


@behaviour(GREETING, "utmp, wtmp, lastlog and wtmp.db: during and after a login")
async def login_records(side: Side) -> str:
    return await _recorded(side, "-tt")


@behaviour(GREETING, "The same for a command on a terminal")
async def command_records(side: Side) -> str:
    return await _recorded(side, "-tt", command="tty; cat")


@behaviour(GREETING, "The same for a command on a terminal whose connection breaks")
async def cut_records(side: Side) -> str:
    return await _recorded(side, "-tt", command="tty; cat", cut=True)


@behaviour(GREETING, "The same for a command without a terminal")
async def no_records(side: Side) -> str:
    return await _recorded(side, "-T", command="tty; cat")


@behaviour(
    GREETING,
    "The same for a login where there is no utmp",
    reason="The end of a login is in wtmp, whether there is a utmp or not.",
)
async def records_without_utmp(side: Side) -> str:
    return await _recorded(side, "-tt", utmp=False)


async def _recorded(side: Side, *options: str, command: str = "", cut: bool = False, utmp: bool = True) -> str:
    """What is recorded while a session runs, and what is after it."""
    with _utmp() if utmp else nullcontext():
        began = records.marks(side.user)
        client = side.start(*filter(None, [command]), options=options, pty="-tt" in options, stdin=None)
        client.write(b"tty\n")
        await client.until(b"/dev/pts" if "-tt" in options else b"not a tty")
        during = records.told(side.user, began)
        if cut:
            client.kill()
        elif command:
            client.write(b"\x04")
            client.transport.closeStdin()
        else:
            client.write(b"exit\n")
        await client.done
        await until(lambda: records.is_over(began), 2)
        return f"during: {during}; after: {records.told(side.user, began)}"


@behaviour(GREETING, "What the user sees of their own login: who am i, users, w, last")
async def own_login(side: Side) -> str:
    script = "who am i; users | tr ' ' '\\n' | grep -c -x $USER; w -h $USER; last -n 1 -w $USER | head -1"
    with _utmp():
        said = await _login(side, f"echo begin $((41+1)); {script}; echo end $((42+1))")
    found = re.search(r"begin 42\n(.*)end 43", said, re.DOTALL)
    assert found is not None, said
    shown = found[1].replace(side.user, "USER")
    for pattern, name in (
        (r"pts/\d+", "pts/N"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE"),
        (r"(\w{3} )?\w{3} [ \d]\d \d\d:\d\d", "DATE"),
        (r"\d\d:\d\d( +\S+){3} +w -h", "TIMES w -h"),
    ):
        shown = re.sub(pattern, name, shown)
    return shown
