"""Clients for files of both servers: sftp and scp over one shared connection, and SFTP request by request."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ProcessExitedAlready

from teleconch.sftp import packets as p
from teleconch.ssh.channel import Channel
from tests.interop.conformance import Side, until
from tests.worlds.node import Client, Result
from tests.worlds.raw_sftp import string, uint32
from tests.worlds.reactor import reactor
from tests.worlds.waiting import reply

PAST = 1_000_000_000
SLOW = 25  # seconds for one run of a program

# --- places ----------------------------------------------------------------------------------------------------------


def as_user(side: Side, script: str, cwd: Path | None = None) -> None:
    """Run a few lines of sh on this machine as the side's user, at home."""
    entry = pwd.getpwnam(side.user)
    subprocess.run(
        ["sh", "-ec", script],
        cwd=cwd or side.home,
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        umask=0o022,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(side.home), "LC_ALL": "C.UTF-8"},
    )


def remote(side: Side, script: str = "") -> Path:
    """The folder ``w`` in the user's home, made anew, after ``script`` has run in it as the user."""
    folder = side.home / "w"
    _forget(folder)
    as_user(side, f"mkdir w; cd w; {script}")
    return folder


def local(side: Side, script: str = "") -> Path:
    """The client's folder, made anew, after ``script`` has run in it."""
    folder = side.world.path / f"local-{side.name}"
    _forget(folder)
    folder.mkdir()
    subprocess.run(["sh", "-ec", script], cwd=folder, umask=0o022, check=True)
    return folder


def _forget(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(os.fsencode(folder))


@contextmanager
def volume(side: Side, options: str) -> Iterator[Path]:
    """A small volume at ``w/volume``, which belongs to the user."""
    folder = remote(side, "mkdir volume") / "volume"
    uid = pwd.getpwnam(side.user).pw_uid
    mount = ["mount", "-t", "tmpfs", "-o", f"{options},uid={uid},mode=755", "tmpfs", str(folder)]
    assert subprocess.run(mount, capture_output=True, check=False).returncode == 0, "nothing can be mounted here"
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def tree(folder: Path, *, times: bool = False, modes: bool = True) -> str:
    """Each name with its mode, contents or size, and the seconds since :data:`PAST` where asked for."""
    base = os.fsencode(folder)
    found = []
    for path, folders, files in os.walk(base):
        for name in folders + files:
            whole = path + b"/" + name
            found.append((whole[len(base) + 1 :], _one(whole, times, modes)))
    return ", ".join(f"{readable(name)}{what}" for name, what in sorted(found)) or "nothing"


def _one(path: bytes, times: bool, modes: bool) -> str:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return f" -> {readable(os.readlink(path))}"
    said = "/" if stat.S_ISDIR(info.st_mode) else ""
    if modes:
        said += f" {stat.S_IMODE(info.st_mode):o}"
    if stat.S_ISREG(info.st_mode):
        said += f" {Path(os.fsdecode(path)).read_text()!r}" if info.st_size < 12 else f" {info.st_size} bytes"
    if times:
        said += f" @{int(info.st_mtime) - PAST}" if info.st_mtime < PAST + 10**8 else " @now"
    return said


def readable(text: bytes) -> str:
    """A name with its odd bytes written out."""
    shown = text.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown)


# --- programs --------------------------------------------------------------------------------------------------------


async def shared(side: Side) -> str:
    """A connection that all runs of a group share: its socket."""
    if "master" not in side.facts:
        path = side.world.path / f"files-{side.name}"
        line = [*side.world.ssh_line("-N", "-M", "-S", str(path), login=side.user), "127.0.0.1"]
        side.world.clients.append(_spawn(side, line, None))  # without a deadline: it lives as long as the group
        assert await until(path.exists)
        side.facts["master"] = str(path)
    return str(side.facts["master"])


class _Program(Client):
    """One that may have ended by itself just now, as the node was stopped."""

    def kill(self) -> None:
        with suppress(ProcessExitedAlready):
            super().kill()


