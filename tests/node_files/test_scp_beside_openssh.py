"""Our scp's far end beside OpenSSH's: the same bytes sent, the same answers and the same files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.raw_sftp import ROOT, tree

pytestmark = pytest.mark.program("scp")

_CODE = "import sys; sys.path.append(sys.argv.pop(1)); from teleconch.node.files.scp import main; sys.exit(main())"
OPENSSH = ["scp"]
OURS = [sys.executable, "-I", "-S", "-c", _CODE, ROOT]


def run(program: list[str], folder: Path, arguments: tuple[str, ...], sent: bytes) -> tuple[int, bytes]:
    """Exit status, and what the program said."""
    done = subprocess.run(
        [*program, *arguments], cwd=folder, input=sent, capture_output=True, umask=0o022, timeout=10, check=False
    )
    return done.returncode, done.stdout


def snapshot(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Every name below, with kind, mode, contents; and the time of change where it lies in the past.

    Whatever lacks rights of its owner gets them, so that an ordinary user can read it here, and remove it afterwards.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            whole = os.path.join(path, name)
            info = os.lstat(whole)
            if not stat.S_ISLNK(info.st_mode):
                os.chmod(whole, stat.S_IMODE(info.st_mode) | stat.S_IRWXU)
            contents: object = None
            if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 20:
                with open(whole, "rb") as file:
                    contents = file.read()
            changed = int(info.st_mtime) if info.st_mtime < 1.2e9 else None
            found[os.path.relpath(whole, os.fsencode(folder))] = (oct(info.st_mode), info.st_size, changed, contents)
    return found


SINKS: dict[str, tuple[tuple[str, ...], bytes]] = {
    "a file by name": (("-t", "made"), b"C0644 5 x\nhello\0"),
    "a file into a directory": (("-t", "dir"), b"C0600 5 x\nhello\0"),
    "over a file": (("-t", "file"), b"C0600 5 x\nhello\0"),
    "over a longer file in a directory": (("-t", "."), b"C0755 2 file\nhi\0"),
    "two files": (("-t", "dir"), b"C0600 1 x\nA\0C0666 0 y\n\0"),
    "times": (("-p", "-t", "dir"), b"T1000000000 0 900000000 0\nC0666 1 x\nA\0"),
    "times and set-uid": (("-p", "-t", "dir"), b"T1000000000 0 900000000 0\nC4755 1 x\nA\0"),
    "modes without -p": (("-t", "dir"), b"C4777 1 x\nA\0C0222 1 y\nB\0C0444 1 z\nC\0"),
    "a tree": (("-r", "-t", "dir"), b"D0755 0 a\nC0644 1 x\nA\0D0500 0 b\nC0400 1 y\nB\0E\nE\nC0644 1 z\nC\0"),
    "a tree by name": (("-r", "-t", "made"), b"D0755 0 a\nC0644 1 x\nA\0E\n"),
    "a tree over a file": (("-r", "-t", "."), b"D0755 0 file\nC0644 1 x\nA\0E\n"),
    "a tree over a tree": (("-r", "-p", "-t", "."), b"T1000000000 0 5 0\nD0700 0 dir\nC0644 1 inner\nA\0E\n"),
    "a tree through a link": (("-r", "-t", "."), b"D0700 0 dirlink\nC0644 1 inner\nA\0E\n"),
    "a tree that ends early": (("-r", "-p", "-t", "."), b"T1000000000 0 5 0\nD0700 0 new\nC0644 1 inner\nA\0"),
    "a tree without -r": (("-t", "."), b"D0755 0 a\nC0644 1 x\nA\0E\n"),
    "through a link": (("-t", "."), b"C0644 3 link\nnew\0"),
    "through a dangling link": (("-t", "."), b"C0644 3 dangling1\nnew\0"),
    "through a loop": (("-t", "."), b"C0644 3 loop\nnew\0"),
    "onto a directory": (("-t", "."), b"C0644 3 dir\nnew\0"),
    "then another": (("-t", "."), b"C0644 3 dir\nC0644 2 after\nab\0"),
    "-d and a directory": (("-d", "-t", "dir"), b"C0644 1 x\nA\0"),
    "-d and a file": (("-d", "-t", "file"), b"C0644 1 x\nA\0"),
    "-d and nothing": (("-d", "-t", "nope"), b"C0644 1 x\nA\0"),
    "no such directory": (("-t", "nope/x"), b"C0644 1 x\nA\0"),
    "below a file": (("-t", "file/x"), b"C0644 1 x\nA\0"),
    "two targets": (("-t", "dir", "file"), b"C0644 1 x\nA\0"),
    "no target": (("-t",), b"C0644 1 x\nA\0"),
    "a name with a slash": (("-t", "dir"), b"C0644 1 ../x\nA\0"),
    "an absolute name": (("-t", "dir"), b"C0644 1 /tmp/x\nA\0"),
    "two dots": (("-r", "-t", "dir"), b"D0755 0 ..\nC0644 1 x\nA\0E\n"),
    "one dot": (("-t", "dir"), b"C0644 1 .\nA\0"),
    "no name": (("-t", "dir"), b"C0644 1 \nA\0"),
    "a name by itself with a slash": (("-t", "made"), b"C0644 1 a/b\nA\0"),
    "odd names": (
        ("-t", "dir"),
        b"C0644 1  a b\nA\0C0644 1 \xff\xfe\nB\0C0644 1 -rf\nC\0C0644 1 *\nD\0C0644 1 \x1b[1m\nE\0",
    ),
    "a source's error": (("-t", "dir"), b"\x01scp: x: Permission denied\nC0644 1 y\nA\0"),
    "a source's end": (("-t", "dir"), b"\x02scp: x: Permission denied\nC0644 1 y\nA\0"),
    "an error behind the data": (("-t", "dir"), b"C0644 1 y\nA\x01scp: y: Input/output error\nC0644 1 z\nB\0"),
    "a shell's words": (("-t", "dir"), b"This account is closed.\nC0644 1 y\nA\0"),
    "a strange line later": (("-t", "dir"), b"C0644 1 y\nA\0what\n"),
    "an empty line": (("-t", "dir"), b"\nC0644 1 y\nA\0"),
    "bad mode": (("-t", "dir"), b"C0648 1 y\nA\0"),
    "short mode": (("-t", "dir"), b"C064 1 y\nA\0"),
    "long mode": (("-t", "dir"), b"C00644 1 y\nA\0"),
    "no size": (("-t", "dir"), b"C0644 y\nA\0"),
    "negative size": (("-t", "dir"), b"C0644 -1 y\nA\0"),
    "no name at all": (("-t", "dir"), b"C0644 1\nA\0"),
    "huge size": (("-t", "dir"), b"C0644 9223372036854775808 y\nA\0"),
    "bad times": (("-t", "dir"), b"Tx 0 1 0\nC0644 1 y\nA\0"),
    **{
        f"times {times!r}": (("-pt", "dir"), b"T%s\nC0644 1 y\nA\0" % times)
        for times in (
            *(
                b"",
                b"1",
                b"1 0",
                b"1 0 1",
                b"1 0 1 ",
                b"1 0 1 0 0",
                b"1 1000000 1 0",
                b"1 x 1 0",
                b"1 0 x 0",
                b"1 0 1 x",
            ),
            *(b"99999999999999999999 0 1 0", b"1 -1 1 0", b"1x 0 1 0", b"1 0 1x 0", b"1 0x 1 0", b" 1 0 1 0"),
            *(b"1 0  1 0", b"1 0 1 0x", b"-1 0 1 0", b"1 999999 1 999999"),
        )
    },
    "data cut off": (("-t", "dir"), b"C0644 10 y\n"),
    "line cut off": (("-t", "dir"), b"C0644 10"),
    "nothing sent": (("-t", "dir"), b""),
    "a full disk": (("-t", "full device"), b"C0644 5 y\nhello\0"),
    "a device": (("-t", "null device"), b"C0644 5 y\nhello\0"),
    "flags together": (("-vrpt", "dir"), b"T5 0 6 0\nC0600 1 x\nA\0"),
    "behind two dashes": (("-t", "--", "-x"), b"C0600 1 x\nA\0"),
}


def devices(folder: Path) -> None:
    """Devices of our own: OpenSSH's scp sets the mode of what it writes to, which as root would spoil ``/dev/null``."""
    for name, minor in ("null", 3), ("full", 7):
        path = folder / f"{name} device"
        if os.geteuid() == 0:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        else:
            path.symlink_to(f"/dev/{name}")


