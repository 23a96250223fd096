"""Rows for sudo and su in sessions: passwords, terminals of their own, job control, window sizes."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.internet import task

from tests.interop.conformance import Side, behaviour, until
from tests.interop.conformance_sessions import _resize
from tests.worlds.node import Client
from tests.worlds.reactor import reactor

RIGHTS = "sudo and su"
PASSWORD = "a-Long-passw0rd"


@contextmanager
def _sudoers(side: Side, *lines: str, password: bool = False) -> Iterator[None]:
    file = Path("/etc/sudoers.d", f"teleconch-test-{side.user}")
    rule = f"{side.user} ALL=(ALL) {'' if password else 'NOPASSWD: '}ALL"
    file.write_text("".join(f"{line}\n" for line in (rule, f"Defaults:{side.user} !lecture", *lines)))
    file.chmod(0o440)
    if password:
        subprocess.run(["chpasswd"], input=f"{side.user}:{PASSWORD}\n", text=True, check=True)
    try:
        yield
    finally:
        file.unlink()
        Path("/run/sudo/ts", side.user).unlink(missing_ok=True)
        subprocess.run(["usermod", "-p", "*", side.user], check=True)


class Typist:
    """Types into a login shell and waits for what it wants to see next; ``seen`` are the groups of the patterns."""

    def __init__(self, side: Side, **how: str) -> None:
        self._side = side
        plain = {"TERM": "dumb"}  # so that the shell says nothing to its terminal but what is looked for
        self.client: Client = side.start(options=("-tt",), pty=True, stdin=None, env=plain, **how)
        self._at = 0
        self.seen: list[str] = []

    async def type(self, keys: str, wanted: str) -> None:
        """LookupError where it does not come."""
        self.client.write(keys.encode())
        pattern = re.compile(wanted.encode())
        if not await until(lambda: pattern.search(self.client.out, self._at), 8):
            self.client.kill()
            await self.client.done
            raise LookupError(f"no {wanted} in {self.client.out[self._at :][-200:]!r}")
        found = pattern.search(self.client.out, self._at)
        assert found is not None
        self._at = found.end()
        self.seen += [group.decode() for group in found.groups()]

    async def pause(self) -> None:
        """Time for a program to read a terminal, where nothing tells that it does."""
        await task.deferLater(reactor, 0.4)

    def resize(self, columns: int, rows: int) -> None:
        """As when a user drags the corner of the window."""
        _resize(self.client, columns, rows)
        self.client.transport.signalProcess(signal.SIGWINCH)

    async def end(self) -> str:
        """All that was seen."""
        code = (await self.client.done).code
        return ", ".join([*self.seen, f"ends with {code}"]).replace(self._side.user, "USER")


@behaviour(RIGHTS, "sudo without a password, for a command, with and without a terminal")
async def command(side: Side) -> str:
    with _sudoers(side):
        told = []
        for how in ({}, {"options": ("-tt",), "pty": True}):
            result = await side.ssh("sudo -n sh -c 'id -un; echo $SUDO_USER; exit 4'", **how)
            told.append(f"{' '.join(result.out.decode().split()[:2])} {result.code}".replace(side.user, "USER"))
        said = await side.ssh("sudo -n cat", stdin=bytes(300_000))
        told.append(f"{len(said.out)} bytes through it")
    return "; ".join(told)


@behaviour(RIGHTS, "sudo that needs a terminal or a password, without a terminal")
async def no_terminal(side: Side) -> str:
    with _sudoers(side, f"Defaults:{side.user} requiretty"):
        first = await side.ssh("sudo -n true")
    with _sudoers(side, password=True):
        second = await side.ssh("sudo true")
    return "; ".join(f"{each.err.decode().splitlines()[0]} {each.code}" for each in (first, second))


@behaviour(RIGHTS, "sudo with a password: hidden, wrong, right, remembered for this terminal and no other")
async def password(side: Side) -> str:
    with _sudoers(side, password=True):
        typist = Typist(side)
        await typist.type("PS1='> '; sudo -p 'word: ' id -un\n", "word: $")
        await typist.pause()
        await typist.type("wrong\n", "(Sorry), try again.*\r\nword: $")
        await typist.pause()
        await typist.type(f"{PASSWORD}\n", r"\n(root)\r\n")
        await typist.type("sudo -n id -un && echo $((41+1))_\n", r"\n(root)\r\n42_")
        other = Typist(side)
        await other.type("sudo -n id -un; echo $((41+1))_\n", r"sudo: a (password) is required[^$]*42_")
        other.client.write(b"exit\n")
        await other.client.done
        typist.client.write(b"exit\n")
        said = await typist.end()
    shown = "shown" if PASSWORD.encode() in typist.client.out else "hidden"
    return f"{shown}; {said}; another terminal: a {other.seen[0]} is required"


async def _at_work(typist: Typist, keys: str) -> None:
    """In a shell that ``keys`` start: who it is, Ctrl-C, Ctrl-Z and fg, a new window size, Ctrl-D, and back."""
    await typist.type(keys, "")
    await typist.pause()
    await typist.type("PS1='# '; id -un; echo $((41+1))_\n", r"\n([\w-]+)\r\n(?:.*\r\n)?42_")
    await typist.type("sleep 1000\n", "sleep 1000")
    await typist.pause()
    await typist.type("\x03echo $?_\n", r"\n(130_)")
    await typist.type("sleep 1000\n", "sleep 1000")
    await typist.pause()
    await typist.type("\x1a", "(Stopped)")
    await typist.type("fg\n", "fg\r\nsleep 1000")
    await typist.pause()
    await typist.type("\x03echo $?_\n", r"\n(130_)")
    typist.resize(131, 43)
    await typist.pause()
    await typist.type("stty size\n", r"\n(\d+ \d+)")
    await typist.type("\x04", "")
    await typist.pause()
    await typist.type("echo back $?_\n", r"\n(back 130_|back 0_)")
    typist.client.write(b"exit 0\n")


@behaviour(RIGHTS, "sudo -s: Ctrl-C, Ctrl-Z, fg, window size, Ctrl-D")
async def shell(side: Side) -> str:
    with _sudoers(side, f"Defaults:{side.user} !use_pty"):
        typist = Typist(side)
        await _at_work(typist, "sudo -s\n")
        return await typist.end()


@behaviour(RIGHTS, "sudo -i with use_pty (a terminal of its own): the same, and whether it has one")
async def own_terminal(side: Side) -> str:
    with _sudoers(side, f"Defaults:{side.user} use_pty"):
        typist = Typist(side)
        await typist.type("test $(sudo tty) = $(tty); echo own $?_\n", r"\n(own \d)_")
        await _at_work(typist, "sudo -i\n")
        return await typist.end()


behaviour(RIGHTS, "sudo -i with use_pty, in a session of PAM", pam=True)(own_terminal)


@behaviour(RIGHTS, "sudo of a program that is stopped with its shell's job control (use_pty)")
async def stopped(side: Side) -> str:
    with _sudoers(side, f"Defaults:{side.user} use_pty"):
        typist = Typist(side)
        await typist.type("PS1='> '; echo $((41+1))_\n", "42_")
        await typist.type("sudo sleep 1000\n", "sudo sleep 1000")
        await typist.pause()
        await typist.type("\x1a", "(Stopped) +sudo sleep")
        await typist.type("fg\n", "fg\r\nsudo sleep 1000")
        await typist.pause()
        await typist.type("\x03", r"\^C")
        await typist.pause()
        await typist.type("echo $?_\n", r"\n(\d+_)")
        typist.client.write(b"exit\n")
        return await typist.end()


@behaviour(RIGHTS, "A connection that breaks while sudo runs a command on its own terminal")
async def cut(side: Side) -> str:
    with _sudoers(side, f"Defaults:{side.user} use_pty"):
        typist = Typist(side)
        await typist.type("sudo sh -c 'echo $$.; exec sleep 361'\n", r"\n(\d+)\.")
        typist.client.kill()
        await typist.client.done
        proc = Path("/proc", typist.seen[0])
        return "hung up" if await until(lambda: not proc.exists(), 5) else "goes on"


@behaviour(RIGHTS, "su - from root: Ctrl-C, Ctrl-Z, fg, window size, Ctrl-D")
async def from_root(side: Side) -> str:
    typist = Typist(side, login="root")
    await _at_work(typist, f"su - {side.user}\n")
    return await typist.end()


@behaviour(RIGHTS, "su - with a password")
async def su_password(side: Side) -> str:
    subprocess.run(["chpasswd"], input=f"{side.user}:{PASSWORD}\n", text=True, check=True)
    try:
        typist = Typist(side)
        await typist.type(f"su - {side.user}\n", "(assword): $")
        await typist.pause()
        await _at_work(typist, f"{PASSWORD}\n")
        return await typist.end()
    finally:
        subprocess.run(["usermod", "-p", "*", side.user], check=True)
