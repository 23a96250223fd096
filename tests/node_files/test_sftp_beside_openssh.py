"""Our SFTP server beside OpenSSH's: the same requests, the same answers, byte for byte."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teleconch.sftp import packets as p
from tests.worlds.node import ME
from tests.worlds.raw_sftp import Peer, code, string, tree, uint32, uint64

pytestmark = pytest.mark.program("/usr/lib/openssh/sftp-server")

NO_ATTRIBUTES = uint32(0)
READ, WRITE, APPEND, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32
ODD = b"odd\xff\xfe"
NOBODY = 65534
LONG = b"n" * 300

Talk = Callable[[Peer], Iterator[bytes]]


def each(type: int, *paths: bytes) -> Talk:
    """One request for each path."""

    def talk(peer: Peer) -> Iterator[bytes]:
        for path in paths:
            yield peer.ask(type, string(path))

    return talk


PATHS = (
    b"file", b"", b".", b"..", b"/", b"nope", b"nope/x", b"file/x", b"file/", b"dir/", b"link", b"dirlink", b"dirlink/",
    b"dirlink/..", b"dirlink/inner", b"dangling", b"dangling1", b"loop", b"loop/x", b"fifo", ODD, b"new\nline",
    b"two words 'quoted\"", b"sparse", b"setuid", b"sticky", LONG, b"a/" * 3000, b"./dir//./inner", b"nope/", b"nope/.",
    b"nope/..", b"file/..", b"/nope", b"/usr/../usr/bin/env", b"~", b"dir/../nope/../dir",
)  # fmt: skip


def opening(peer: Peer) -> Iterator[bytes]:
    for path in PATHS:
        if path not in (b"fifo",):
            yield peer.ask(p.OPEN, string(path), uint32(READ), NO_ATTRIBUTES)
    for flags in (
        0, WRITE, READ | WRITE, CREATE, WRITE | CREATE | EXCLUSIVE, READ | TRUNCATE, APPEND, APPEND | WRITE,
        WRITE | CREATE | TRUNCATE, EXCLUSIVE, 0xFFFFFFC0, 0xFFFFFFFF,
    ):  # fmt: skip
        for path in b"file", b"made", b"dir", b"dangling1", b"loop", b"link":
            yield peer.ask(p.OPEN, string(path), uint32(flags), NO_ATTRIBUTES)
            yield peer.ask(p.STAT, string(path))[:9]


def modes_of_new_files(peer: Peer) -> Iterator[bytes]:
    for number, mode in enumerate((0o777, 0o600, 0o4755, 0o2777, 0o100644, 0)):
        name = b"new%d" % number
        attributes = uint32(4, mode)
        yield peer.ask(p.OPEN, string(name), uint32(WRITE | CREATE), attributes)
        yield peer.ask(p.STAT, string(name))[1:25]
        yield peer.ask(p.MKDIR, string(b"d" + name), attributes)
        yield peer.ask(p.STAT, string(b"d" + name))[13:25]
    yield peer.ask(p.MKDIR, string(b"plain"), NO_ATTRIBUTES)
    yield peer.ask(p.STAT, string(b"plain"))[13:25]


def reading(peer: Peer) -> Iterator[bytes]:
    handle = peer.open(b"file")
    for offset, length in (
        (0, 10), (95, 10), (100, 1), (200, 5), (0, 0), (100, 0), (0, 0xFFFFFFFF), (2**63, 5), (2**64 - 1, 5),
        (2**63 - 1, 5), (0, 300_000),
    ):  # fmt: skip
        yield peer.ask(p.READ, handle, uint64(offset), uint32(length))
    yield peer.ask(p.READ, string(b"none"), uint64(0), uint32(5))
    yield peer.ask(p.READ, string(b""), uint64(0), uint32(5))
    yield peer.ask(p.READ, string(b"too long for a handle"), uint64(0), uint32(5))
    yield peer.ask(p.WRITE, handle, uint64(0), string(b"x"))
    sparse = peer.open(b"sparse")
    yield peer.ask(p.READ, sparse, uint64((5 << 30) - 3), uint32(10))
    yield peer.ask(p.READ, sparse, uint64(4 << 30), uint32(1 << 20))
    yield peer.ask(p.FSTAT, sparse)
    folder = peer.open(b"dir")
    yield peer.ask(p.READ, folder, uint64(0), uint32(5))
    listing = peer.ask(p.OPENDIR, string(b"dir"))[1:]
    yield peer.ask(p.READ, listing, uint64(0), uint32(5))
    yield peer.ask(p.FSTAT, listing)
    yield peer.ask(p.CLOSE, listing)
    yield peer.ask(p.CLOSE, listing)
    yield peer.ask(p.READDIR, listing)
    yield peer.ask(p.READDIR, handle)
    yield peer.ask(p.CLOSE, handle)
    yield peer.ask(p.CLOSE, handle)
    yield peer.ask(p.READ, handle, uint64(0), uint32(5))


def writing(peer: Peer) -> Iterator[bytes]:
    handle = peer.open(b"out", READ | WRITE | CREATE | TRUNCATE)
    for offset, data in ((0, b"begin"), (10, b"gap"), (5, b""), (2**63, b"x"), (2**63 - 1, b"x"), (6 << 30, b"far")):
        yield peer.ask(p.WRITE, handle, uint64(offset), string(data))
    yield peer.ask(p.READ, handle, uint64(0), uint32(20))
    yield peer.ask(p.FSTAT, handle)[:25]
    yield peer.ask(p.READ, handle, uint64((6 << 30) - 1), uint32(20))
    yield peer.ask(p.CLOSE, handle)
    handle = peer.open(b"file", WRITE | APPEND)
    yield peer.ask(p.WRITE, handle, uint64(3), string(b"added"))
    yield peer.ask(p.WRITE, handle, uint64(2**63), string(b"added"))
    yield peer.ask(p.READ, handle, uint64(0), uint32(5))
    yield peer.ask(p.CLOSE, handle)
    handle = peer.open(b"file")
    yield peer.ask(p.READ, handle, uint64(0), uint32(300))
    yield peer.ask(p.WRITE, string(b"none"), uint64(0), string(b"x"))
    yield peer.ask(p.WRITE, peer.open(b"full", WRITE), uint64(0), string(b"x"))


def listing(peer: Peer) -> Iterator[bytes]:
    for path in b".", b"dir", b"dirlink", b"nope", b"file", b"loop", b"", b"sticky":
        reply = peer.ask(p.OPENDIR, string(path))
        if reply[0] != p.HANDLE:
            yield reply
            continue
        found = []
        while (names := peer.ask(p.READDIR, reply[1:]))[0] == p.NAME:
            reader = p.Reader(names, 5)
            while reader.rest():
                name, line = reader.string(), reader.string()
                attributes = [reader.uint32(), reader.uint64(), *(reader.uint32() for _ in range(5))]
                if name in (b".", b".."):  # their times are the test's own
                    line, attributes = line[:10], attributes[:1]
                found.append(repr((name, line, attributes)).encode())
        yield names
        yield from sorted(found)


def setting(peer: Peer) -> Iterator[bytes]:
    handle = peer.open(b"file", READ | WRITE)
    for attributes in (
        NO_ATTRIBUTES, uint32(4, 0o640), uint32(4, 0o107755), uint32(8, 5, 6), uint32(8, 2**32 - 1, 2**31),
        uint32(1) + uint64(7), uint32(1) + uint64(6 << 30), uint32(1) + uint64(2**63), uint32(1) + uint64(2**63 - 1),
        uint32(2, 12, 34), uint32(2, 2**32 - 1, 2**32 - 1), uint32(15) + uint64(3) + uint32(1, 1, 0o600, 7, 8),
        uint32(0x80000000, 1) + string(b"a@b") + string(b"c"), uint32(5) + uint64(2**63) + uint32(0o755),
    ):  # fmt: skip
        for path in b"file", b"link", b"dir", b"nope", b"file/x", b"dangling", b"loop", b"":
            yield peer.ask(p.SETSTAT, string(path), attributes)
        yield peer.ask(p.STAT, string(b"file"))
        yield peer.ask(p.LSTAT, string(b"link"))
        yield peer.ask(p.FSETSTAT, handle, attributes)
        yield peer.ask(p.FSTAT, handle)
        yield peer.ask(p.FSETSTAT, string(b"none"), attributes)
        for path in b"setuid", b"link", b"nope", b"dir", b"dangling":
            yield peer.extended("lsetstat@openssh.com", string(path), attributes)
            yield peer.ask(p.LSTAT, string(path))
    reader = peer.open(b"empty")
    yield peer.ask(p.FSETSTAT, reader, uint32(1) + uint64(5))


def removing(peer: Peer) -> Iterator[bytes]:
    for path in b"nope", b"dir", b"file/x", b"loop", b"link", ODD, b"new\nline", b"", b"/", b".", b"empty", b"/proc/1":
        yield peer.ask(p.RMDIR, string(path))
        yield peer.ask(p.REMOVE, string(path))
    yield peer.ask(p.REMOVE, string(b"dir/inner"))
    yield peer.ask(p.RMDIR, string(b"dir"))
    yield peer.ask(p.MKDIR, string(b"file"), NO_ATTRIBUTES)
    yield peer.ask(p.MKDIR, string(b"nope/x"), NO_ATTRIBUTES)
    yield peer.ask(p.MKDIR, string(b""), NO_ATTRIBUTES)


def renaming(peer: Peer) -> Iterator[bytes]:
    for rename in (
        lambda *pair: peer.ask(p.RENAME, *pair),
        lambda *pair: peer.extended("hardlink@openssh.com", *pair),
        lambda *pair: peer.extended("posix-rename@openssh.com", *pair),
    ):
        for old, new in (
            (b"file", b"file2"), (b"file2", b"private"), (b"file2", b"file2"), (b"nope", b"file"), (b"dir", b"sticky"),
            (b"link", b"link2"), (b"link2", b"dangling1"), (b"dangling", b"d2"), (b"empty", b"nope/x"),
            (b"empty", b"/dev/shm/other-file-system-x"), (b"/dev/shm/other-file-system-x", b"empty"),
            (b"dir", b"dir2"), (b"dir2", b"dir2/sub"), (b"dir2", b"file2"), (b"file2", b"file"), (b"dir2", b"dir"),
            (b"fifo", b"fifo2"), (b"fifo2", b"fifo"), (b"", b"x"), (b"empty", b""), (b"file", LONG),
            (b"link2", b"link"), (b"d2", b"dangling"),
        ):  # fmt: skip
            yield rename(string(old), string(new))
            yield peer.ask(p.LSTAT, string(old))[:17]
            yield peer.ask(p.LSTAT, string(new))[:17]


def links(peer: Peer) -> Iterator[bytes]:
    for path in b"link", b"dangling", b"file", b"nope", b"loop", b"":
        yield peer.ask(p.READLINK, string(path))
    for target, path in (
        (b"file", b"made1"), (b"not there", b"made2"), (b"file", b"file"), (b"", b"made3"), (b"x", b"nope/y"),
        (ODD, b"made4"), (b"x", b""), (b"x" * 5000, b"made5"),
    ):  # fmt: skip
        yield peer.ask(p.SYMLINK, string(target), string(path))
        yield peer.ask(p.READLINK, string(path))


def extensions(peer: Peer) -> Iterator[bytes]:
    yield peer.extended("nobody@knows", string(b"x"))
    yield peer.extended("")
    yield peer.extended("limits@openssh.com")[:26]  # the number of handles is each server's own
    for path in (b"~", b"~/", b"~/x", b"~root", b"~root/", b"~root/..", b"~root//x", b"~nosuch/x", b"x", b"", b"nope/x",
                 b"/usr/../tmp", b"dirlink/..", b"x~", b"~//file"):  # fmt: skip
        yield peer.extended("expand-path@openssh.com", string(path))
    for user in ME, "nosuch":
        yield peer.extended("home-directory", string(user.encode()))
    for ids in uint32(0, 4444, 0), b"", uint32(1):
        yield peer.extended("users-groups-by-id@openssh.com", string(ids), string(uint32(0, 5555)))
        yield peer.extended("users-groups-by-id@openssh.com", string(b""), string(ids))
    handle = peer.open(b"file", READ | WRITE)
    reply = peer.ask(p.OPENDIR, string(b"dir"))[1:]
    for which in handle, string(b"none"), reply:
        yield peer.extended("fsync@openssh.com", which)
        yield _volume(peer.extended("fstatvfs@openssh.com", which))
    for path in b".", b"/proc", b"nope", b"/dev/shm", b"file":
        yield _volume(peer.extended("statvfs@openssh.com", string(path)))


def _volume(reply: bytes) -> bytes:
    """Free blocks and files change from one moment to the next."""
    return reply[:25] + reply[65:] if reply[0] == p.EXTENDED_REPLY else reply


def copying(peer: Peer) -> Iterator[bytes]:
    def copy(source: bytes, at: int, size: int, target: bytes, to: int) -> bytes:
        return peer.extended("copy-data", source, uint64(at, size), target, uint64(to))

    source = peer.open(b"file")
    target = peer.open(b"copy", READ | WRITE | CREATE)
    again = peer.open(b"file", READ | WRITE)
    append = peer.open(b"private", READ | WRITE | APPEND)
    listing = peer.ask(p.OPENDIR, string(b"dir"))[1:]
    for fields in (  # not: shorter sources, targets that cannot be written; see test_copy_that_fails
        (source, 0, 0, target, 0), (source, 5, 10, target, 200), (source, 100, 0, target, 0),
        (source, 300, 0, target, 0), (source, 0, 5, source, 50), (source, 0, 5, again, 50),
        (source, 2**63, 5, target, 0), (source, 0, 5, target, 2**63), (string(b"none"), 0, 5, target, 0),
        (source, 0, 5, string(b"none"), 0), (listing, 0, 5, target, 0), (source, 0, 5, append, 1),
        (source, 0, 0, append, 1),
    ):  # fmt: skip
        yield copy(*fields)
        yield peer.ask(p.READ, target, uint64(0), uint32(1000))
    yield peer.ask(p.READ, append, uint64(0), uint32(1000))


TALKS: dict[str, Talk] = {
    "stat": each(p.STAT, *PATHS),
    "lstat": each(p.LSTAT, *PATHS),
    "realpath": each(p.REALPATH, *PATHS),
    "open": opening,
    "modes of new files": modes_of_new_files,
    "read": reading,
    "write": writing,
    "list": listing,
    "set": setting,
    "remove": removing,
    "rename": renaming,
    "links": links,
    "extensions": extensions,
    "copy": copying,
}


def _both(tmp_path: Path, talk: Talk, user: int | None = None) -> None:
    """Hold the same talk with both, each in the same folder's place and within one second of the clock, and compare."""
    for _ in range(10):
        begin, replies = int(time.time()), []
        for start in Peer.openssh, Peer.ours:
            here = tree(tmp_path / "parent" / "here")
            peer = start(here, user=user)
            peer.begin()
            replies.append(list(talk(peer)))
            assert peer.close() == 0
            subprocess.run(["rm", "-rf", here.parent, "/dev/shm/other-file-system-x"], check=True)
        if int(time.time()) == begin:
            break
    theirs, ours = replies
    for number, (expected, got) in enumerate(zip(theirs, ours, strict=True)):
        if expected[:1] == bytes([p.HANDLE]):  # a handle is each server's own
            assert got[:1] == expected[:1], number
        elif expected[:5] == bytes([p.STATUS]) + uint32(p.FAILURE):  # ours says why
            assert got[:5] == expected[:5], number
        else:
            assert got == expected, number