@pytest.mark.parametrize("name", SINKS)
def test_sink(tmp_path: Path, name: str) -> None:
    """`scp -O file HOST:` does with files what it does with sshd, also where something is wrong."""
    arguments, sent = SINKS[name]
    results = []
    for program in OPENSSH, OURS:
        here = tree(tmp_path / "parent" / "here")
        if arguments[-1].endswith("device"):
            devices(here)
        results.append((run(program, here, arguments, sent), snapshot(here.parent)))
        subprocess.run(["rm", "-rf", here.parent], check=True)
    assert results[1] == results[0]


YES = bytes(200)
SOURCES: dict[str, tuple[tuple[str, ...], bytes]] = {
    "a file": (("-f", "file"), YES),
    "an empty file": (("-f", "empty"), YES),
    "with times": (("-p", "-f", "file"), YES),
    "several": (("-f", "file", "nope", "dir", "setuid", "fifo", "loop", "link", "dangling"), YES),
    "a tree": (("-r", "-f", "dir"), YES),
    "a tree with times": (("-r", "-p", "-f", "dir/"), YES),
    "a tree through a link": (("-r", "-f", "dirlink"), YES),
    "a dot": (("-r", "-f", "dir/."), YES),
    "odd names": (("-f", "new\nline", "two words 'quoted\"", "odd\udcff\udcfe"), YES),
    "slashes": (("-f", "file///"), YES),
    "nothing": (("-f",), YES),
    "refused at the start": (("-f", "file"), b"\x01no\n" + YES),
    "a file refused": (("-f", "file", "setuid"), b"\0\x01no\n" + YES),
    "times refused": (("-p", "-f", "file", "setuid"), b"\0\x01no\n" + YES),
    "a file refused for good": (("-f", "file", "setuid"), b"\0\x02no\n" + YES),
    "data refused": (("-f", "file", "setuid"), b"\0\0\x01disk full\n" + YES),
    "a directory refused": (("-r", "-f", "dir", "setuid"), b"\0\x01no\n" + YES),
    "the client goes": (("-f", "file"), b"\0"),
    "the client never comes": (("-f", "file"), b""),
    "behind two dashes": (("-r", "-f", "--", "file"), YES),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(tmp_path: Path, name: str) -> None:
    """`scp -O HOST:file .` gets what it gets from sshd, also where something is wrong."""
    arguments, answers = SOURCES[name]
    results = []
    for program in OPENSSH, OURS:
        here = tree(tmp_path / "parent" / "here")
        results.append(run(program, here, arguments, answers))
        subprocess.run(["rm", "-rf", here.parent], check=True)
    assert results[1] == results[0]


def test_every_byte_in_a_name(tmp_path: Path) -> None:
    """A name that has a newline is shown, in one line, as by OpenSSH's scp."""
    every = bytes(byte for byte in range(1, 256) if byte not in (0x2F, 0xAF))  # OpenSSH takes \\M-/ for a path
    for part in every[:200], every[100:]:
        name = os.fsdecode(b"\n" + part)
        (tmp_path / name).touch()
        assert run(OURS, tmp_path, ("-f", name), YES) == run(OPENSSH, tmp_path, ("-f", name), YES)