def _spawn(side: Side, line: list[str], stdin: bytes | None, cwd: Path | None = None) -> Client:
    client = _Program(stdin)
    environment = {"PATH": os.environ["PATH"], "HOME": str(side.world.path), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    reactor.spawnProcess(client, line[0], line, environment, path=None if cwd is None else str(cwd))
    return client


async def start(side: Side, program: str, *arguments: str, stdin: bytes | None = b"", alone: bool = False) -> Client:
    """Run scp or sftp in the client's folder. ``alone``: over a connection of its own."""
    options = side.world.ssh_line(login=side.user)[1:]
    for at, port in enumerate(options):  # the one letter that is not the same for all
        if port == "-p":
            options[at : at + 2] = ["-o", f"Port={options[at + 1]}"]
        elif port == "-l":
            options[at : at + 2] = ["-o", f"User={options[at + 1]}"]
    options += [] if alone else ["-o", f"ControlPath={await shared(side)}"]
    folder = side.world.path / f"local-{side.name}"
    folder.mkdir(exist_ok=True)
    client = _spawn(side, [program, *options, *arguments], stdin, folder)
    client.done.addTimeout(SLOW, reactor, lambda result, _: _late(client, result))
    side.world.clients.append(client)
    return client


def _late(client: Client, result: object) -> Result:
    client.kill()
    return Result(client.out, client.err, None, None)


async def scp(side: Side, *arguments: str, alone: bool = False) -> Result:
    """scp to its end; ``HOST:`` at the front of a word is the server."""
    words = [f"127.0.0.1:{word[5:]}" if word.startswith("HOST:") else word for word in arguments]
    return await (await start(side, "scp", "-q", *words, alone=alone)).done


async def sftp(side: Side, *commands: str, options: tuple[str, ...] = (), alone: bool = False, to: str = "") -> Result:
    """sftp with a batch of commands, which are not echoed."""
    batch = "".join(f"{each}\n" for each in commands).encode("utf-8", "surrogateescape")
    words = (*options, "-q", "-b", "-", f"127.0.0.1{to}")
    result = await (await start(side, "sftp", *words, stdin=batch, alone=alone)).done
    said = [line for line in result.out.splitlines() if not line.startswith(b"sftp> ")]
    return Result(b"\n".join(said), result.err, result.code, result.signal)


def words(side: Side, result: Result, *, ordered: bool = True) -> str:
    """What a run said, and its status: the same words on both sides. ``ordered=False``: of several files, of which the
    order is the file system's."""
    lines = [readable(line) for line in (result.out + b"\n" + result.err).replace(b"\r", b"").split(b"\n")]
    lines = [line for line in lines if not line.startswith(("Entering ", "Retrieving "))]
    said = " ".join(filter(None, lines if ordered else sorted(lines)))
    for own, name in (
        (str(side.world.path / f"local-{side.name}"), "LOCAL"),
        (str(side.home), "HOME"),
        (side.user, "USER"),
        (str(side.world.port), "PORT"),
    ):
        said = said.replace(own, name)
    return f"{said} ({result.code})".strip()


# --- SFTP, request by request ----------------------------------------------------------------------------------------


class Sftp(Channel):
    """The subsystem, asked by hand."""

    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.status: int | None = None
        self._heard = bytearray()
        self._over = False
        self._due: Deferred[None] | None = None
        self._id = 0

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        self._wake()

    def request_exit_status(self, data: bytes) -> bool:
        self.status = int.from_bytes(data, "big")
        return True

    def closed(self) -> None:
        self._over = True
        self._wake()

    def _wake(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            due.callback(None)

    async def receive(self, patience: float = 10) -> bytes | None:
        """One packet without its length; empty when the channel is closed, ``None`` when none comes."""
        while True:
            size = int.from_bytes(self._heard[:4], "big")
            if len(self._heard) >= 4 + size > 4:
                packet = bytes(self._heard[4 : 4 + size])
                del self._heard[: 4 + size]
                return packet
            if self._over:
                return b""
            self._due = Deferred()
            try:
                await self._due.addTimeout(patience, reactor)
            except DeferredTimeout:
                self._due = None
                return None

    async def begin(self, version: int = 3) -> bytes | None:
        """INIT; the server's VERSION."""
        self.write(struct.pack(">LBL", 5, p.INIT, version))
        return await self.receive()

    def post(self, type: int, *fields: bytes) -> None:
        """Send a request without waiting."""
        self._id += 1
        body = struct.pack(">BL", type, self._id) + b"".join(fields)
        self.write(uint32(len(body)) + body)

    async def ask(self, type: int, *fields: bytes, patience: float = 10) -> bytes | None:
        """Send a request; its answer without the id."""
        self.post(type, *fields)
        reply = await self.receive(patience)
        if not reply:
            return reply
        assert reply[1:5] == uint32(self._id), reply
        return reply[:1] + reply[5:]

    async def extended(self, name: str, *fields: bytes) -> bytes | None:
        return await self.ask(p.EXTENDED, string(name.encode()), *fields)

    async def open(self, path: bytes, flags: int = 1, attributes: bytes = bytes(4)) -> bytes:
        """The handle, as a field."""
        reply = await self.ask(p.OPEN, string(path), uint32(flags), attributes)
        assert reply is not None, path
        assert reply[:1] == bytes((p.HANDLE,)), said(reply)
        return reply[1:]

    async def tried(self, type: int, *fields: bytes) -> str:
        """The answer in words."""
        return said(await self.ask(type, *fields))


def said(reply: bytes | None) -> str:
    """An answer in a few words: a STATUS's sentence and code, or what came. Every failure (code 4) is the same here;
    what it is called has a row of its own."""
    if reply is None:
        return "no answer"
    if not reply:
        return "the server ends"
    if reply[0] == p.STATUS:
        code = int.from_bytes(reply[1:5], "big")
        sentence = "Failure" if code == p.FAILURE else sentence_of(reply)
        return "ok" if code == p.OK else f"{sentence} [{code}]"
    if reply[0] == p.DATA:
        return f"{len(reply) - 5} bytes"
    if reply[0] == p.NAME:
        return readable(p.Reader(reply, 5).string())
    return {p.HANDLE: "opened", p.ATTRS: "attributes", p.EXTENDED_REPLY: "answered"}.get(reply[0], f"type {reply[0]}")


def sentence_of(status: bytes | None) -> str:
    """What a STATUS says beside its code."""
    assert status is not None
    assert status[0] == p.STATUS, status
    return p.Reader(status, 5).string().decode()


@asynccontextmanager
async def requests(side: Side, begin: bool = True) -> AsyncIterator[Sftp]:
    """A channel with the subsystem, in the folder ``w`` of the user's home if names begin with ``w/``."""
    connection = await side.connect()
    channel = Sftp()
    try:
        await connection.open(channel)
        await reply(connection.sendRequest(channel, b"subsystem", string(b"sftp"), 1))
        if begin:
            await channel.begin()
        yield channel
    finally:
        connection.close()
        await connection.disconnected
