"""Rows for logins with PAM: the same stack for both."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from conformance import Side, behaviour, until
from conformance_logins import _entry, _login
from conformance_sessions import _exec, raw

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
