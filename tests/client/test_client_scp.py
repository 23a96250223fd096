"""`tsh scp` to and from a real node."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teleconch.cli.tsh_scp import split_path
from tests.worlds.client import BIN, World, terminal_run

ODD = [
    b"with space",
    b"new\nline",
    b"quo'te\"s",
    b"\xff\xfe",
    b"*star?[x]",
    b"-dash",
    b"$HOME;ls",
    b"back\\slash",
    b".dot",
]


def make_tree(folder: Path) -> Path:
    """Deep, empty, odd names, a link, modes and times."""
    folder.mkdir()
    for number, name in enumerate(ODD):
        (folder / os.fsdecode(name)).write_bytes(os.urandom(number * 1000))
    (folder / "empty").mkdir()
    deep = folder / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "big").write_bytes(os.urandom(5_000_000))
    (deep / "big").chmod(0o751)
    os.utime(deep / "big", (1_000_000_000, 1_000_000_001))
    (folder / "a" / "link").symlink_to("b/c/big")
    os.utime(folder / "a", (1_100_000_000, 1_100_000_001))
    return folder


def contents(folder: Path, exact: bool) -> dict[bytes, Any]:
    """What is in a tree; with ``exact`` modes and times too."""
    found: dict[bytes, Any] = {}
    for base, _, files in os.walk(os.fsencode(folder)):
        for path in (base, *(os.path.join(base, name) for name in files)):
            status = os.stat(path)
            name = os.path.relpath(path, os.fsencode(folder))
            data = Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else None
            found[name] = (data, stat.S_IMODE(status.st_mode), int(status.st_mtime)) if exact else data
    return found


@pytest.mark.parametrize("flags", [("-r",), ("-r", "-p")])
def test_trees_up_and_down(world: World, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A tree comes back as it went, odd names and all; with -p modes and times too."""
    source = make_tree(tmp_path / "source")
    node = f"{world.login}@alpha:{tmp_path}"
    up = world.tsh("scp", *flags, str(source), f"{node}/up")
    assert (up.returncode, up.stdout, up.stderr) == (0, b"", b"")
    down = world.tsh("scp", *flags, f"{node}/up", str(tmp_path / "down"))
    assert (down.returncode, down.stderr) == (0, b"")
    for copy in ("up", "down"):
        assert contents(tmp_path / copy, "-p" in flags) == contents(source, "-p" in flags)
    (tmp_path / "old").mkdir()
    assert world.tsh("scp", *flags, f"{node}/up", str(tmp_path / "old")).returncode == 0
    assert contents(tmp_path / "old" / "up", "-p" in flags) == contents(tmp_path / "up", "-p" in flags)


def test_between_nodes_and_wildcards(world: World, tmp_path: Path) -> None:
    """Files go from node to node through this machine; wildcards mean what they mean in a shell there."""
    for name in ("one.txt", "two.txt", ".three.txt", "four"):
        (tmp_path / name).write_text(name)
    (tmp_path / "to").mkdir()
    node = f"{world.login}@alpha:{tmp_path}"
    done = world.tsh("scp", f"{node}/*.txt", f"{node}/to/")
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(tmp_path / "to")) == ["one.txt", "two.txt"]
    done = world.tsh("scp", f"{node}/[o]ne.txt", f"{world.login}@env=test:{tmp_path}/renamed")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "renamed").read_text() == "one.txt"
    done = world.tsh("scp", "nodir/x", "./a:b", f"{node}/to", cwd=tmp_path)
    assert done.returncode == 1


