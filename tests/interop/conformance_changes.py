"""Rows for what changes on the machine while somebody is connected, and for what is broken when he comes."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tests.interop.conformance import Side, behaviour, until
from tests.interop.conformance_logins import _login, _utmp
from tests.worlds.node import Client, Result, alive

CHANGES = "What changes meanwhile, and what is broken"


def _said(side: Side, result: Result) -> str:
    """One line: output, errors, status."""
    text = " ".join(f"{result.out.decode()} {result.err.decode()}".split())
    return f"{text.replace(side.user, 'USER')} ({result.code})"


@asynccontextmanager
async def _connected(side: Side) -> AsyncIterator[tuple[Client, tuple[str, ...]]]:
    """A session that goes on, and the options with which others share its connection."""
    path = side.world.path / f"ch-{side.name}"
    first = side.start("echo up; cat", options=("-M", "-S", str(path)), stdin=None)
    await first.until(b"up")
    await until(path.exists)
    try:
        yield first, ("-S", str(path))
    finally:
        first.transport.closeStdin()
        await first.done


async def _goes_on(first: Client) -> str:
    first.write(b"still here\n")
    return "goes on" if await until(lambda: b"still here" in first.out, 3) else "ended"


@behaviour(CHANGES, "/etc/nologin appears: a session that runs, and the next one on its connection")
async def nologin(side: Side) -> str:
    file = Path("/etc/nologin")
    async with _connected(side) as (first, share):
        file.write_text("Down for repair\n")
        try:
            told = await _goes_on(first)
            second = await side.ssh("echo in", options=share)
        finally:
            file.unlink()
    shown = "text shown" if b"Down for repair" in second.out + second.err else "no text"
    return f"{told}; {'in' if b'in' in second.out.split() else 'refused'}, {shown}"


@contextmanager
def _without_user(side: Side) -> Iterator[None]:
    """Take the account's line out of passwd and shadow, and put it back."""
    kept = {}
    for name in ("/etc/passwd", "/etc/shadow"):
        file = Path(name)
        lines = file.read_text().splitlines(keepends=True)
        kept[file] = next(line for line in lines if line.startswith(f"{side.user}:"))
    subprocess.run(["userdel", "-f", side.user], check=True, capture_output=True)
    try:
        yield
    finally:
        uid, gid = kept[Path("/etc/passwd")].split(":")[2:4]
        subprocess.run(["groupadd", "-g", gid, side.user], check=True)
        make = ["useradd", "-M", "-u", uid, "-g", gid, "-s", "/bin/bash", "-p", "*", side.user]
        subprocess.run(make, check=True, capture_output=True)


@behaviour(
    CHANGES,
    "The account is deleted: a session that runs, and the next one on its connection",
    reason="sshd keeps the account as it was at the login; the node looks it up for each session, so that who was "
    "deleted starts nothing more.",
)
async def deleted(side: Side) -> str:
    async with _connected(side) as (first, share):
        with _without_user(side):
            told = await _goes_on(first)
            second = await side.ssh("id -u >/dev/null && echo in", options=share)
    return f"{told}; {_said(side, second)}"


def _move(side: Side, old: str, new: str) -> None:
    """As usermod -d, which does nothing for a user who is at work."""
    libc = ctypes.CDLL(None)
    assert libc.lckpwdf() == 0
    try:
        file, next_one = Path("/etc/passwd"), Path("/etc/passwd.teleconch-test")
        lines = file.read_text().splitlines(keepends=True)
        changed = [line.replace(f":{old}:", f":{new}:") if line.startswith(f"{side.user}:") else line for line in lines]
        next_one.write_text("".join(changed))
        next_one.chmod(0o644)
        next_one.rename(file)
    finally:
        libc.ulckpwdf()


@behaviour(
    CHANGES,
    "The home directory in passwd is changed: the next session on a connection",
    reason="The node looks the account up for each session.",
)
async def moved(side: Side) -> str:
    async with _connected(side) as (_, share):
        _move(side, f"/home/{side.user}", "/var/tmp")
        try:
            second = await side.ssh("pwd; echo $HOME", options=share)
        finally:
            _move(side, "/var/tmp", f"/home/{side.user}")
    return _said(side, second)


