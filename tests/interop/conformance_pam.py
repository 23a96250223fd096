"""Rows for logins with PAM: the same stack for both."""

from __future__ import annotations

import pwd
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.conformance import Side, behaviour, until
from tests.interop.conformance_logins import _entry, _login
from tests.interop.conformance_sessions import _exec, raw

PAM = "PAM"


def _hook(side: Side) -> list[str]:
    log = side.world.path / "pam.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [re.sub(r"pts/\d+", "pts/N", line.replace(side.user, "USER")) for line in lines if side.user in line]


@behaviour(PAM, "Limits, umask and variables of the stack hold in a command", pam=True)
async def effects(side: Side) -> str:
    return (await side.ssh("ulimit -Hn; umask; echo $FROM_PAM", login=side.user)).out.decode()


@behaviour(PAM, "A client's LANG beside the stack's", pam=True)
async def lang(side: Side) -> str:
    said = await side.ssh("echo $LANG", login=side.user, options=("-o", "SetEnv=LANG=C.UTF-8"))
    return said.out.decode()


@behaviour(PAM, "Session opened and closed around a command, as root, with the client's address", pam=True)
async def around(side: Side) -> str:
    before = len(_hook(side))
    await side.ssh("true", login=side.user)
    await until(lambda: len(_hook(side)) >= before + 2, 5)
    return "; ".join(_hook(side)[before:])


@behaviour(PAM, "Session closed after a connection that breaks", pam=True)
async def cut(side: Side) -> str:
    before = len(_hook(side))
    client = side.start("echo up; sleep 2", login=side.user, stdin=None)
    await client.until(b"up")
    client.kill()
    await client.done
    await until(lambda: len(_hook(side)) >= before + 2, 5)
    return "; ".join(line.split()[0] for line in _hook(side)[before:])


@behaviour(
    PAM,
    "Two commands on one connection",
    pam=True,
    reason="The node opens a PAM session around each process, so that each is accounted for by itself; sshd opens one "
    "for the connection.",
)
async def two(side: Side) -> str:
    path = side.world.path / f"pam-{side.name}"
    before = len(_hook(side))
    master = side.start("-N", options=("-M", "-S", str(path)), login=side.user, stdin=None)
    await until(path.exists)
    for _ in range(2):
        await side.ssh("true", login=side.user, options=("-S", str(path)))
    await side.ssh(options=("-S", str(path), "-O", "exit"), login=side.user)
    await master.done
    await until(lambda: len(_hook(side)) >= before + 2 and len(_hook(side)) % 2 == 0, 3)
    return f"{len(_hook(side)[before:]) // 2} sessions"


@behaviour(
    PAM,
    "PAM_TTY on a terminal",
    pam=True,
    reason="sshd opens its PAM session before it knows of a terminal; the node knows its name.",
)
async def tty(side: Side) -> str:
    before = len(_hook(side))
    await side.ssh("true", login=side.user, options=("-tt",), pty=True)
    await until(lambda: len(_hook(side)) >= before + 2, 5)
    return _hook(side)[before].split()[3]


@behaviour(PAM, "What pam_motd says", pam=True)
async def motd(side: Side) -> str:
    login, command = await _login(side), await side.ssh("true", login=side.user)
    shown = [("login", login), ("command", command.out.decode() + command.err.decode())]
    return ", ".join(f"{what}: {'shown' if 'word of the day' in text else 'not shown'}" for what, text in shown)


@behaviour(PAM, "Expired account", pam=True)
async def expired(side: Side) -> str:
    subprocess.run(["chage", "-E", str(int(time.time() // 86400) - 1), side.user], check=True)
    said = await _entry(side)
    subprocess.run(["chage", "-E", "-1", side.user], check=True)
    return said.split(")")[0] + ")"


@behaviour(
    PAM,
    "Expired password, for a command",
    pam=True,
    reason="The same, in the node's own words.",
)
async def expired_password(side: Side) -> str:
    subprocess.run(["chpasswd"], input=f"{side.user}:old-Secret1\n", text=True, check=True)
    subprocess.run(["chage", "-d", "0", side.user], check=True)
    said = await _entry(side)
    subprocess.run(["chage", "-d", str(int(time.time() // 86400)), side.user], check=True)
    return said


@behaviour(PAM, "/etc/nologin", pam=True)
async def nologin(side: Side) -> str:
    file = Path("/etc/nologin")
    file.write_text("Down for repair\n")
    try:
        said = await side.ssh("echo in", login=side.user)
    finally:
        file.unlink()
    text = said.out.decode() + said.err.decode()
    shown = "text shown" if "Down for repair" in text else "no text"
    return f"{shown}, {said.code}, {'denied' if 'Permission' in text else 'session refused'}"


@behaviour(PAM, "exit-signal of a command that dumped core", pam=True)
async def core(side: Side) -> str:
    session, _ = await raw(side, _exec("cd && ulimit -c unlimited; kill -SEGV $$"))
    return "; ".join(each for each in session.heard if each.startswith("exit"))


@contextmanager
def _also(side: Side, lines: str, alone: bool = False) -> Iterator[None]:
    """More lines in the stack, or nothing but them."""
    assert side.stack is not None
    before = side.stack.read_text()
    side.stack.write_text(("" if alone else before) + lines)
    try:
        yield
    finally:
        side.stack.write_text(before)


@behaviour(PAM, "pam_loginuid: the audit's user and session of a command", pam=True)
async def loginuid(side: Side) -> str:
    uid = str(pwd.getpwnam(side.user).pw_uid)
    told = []
    with _also(side, "session required pam_loginuid.so\n"):
        for _ in range(2):
            said = await side.ssh("cat /proc/self/loginuid; echo; cat /proc/self/sessionid")
            first, second = said.out.decode().split()
            told.append(f"{'USER' if first == uid else first}, {'one' if second != '4294967295' else 'none'}")
    daemons = Path("/proc/self/loginuid").read_text()
    return f"{'; '.join(told)}; the daemon's own is {'USER' if daemons == uid else 'as it was'}"


@behaviour(
    PAM,
    "Debian's own stack of sshd: what it sets and says",
    pam=True,
    reason="The node sets MAIL with PAM, too, and the names that tell a session of which cluster it is. What the stack "
    "does is the same.",
)
async def debian(side: Side) -> str:
    script = "env | sed 's/=.*//' | sort | tr '\\n' ' '; umask; cat /proc/self/loginuid"
    with _also(side, "@include sshd\n", alone=True):
        said = await side.ssh(script)
        login = await _login(side)
        root = await side.ssh("id -un", login="root")
    uid = str(pwd.getpwnam(side.user).pw_uid)
    motd = Path("/etc/motd").read_text().strip() if Path("/etc/motd").exists() else ""
    shown = "shown" if motd in login.replace("\r", "") else "not shown"
    values = f"{said.out.decode()} {said.err.decode()}".replace(uid, "UID")
    return f"{values} {said.code}; message of the day {shown}; root: {root.out.decode()}"