def test_home_and_kernel_files(world: World, tmp_path: Path) -> None:
    """A path without a slash is in the login's home, and files of the kernel have contents though their size is 0."""
    done = world.tsh("scp", f"{world.login}@alpha:/proc/version", str(tmp_path / "version"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "version").read_bytes().startswith(b"Linux")
    name = f".teleconch-test-{os.getpid()}"
    try:
        assert world.tsh("scp", str(tmp_path / "version"), f"{world.login}@alpha:{name}").returncode == 0
        assert world.tsh("scp", f"{world.login}@alpha:~/{name}", str(tmp_path / "back")).returncode == 0
        assert os.path.exists(os.path.expanduser(f"~/{name}"))
    finally:
        os.path.exists(os.path.expanduser(f"~/{name}")) and os.unlink(os.path.expanduser(f"~/{name}"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "version").read_bytes()


def test_what_fails_is_told_and_the_rest_goes_on(world: World, tmp_path: Path) -> None:
    """One file that fails costs a sentence and the exit status, not the others."""
    (tmp_path / "good").write_text("good")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to").mkdir()
    node = f"{world.login}@alpha:{tmp_path}"
    names = ["missing", "folder", "pipe", "good"]
    for sources, target in (
        ([str(tmp_path / name) for name in names], f"{node}/to"),
        ([f"{node}/{name}" for name in names], str(tmp_path / "to")),
    ):
        done = world.tsh("scp", *sources, target)
        assert done.returncode == 1
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 3, lines
        assert re.match(r"ERROR: .*missing: No such file or directory\.", lines[0])
        assert re.match(r"ERROR: .*folder: it is a directory, which only -r copies\.", lines[1])
        assert re.match(r"ERROR: .*pipe: it is not a regular file\.", lines[2])
        assert (tmp_path / "to" / "good").read_text() == "good"
        (tmp_path / "to" / "good").unlink()
    full = world.tsh("scp", str(tmp_path / "good"), f"{node}/good/x")
    assert full.returncode == 1
    assert full.stderr.startswith(b"ERROR: ")
    several = world.tsh("scp", str(tmp_path / "good"), str(tmp_path / "good"), f"{node}/nowhere")
    assert (several.returncode, b"no such directory to copy into" in several.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a",), b"Say what to copy"),
        (("a", "b"), b"None of these paths is on a node"),
        (("a", "other@alpha:b"), b"joe may not log in as other"),
        (("/etc/passwd", "LOGIN@nosuch:b"), b"No node with the name or address nosuch"),
    ],
)
def test_refusals(world: World, arguments: tuple[str, ...], sentence: bytes) -> None:
    """A mistake is a sentence."""
    done = world.tsh("scp", *(each.replace("LOGIN", world.login) for each in arguments))
    assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr
    assert b"Traceback" not in done.stderr


def test_progress_on_a_terminal(world: World, tmp_path: Path) -> None:
    """A terminal shows the file's name, the part that is done and the rate; -q shows nothing."""
    (tmp_path / "file \x1b[31m").write_bytes(bytes(3_000_000))
    flags = ("scp", str(tmp_path / "file \x1b[31m"), f"{world.login}@alpha:{tmp_path}/out")
    seen = []

    def talk(
        write: Callable[..., Any], expect: Callable[..., Any], terminal: int, process: subprocess.Popen[bytes]
    ) -> None:
        seen.append(expect(rb"(?s)file \?.*100%.*MB/s"))

    assert terminal_run(world, *flags, talk=talk) == 0
    assert (tmp_path / "out").read_bytes() == bytes(3_000_000)


def test_links_that_lead_back(world: World, tmp_path: Path) -> None:
    """A link to a directory is followed, one that leads back up is told once: the copy is no endless nest."""
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    (tmp_path / "other" / "file").write_text("y")
    (tmp_path / "tree" / "deep" / "up").symlink_to("..")
    (tmp_path / "tree" / "over").symlink_to("../other")
    (tmp_path / "other" / "back").symlink_to("../tree")
    node = f"{world.login}@alpha:{tmp_path}"
    for source, target in ((str(tmp_path / "tree"), f"{node}/up"), (f"{node}/tree", str(tmp_path / "down"))):
        done = world.tsh("scp", "-r", source, target)
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 2, done.stderr
        assert done.stderr.count(b"the link leads to a directory that it is in") == 2
        copy = tmp_path / os.path.basename(target)
        assert sorted(os.listdir(copy)) == ["deep", "file", "over"]
        assert (copy / "over" / "file").read_text() == "y"


def test_flags_of_scp(world: World, tmp_path: Path) -> None:
    """What scripts give OpenSSH's scp is understood."""
    (tmp_path / "f").write_text("x")
    flags = ("-B", "-C", "-3", "-O", "-T", "-o", "BatchMode=yes", "-o", "Port=3022")
    done = world.tsh("scp", *flags, str(tmp_path / "f"), f"{world.login}@alpha:{tmp_path}/g")
    assert (done.returncode, done.stderr, (tmp_path / "g").read_text()) == (0, b"", "x")
    done = world.tsh("scp", "-o", "Port=x", "a", "alpha:b")
    assert (done.returncode, b"-o Port=x: ports go from 1 to 65535" in done.stderr) == (2, True)


def test_ctrl_c_and_no_set_user_id(world: World, tmp_path: Path) -> None:
    """Ctrl-C ends a copy at once with the signal's status; a copy never gets the set-user-ID bit."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(20_000_000_000)
    node = f"{world.login}@alpha:{tmp_path}"
    process = subprocess.Popen(
        [BIN / "tsh", "scp", f"{node}/big", "/dev/null"], env=world.env, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + 60
    while int(Path(f"/proc/{process.pid}/io").read_text().split()[3]) < 10_000_000:  # wchar: what it has written
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (130, b"")
    (tmp_path / "suid").write_text("x")
    (tmp_path / "suid").chmod(0o4755)
    assert world.tsh("scp", "-p", f"{node}/suid", str(tmp_path / "plain")).returncode == 0
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("path", "host", "rest"),
    [
        (b"a", "", b"a"),
        (b"./a:b", "", b"./a:b"),
        (b"h:", "h", b"."),
        (b"joe@h:/x:y", "joe@h", b"/x:y"),
        (b"[::1]:x", "::1", b"x"),
        (b"joe@[::1]:x", "joe@::1", b"x"),
        (b"env=prod:x", "env=prod", b"x"),
        (b":x", "", b":x"),
    ],
)
def test_paths(path: bytes, host: str, rest: bytes) -> None:
    """A colon before any slash makes a path one on a node, as with scp."""
    assert split_path(path) == (host, rest)


@pytest.mark.root
def test_other_users_files(world: World, tmp_path: Path) -> None:
    """The node's rights hold: what the login may not read or write stays so."""
    os.chmod(tmp_path, 0o755)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    subprocess.run(["chmod", "o+x", *map(str, list(tmp_path.parents)[:3])], check=False)
    done = world.tsh("scp", f"nobody@alpha:{tmp_path}/secret", str(tmp_path / "got"))
    assert done.returncode == 1
    assert b"ERROR: " in done.stderr
    assert not (tmp_path / "got").exists()
