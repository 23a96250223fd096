"""An SFTP client that sends what it is told to, to our server and to OpenSSH's, side by side."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import teleconch
from teleconch.sftp import packets

OPENSSH = "/usr/lib/openssh/sftp-server"
ROOT = str(Path(teleconch.__file__).resolve().parents[1])
_CODE = "import sys, os; sys.path.append(sys.argv[1]); from teleconch.node.files.sftp_server import main; "
OURS = [
    sys.executable, "-I", "-S", "-E", "-c",
    _CODE
    + "fd, *user = map(int, sys.argv[2:]); user and (os.setgroups([]), os.setgid(*user), os.setuid(*user)); "
    + "sys.exit(main(None if fd < 0 else fd))",
    ROOT,
]  # fmt: skip


def string(data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + data


def uint32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}L", *numbers)


def uint64(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


class Peer:
    """One server in a process, with ``folder`` as working and home directory."""

    def __init__(self, folder: Path, command: Sequence[str], **how: Any) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"},
            umask=0o022,
            bufsize=0,
            **how,
        )
        self._id = 0

    @classmethod
    def ours(cls, folder: Path, report: int = -1, user: int | None = None) -> Peer:
        """``user`` may be one who cannot read the interpreter: it takes his rights when it is loaded, as the node's."""
        also = () if user is None else (str(user),)
        return cls(folder, [*OURS, str(report), *also], pass_fds=(report,) if report >= 0 else ())

    @classmethod
    def openssh(cls, folder: Path, user: int | None = None) -> Peer:
        how = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        return cls(folder, [OPENSSH], **how)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    def receive(self) -> bytes:
        """One packet without its length; empty at the end."""
        head = self._exactly(4)
        return self._exactly(int.from_bytes(head, "big")) if len(head) == 4 else b""

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size and (piece := self.process.stdout.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def begin(self) -> bytes:
        """INIT; the server's VERSION."""
        self.send(struct.pack(">LBL", 5, packets.INIT, 3))
        return self.receive()

    def post(self, type: int, *fields: bytes) -> int:
        """Send a request without waiting; its id."""
        self._id += 1
        body = struct.pack(">BL", type, self._id) + b"".join(fields)
        self.send(struct.pack(">L", len(body)) + body)
        return self._id

    def ask(self, type: int, *fields: bytes) -> bytes:
        """Send a request; its answer without the id."""
        id = self.post(type, *fields)
        reply = self.receive()
        assert reply[1:5] == uint32(id)
        return reply[:1] + reply[5:]

    def extended(self, name: str, *fields: bytes) -> bytes:
        return self.ask(packets.EXTENDED, string(name.encode()), *fields)

    def open(self, path: bytes, flags: int = 1, attributes: bytes = bytes(4)) -> bytes:
        """The handle, as a field."""
        reply = self.ask(packets.OPEN, string(path), uint32(flags), attributes)
        assert reply[0] == packets.HANDLE, reply
        return reply[1:]

    def close(self) -> int:
        """EOF; the server's exit status."""
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(10)


def code(reply: bytes) -> int:
    """A STATUS's code."""
    assert reply[0] == packets.STATUS, reply
    return int.from_bytes(reply[1:5], "big")


def tree(folder: Path) -> Path:
    """Files for the tests: the same in each folder, with times in the past."""
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"0123456789" * 10)
    (folder / "empty").touch()
    (folder / "private").write_bytes(b"secret")
    (folder / "private").chmod(0o600)
    (folder / "setuid").write_bytes(b"x")
    (folder / "setuid").chmod(0o4755)
    (folder / "dir").mkdir()
    (folder / "dir" / "inner").write_bytes(b"inner")
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o1777)
    (folder / "link").symlink_to("file")
    (folder / "dirlink").symlink_to("dir")
    (folder / "dangling").symlink_to("nowhere/deep")
    (folder / "dangling1").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    for name, minor in ("null", 3), ("full", 7):
        if os.geteuid() == 0:  # own ones: a server that is wrong about a device would break the machine's
            os.mknod(folder / name, 0o600 | stat.S_IFCHR, os.makedev(1, minor))
        else:
            (folder / name).symlink_to(f"/dev/{name}")
    (folder / "new\nline").touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff\xfe")).touch()
    (folder / "two words 'quoted\"").touch()
    with open(folder / "sparse", "wb") as file:
        file.truncate(5 << 30)
    for number, name in enumerate(sorted(os.listdir(folder))):
        os.utime(folder / name, (1e9 + number, 1.1e9 + number), follow_symlinks=False)
    now = int(time.time() - 3600) // 60 * 60  # the same for both servers
    os.utime(folder / "dir" / "inner", (now, now - 7 * 24 * 3600))
    os.utime(folder / "sticky", (now, now + 7 * 24 * 3600))
    for path in folder, folder.parent:
        os.utime(path, (1e9, 1.1e9))
    return folder