@pytest.mark.parametrize("name", TALKS)
def test_same_answers(tmp_path: Path, name: str) -> None:
    """Whatever an SFTP client asks, it gets what OpenSSH's server answers."""
    _both(tmp_path, TALKS[name])


@pytest.mark.root
@pytest.mark.parametrize("name", [name for name in TALKS if name != "extensions"])
def test_same_answers_for_others(name: str) -> None:
    """So does one who may not write there and may not read every file."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        _both(Path(folder), _tolerant(TALKS[name]), user=NOBODY)


def _tolerant(talk: Talk) -> Talk:
    """A talk that may be refused at a file that it needs: what came until then is compared."""

    def held(peer: Peer) -> Iterator[bytes]:
        try:
            yield from talk(peer)
        except AssertionError as refused:
            yield repr(refused.args).encode()

    return held


def test_version(tmp_path: Path) -> None:
    """The client sees the same version and the same extensions."""
    here = tree(tmp_path / "here")
    peers = Peer.openssh(here), Peer.ours(here)
    theirs, ours = (peer.begin() for peer in peers)
    assert ours == theirs
    for peer in peers:
        peer.close()


def test_home_without_a_name(tmp_path: Path) -> None:
    """Whoever asks for the home of nobody in particular is told the one in their own passwd entry, as OpenSSH's server
    says in 10.0; in 9.2 it says "Failure"."""
    replies = []
    for start in Peer.ours, Peer.openssh:
        peer = start(tmp_path)
        peer.begin()
        replies.append(peer.extended("home-directory", string(b"")))
        assert peer.close() == 0
    home = string(os.fsencode(pwd.getpwuid(os.getuid()).pw_dir))
    assert replies[0] == bytes((p.NAME,)) + uint32(1) + home + home + uint32(0)
    assert replies[1] == replies[0] or code(replies[1]) == p.FAILURE


def test_home_of_others(tmp_path: Path) -> None:
    """Anyone who asks for another user's home is told that one; OpenSSH 9.2 tells the asker's own."""
    replies = []
    for start in Peer.ours, Peer.openssh:
        peer = start(tmp_path)
        peer.begin()
        replies.append(peer.extended("home-directory", string(b"daemon")))
        assert peer.close() == 0
    theirs, own = (
        bytes((p.NAME,)) + uint32(1) + string(os.fsencode(home)) * 2 + uint32(0)
        for home in (pwd.getpwnam("daemon").pw_dir, pwd.getpwuid(os.getuid()).pw_dir)
    )
    assert replies[0] == theirs
    assert replies[1] in (theirs, own)


def test_copy_that_fails(tmp_path: Path) -> None:
    """A copy inside the machine that could not be made is no success; OpenSSH 9.2 says so of small ones."""
    peer = Peer.ours(tree(tmp_path / "here"))
    peer.begin()
    source = peer.open(b"file")
    target = peer.open(b"out", WRITE | CREATE)
    assert code(peer.extended("copy-data", source, uint64(95, 10), target, uint64(0))) == p.END_OF_FILE
    assert code(peer.extended("copy-data", source, uint64(0, 10), peer.open(b"empty"), uint64(0))) == p.NO_SUCH_FILE
    peer.close()
