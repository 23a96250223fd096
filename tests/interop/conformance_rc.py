"""Rows for the scripts that sshd runs before a session: ~/.ssh/rc and /etc/ssh/sshrc."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teleconch.ca.ssh import PERMITS
from teleconch.codec import boolean, string, uint32
from tests.interop.conformance import Side, behaviour, until
from tests.interop.conformance_logins import _login
from tests.interop.conformance_sessions import _exec, raw
from tests.interop.conformance_shells import _files

RC = "Scripts before a session"
SSHRC = Path("/etc/ssh/sshrc")


@contextmanager
def _own(side: Side, text: str) -> Iterator[None]:
    entry = pwd.getpwnam(side.user)
    folder = side.home / ".ssh"
    folder.mkdir(exist_ok=True)
    file = folder / "rc"
    file.write_text(text)
    for each in (folder, file):
        os.chown(each, entry.pw_uid, entry.pw_gid)
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def _system(side: Side, text: str) -> Iterator[None]:
    """For this user alone: other logins on the machine are not to be disturbed."""
    assert not SSHRC.exists(), f"{SSHRC} is there already"
    SSHRC.write_text(f'[ "$USER" = {side.user} ] || exit 0\n{text}')
    try:
        yield
    finally:
        SSHRC.unlink()


def _said(side: Side, out: bytes) -> str:
    return " ".join(out.decode().replace(side.user, "USER").split())


async def _sftp(side: Side) -> str:
    said = await _files(side, "sftp", "-q", "-b", "-", "127.0.0.1", stdin=b"pwd\n").done
    return _said(side, said.out.removeprefix(b"sftp> pwd\n"))


@behaviour(RC, "~/.ssh/rc before a command: its program, folder, user, input; its status")
async def before_command(side: Side) -> str:
    words = 'echo "$0; $(ps -o comm= -p $$); $(pwd); $(id -un); $HOME; $SHELL"; tty; wc -c; exit 9\n'
    with _own(side, words):
        result = await side.ssh("echo in; cat", stdin=b"sent\n")
    return f"{_said(side, result.out)} {result.code}"


@behaviour(RC, "~/.ssh/rc before a login shell on a terminal")
async def before_login(side: Side) -> str:
    with _own(side, 'echo from $((41+1)) rc; echo "DISPLAY=$DISPLAY"\n'):
        said = await _login(side, "echo in $((42+1)) shell")
    return f"{'run first' if 0 < said.find('from 42 rc') < said.find('in 43 shell') else 'not run'}"


@behaviour(RC, "~/.ssh/rc and sftp")
async def own_sftp(side: Side) -> str:
    with _own(side, "echo noise\n"):
        return await _sftp(side)


@behaviour(RC, "/etc/ssh/sshrc before a command, beside ~/.ssh/rc, and before sftp")
async def system(side: Side) -> str:
    with _system(side, f"id -un; touch {side.home}/sshrc-ran\n"):
        alone = await side.ssh("echo in")
        with _own(side, "echo own\n"):
            both = await side.ssh("echo in")
    ran = side.home / "sshrc-ran"
    ran.unlink()
    with _system(side, f"touch {side.home}/sshrc-ran\n"):
        said = await _sftp(side)
    moved = "run" if ran.exists() else "not run"
    return f"{_said(side, alone.out)}; {_said(side, both.out)}; {moved}, {said}"


@behaviour(RC, "A certificate without permit-user-rc")
async def without(side: Side) -> str:
    file = side.world.path / "key-cert.pub"
    before = file.read_text()
    side.world.allow(side.user, extensions=tuple(name for name in PERMITS if name != "permit-user-rc"))
    with _own(side, "echo own\n"), _system(side, "echo system\n"):
        result = await side.ssh("echo in")
    file.write_text(before)
    return _said(side, result.out)


@behaviour(RC, "~/.ssh/rc where the shell is nologin")
async def forbidden(side: Side) -> str:
    subprocess.run(["usermod", "-s", "/usr/sbin/nologin", side.user], check=True)
    with _own(side, f"touch {side.home}/ran\n"):
        result = await side.ssh("echo in")
    subprocess.run(["usermod", "-s", "/bin/bash", side.user], check=True)
    return f"{_said(side, result.out)} {'run' if (side.home / 'ran').exists() else 'not run'} {result.code}"


@behaviour(RC, "With X11: what a script reads, and DISPLAY")
async def x11(side: Side) -> str:
    request = b"x11-req", boolean(False) + string(b"MIT-MAGIC-COOKIE-1") + string(b"c0ffee" * 4) + uint32(0)
    with _own(side, 'read proto cookie; echo "$proto $cookie ${DISPLAY%%:*}"; wc -c\n'):
        session, answers = await raw(side, request, _exec("echo in"), login=side.user)
    return f"{answers}: {_said(side, session.out)}"


@behaviour(
    RC,
    "A script that goes on for long, and a connection that breaks",
    reason="As with any process of a session without a terminal: nothing of a connection that is gone goes on.",
)
async def hangs(side: Side) -> str:
    with _own(side, "echo up; sleep 3; touch slept\n"):
        client = side.start("touch began", stdin=None)
        await client.until(b"up")
        client.kill()
        await client.done
        began = await until((side.home / "began").exists, 4)
    return "the command began" if began else "hung up"
