"""Rows for login shells other than bash: on a terminal, a command, and files."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet import task

from tests.interop.conformance import Side, behaviour, until
from tests.worlds.node import Client, Result
from tests.worlds.reactor import reactor

SHELLS = "Login shells"

# Where each keeps what it reads in every start, and how a variable is set there.
STARTS = {
    "dash": (".profile", "export FROM_START=yes"),
    "ksh": (".profile", "export FROM_START=yes"),
    "mksh": (".profile", "export FROM_START=yes"),
    "zsh": (".zshenv", "export FROM_START=yes"),
    "tcsh": (".cshrc", "setenv FROM_START yes"),
    "fish": (".config/fish/config.fish", "set -x FROM_START yes; set -g fish_greeting"),
}


@contextmanager
def _shell(side: Side, name: str) -> Iterator[None]:
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed"
    entry = pwd.getpwnam(side.user)
    file, text = STARTS[name]
    subprocess.run(
        ["sh", "-ec", 'mkdir -p "$(dirname "$0")"; printf "%s\n" "$1" > "$0"; touch .zshrc', file, text],
        cwd=side.home,
        user=entry.pw_uid,
        group=entry.pw_gid,
        check=True,
    )
    subprocess.run(["usermod", "-s", path, side.user], check=True)
    try:
        yield
    finally:
        subprocess.run(["usermod", "-s", "/bin/bash", side.user], check=True)
        (side.home / file).unlink()


async def _typed(side: Side) -> str:
    """A terminal: who runs, Ctrl-C, a size, a status."""
    client = side.start(options=("-tt",), login=side.user, pty=True, stdin=None)
    await until(lambda: client.out)
    await task.deferLater(reactor, 0.7)  # line editors throw away what is typed too early
    seen = []
    for keys, wanted in (
        ("sh -c 'echo $((41+1))_ $(ps -o args= -p $PPID). $FROM_START.'\r", rb"42_ ([^.\r\n]*\. \w*)\."),
        ("sleep 1000\r", rb"sleep 1000"),
        ("\x03", None),
        ("sh -c 'echo $((41+2))_ $TERM.'\r", rb"43_ (\w*)\."),
    ):
        client.write(keys.encode())
        if wanted is None:
            await task.deferLater(reactor, 0.3)
            continue
        assert await until(lambda wanted=wanted: re.search(wanted, client.out)), client.out[-300:]  # type: ignore[misc]
        found = re.search(wanted, client.out)
        assert found is not None
        seen += [group.decode() for group in found.groups()]
        await task.deferLater(reactor, 0.3)
    client.write(b"exit 3\r")
    return f"{', '.join(seen)}, ends with {(await client.done).code}"


def _files(side: Side, program: str, *arguments: str, stdin: bytes = b"") -> Client:
    port, login = str(side.world.port), side.user
    options = [*side.world.ssh_line()[1:-4], "-o", f"Port={port}", "-o", f"User={login}"]
    client = Client(stdin)
    line = [program, *options, *arguments]
    reactor.spawnProcess(client, program, line, {"PATH": os.environ["PATH"], "HOME": str(side.world.path)})
    client.done.addTimeout(30, reactor)
    side.world.clients.append(client)
    return client


async def _moved(side: Side) -> str:
    """Files with odd names, up by sftp and the old scp, and down by both protocols of scp."""
    source = side.world.path / f"sent-{side.name}"
    source.write_text("some text\n")
    source.chmod(0o644)
    told = []

    async def run(what: str, arguments: list[str], stdin: bytes, holds: Callable[[], bool]) -> None:
        result: Result = await _files(side, *arguments, stdin=stdin).done
        told.append(f"{what}: {'yes' if result.code == 0 and holds() else result.err.decode()}")

    def arrived(name: str) -> Callable[[], bool]:
        return lambda: (side.home / name).read_text() == "some text\n"

    put = f'put {source} "a b"\n'.encode()
    await run("sftp", ["sftp", "-b", "-", "127.0.0.1"], put, arrived("a b"))
    await run("scp -O up", ["scp", "-O", "-p", str(source), "127.0.0.1:'c  d'"], b"", arrived("c  d"))
    for option in ("-s", "-O"):
        there = side.world.path / f"got-{side.name}"
        await run(f"scp {option} down", ["scp", option, "127.0.0.1:a*b", str(there)], b"", there.exists)
        there.unlink(missing_ok=True)
    return ", ".join(told)


async def _measure(side: Side, name: str) -> str:
    with _shell(side, name):
        command = await side.ssh("sh -c 'echo $FROM_START.'; exit 7", login=side.user)
        script = await side.ssh(login=side.user, stdin=b"echo from a script\nexit 5\n")
        told = [f"on a terminal: {await _typed(side)}"]
        told.append(f"a command: {' '.join(command.out.decode().split())} {command.code}")
        told.append(f"a script: {script.out.decode().strip()} {script.code}")
        told.append(await _moved(side))
    return "; ".join(told)


def _row(name: str) -> None:
    async def measure(side: Side) -> str:
        return await _measure(side, name)

    behaviour(SHELLS, f"{name}: on a terminal, a command, a script on stdin, sftp, scp")(measure)


for each in STARTS:
    _row(each)