@behaviour(
    CHANGES,
    "The home directory may not be entered",
    reason="The same place and status; the sentence is the node's own, and says where the session goes on.",
)
async def closed_home(side: Side) -> str:
    before = side.home.stat()
    os.chown(side.home, 0, 0)
    side.home.chmod(0o700)
    try:
        return _said(side, await side.ssh("pwd"))
    finally:
        os.chown(side.home, before.st_uid, before.st_gid)
        side.home.chmod(before.st_mode & 0o7777)


@behaviour(
    CHANGES,
    "The shell may not be run",
    reason="sshd refuses the login itself; the node lets the certificate in and refuses each session with a sentence.",
)
async def closed_shell(side: Side) -> str:
    shell = side.home / "shell"
    shutil.copy("/bin/bash", shell)
    shell.chmod(0o644)
    subprocess.run(["usermod", "-s", str(shell), side.user], check=True, capture_output=True)
    try:
        result = await side.ssh("echo in")
    finally:
        subprocess.run(["usermod", "-s", "/bin/bash", side.user], check=True)
    told = re.sub("(?s).*(Permission denied).*", r"\1", result.err.decode())
    return _said(side, Result(result.out, told.encode(), result.code, None)).replace(str(shell), "SHELL")


@behaviour(
    CHANGES,
    "The shell is no program (its format is unknown)",
    reason="The same refusal, as the node's sentence and status.",
)
async def no_program(side: Side) -> str:
    shell = side.home / "odd"
    shell.write_bytes(bytes(100))
    shell.chmod(0o755)
    subprocess.run(["usermod", "-s", str(shell), side.user], check=True, capture_output=True)
    try:
        result = await side.ssh("echo in")
    finally:
        subprocess.run(["usermod", "-s", "/bin/bash", side.user], check=True)
    return _said(side, result).replace(str(shell), "SHELL")


@contextmanager
def _full_logs() -> Iterator[None]:
    """wtmp and lastlog on a volume without space; it is seen by this test run alone, which has mounts of its own."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", "/var/log"]
    assert subprocess.run(mount, check=False).returncode == 0, "nothing can be mounted here"
    try:
        Path("/var/log/wtmp").touch()
        Path("/var/log/lastlog").touch()
        with Path("/var/log/full").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", "-l", "/var/log"], check=True)


@behaviour(CHANGES, "A login while the disk of wtmp and lastlog is full, and without these files")
async def full(side: Side) -> str:
    told = []
    with _utmp(), _full_logs():
        said = await _login(side, "echo in $((41+1))")
        sizes = [Path("/var/log", name).stat().st_size for name in ("wtmp", "lastlog")]
        told.append(f"{'in' if 'in 42' in said else said}, {sizes}")
        for name in ("wtmp", "lastlog"):
            Path("/var/log", name).unlink()
        said = await _login(side, "echo in $((41+1))")
        left = sorted(each.name for each in Path("/var/log").iterdir() if each.name != "full")
        told.append(f"{'in' if 'in 42' in said else said}, {left}")
    return "; ".join(told)


@behaviour(
    CHANGES,
    "kill -9 of the server's process between connection and command: on a terminal, without one; the next login",
    reason="What is left of a session that nobody can see any more is hung up.",
)
async def killed(side: Side) -> str:
    told = []
    with _utmp():
        for options in (("-tt",), ()):
            client = side.start("echo $$ $PPID.; exec sleep 381", options=options, stdin=None, pty=bool(options))
            await client.until(b".")
            own, parent = map(int, client.out.split(b".")[0].split())
            assert parent > 1
            os.kill(parent, signal.SIGKILL)
            gone = await until(lambda own=own: not alive(own), 3)  # type: ignore[misc]
            if not gone:
                os.kill(own, signal.SIGKILL)
            told.append(f"{'hung up' if gone else 'goes on'}, {(await client.done).code}")
        told.append(_said(side, await side.ssh("echo in")))
    return "; ".join(told)
