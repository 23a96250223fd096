"""Rows for SFTP, request by request: what any client meets, also those that are not OpenSSH's."""

from __future__ import annotations

import os
import pwd
import re
import stat
import struct
import subprocess
import time

from teleconch.sftp import packets as p
from tests.interop.conformance import Side, behaviour
from tests.interop.conformance_logins import _own_file
from tests.interop.file_clients import PAST, Sftp, readable, remote, requests, said, sentence_of, tree, volume
from tests.worlds.raw_sftp import string, uint32, uint64
from tests.worlds.waiting import reply

REQUESTS = "Files: SFTP requests"
EXTENSIONS = "Files: SFTP extensions"
READ, WRITE, APPEND, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32
NOTHING = uint32(0)  # no attributes
MODE, OWNER, TIMES, SIZE = 4, 2, 8, 1


def _user(side: Side, text: str) -> str:
    return text.replace(str(side.home), "HOME").replace(side.user, "USER")


async def _each(sftp: Sftp, type: int, *paths: bytes) -> str:
    """The answers to one kind of request about each of some paths, those in ``w``."""
    answers = [f"{readable(path)[:12]}: {await sftp.tried(type, string(b'w/' + path))}" for path in paths]
    return ", ".join(answers)


# --- versions --------------------------------------------------------------------------------------------------------


def _extensions(reply: bytes) -> list[str]:
    reader = p.Reader(reply, 5)
    found = []
    while reader.rest():
        found.append(f"{reader.string().decode()} {reader.string().decode()}")
    return found


@behaviour(REQUESTS, "Version and extensions that are announced")
async def announced(side: Side) -> str:
    async with requests(side, begin=False) as sftp:
        reply = await sftp.begin() or b""
    return f"{int.from_bytes(reply[1:5], 'big')}; {', '.join(_extensions(reply))}"


@behaviour(REQUESTS, "Version for clients of version 0, 1, 2, 4, 6; a second INIT")
async def versions(side: Side) -> str:
    found = []
    async with requests(side, begin=False) as sftp:
        for version in (0, 1, 2, 4, 6):
            reply = await sftp.begin(version) or b""
            found.append(str(int.from_bytes(reply[1:5], "big")))
    return " ".join(found)


# --- files -----------------------------------------------------------------------------------------------------------

_TREE = "echo hello > file; ln -s file link; ln -s nowhere dangling; ln -s loop loop; mkdir dir full; echo x > full/x; "


@behaviour(REQUESTS, "stat, lstat and fstat: type, mode, size, owner and times")
async def stats(side: Side) -> str:
    remote(side, _TREE + f"mkfifo fifo; touch -h -d @{PAST} file link dir")
    entry = pwd.getpwnam(side.user)
    found = []
    async with requests(side) as sftp:
        handle = await sftp.open(b"w/file")
        for kind, reply in [
            *[(f"stat {n}", await sftp.ask(p.STAT, string(f"w/{n}".encode()))) for n in ("file", "link", "dir")],
            *[(f"lstat {n}", await sftp.ask(p.LSTAT, string(f"w/{n}".encode()))) for n in ("link", "fifo")],
            ("fstat file", await sftp.ask(p.FSTAT, handle)),
        ]:
            flags, size, uid, gid, mode, accessed, changed = struct.unpack(">LQ5L", (reply or b"")[1:])
            own = (uid, gid) == (entry.pw_uid, entry.pw_gid)
            much = f" {size}" if stat.S_ISREG(mode) else ""
            when = f" @{changed - PAST}" if changed == PAST and accessed >= PAST else ""
            found.append(f"{kind}: flags {flags} {mode:o}{much} {'own' if own else 'strange'}{when}")
    return ", ".join(found)


@behaviour(REQUESTS, "open: read, write, append, create, truncate, exclusive and none")
async def open_flags(side: Side) -> str:
    names = {
        READ: "r", WRITE: "w", READ | WRITE: "rw", WRITE | APPEND: "wa", APPEND: "a", WRITE | CREATE: "wc", CREATE: "c",
        WRITE | TRUNCATE: "wt", WRITE | CREATE | EXCLUSIVE: "wcx", WRITE | CREATE | TRUNCATE: "wct",
        READ | TRUNCATE: "rt", 0: "none",
    }  # fmt: skip
    found = []
    async with requests(side) as sftp:
        for flags, name in names.items():
            folder = remote(side, _TREE)
            answers = [
                await sftp.tried(p.OPEN, string(b"w/" + path), uint32(flags), NOTHING)
                for path in (b"file", b"missing", b"dangling", b"dir")
            ]
            made = [each for each in ("missing", "nowhere") if (folder / each).exists()]
            left = (folder / "file").stat().st_size
            found.append(f"{name}: {', '.join(answers)}; made {' '.join(made) or 'none'}, {left} bytes left")
    return ". ".join(found)


@behaviour(REQUESTS, "write: in the middle, behind the end, appending at any offset, to a file that is open to read")
async def writes(side: Side) -> str:
    folder = remote(side, "printf 0123456789 > a; cp a b; cp a c")
    async with requests(side) as sftp:
        handle = await sftp.open(b"w/a", WRITE)
        answers = [await sftp.tried(p.WRITE, handle, uint64(at), string(b"xy")) for at in (3, 15, 2**63)]
        handle = await sftp.open(b"w/b", WRITE | APPEND)
        answers += [await sftp.tried(p.WRITE, handle, uint64(at), string(b"xy")) for at in (0, 99)]
        answers.append(await sftp.tried(p.WRITE, await sftp.open(b"w/c"), uint64(0), string(b"xy")))
    contents = [(folder / name).read_bytes().replace(b"\0", b".").decode() for name in "abc"]
    return f"{', '.join(answers)}; {' '.join(contents)}"


@behaviour(REQUESTS, "read: part, past the end, at 2^63, none, 1 MiB at once")
async def reads(side: Side) -> str:
    remote(side, "head -c 2000000 /dev/zero > file")
    async with requests(side) as sftp:
        handle = await sftp.open(b"w/file")
        return ", ".join(
            [
                await sftp.tried(p.READ, handle, uint64(at), uint32(size))
                for at, size in ((5, 10), (1_999_999, 10), (2_000_000, 1), (2**63, 1), (0, 0), (0, 1 << 20))
            ]
        )


@behaviour(REQUESTS, "Modes of new files and directories: none given, 777, 600, 4755, 2777, 0 (umask 022)")
async def new_modes(side: Side) -> str:
    folder = remote(side)
    modes = (None, 0o777, 0o600, 0o4755, 0o2777, 0)
    async with requests(side) as sftp:
        for number, mode in enumerate(modes):
            attributes = NOTHING if mode is None else uint32(MODE, mode)
            await sftp.ask(p.OPEN, string(b"w/f%d" % number), uint32(WRITE | CREATE), attributes)
            await sftp.ask(p.MKDIR, string(b"w/d%d" % number), attributes)
    found = [[f"{stat.S_IMODE((folder / f'{kind}{n}').stat().st_mode):o}" for n in range(6)] for kind in "fd"]
    for number in range(6):
        (folder / f"d{number}").chmod(0o755)
    return f"files {' '.join(found[0])}; directories {' '.join(found[1])}"


async def _set(sftp: Sftp, type: int, where: bytes) -> str:
    """Each attribute, one by one, then all, of which the owner cannot be set."""
    wanted = {
        "mode": uint32(MODE, 0o6750),
        "size": uint32(SIZE) + uint64(3),
        "times": uint32(TIMES, 7, PAST),
        "root's": uint32(OWNER, 0, 0),
        "all": uint32(15) + uint64(2) + uint32(0, 0, 0o640, 7, PAST + 5),
        "none": NOTHING,
    }
    return ", ".join([f"{name} {await sftp.tried(type, where, value)}" for name, value in wanted.items()])


@behaviour(REQUESTS, "setstat of a file, through a link, of a directory, of what is missing; fsetstat")
async def setting(side: Side) -> str:
    folder = remote(side, _TREE + "cp file other; ln -s other other-link")
    found = []
    async with requests(side) as sftp:
        for name in ("file", "other-link", "dir", "missing"):
            found.append(f"{name}: {await _set(sftp, p.SETSTAT, string(f'w/{name}'.encode()))}")
        handle = await sftp.open(b"w/full/x", READ | WRITE)
        found.append(f"handle: {await _set(sftp, p.FSETSTAT, handle)}")
    return f"{'; '.join(found)}; {tree(folder, times=True)}"


@behaviour(REQUESTS, "setstat of the owner and group by root; a link's target gets them")
async def owners(side: Side) -> str:
    folder = remote(side, _TREE)
    path = os.fsencode(folder)
    connection = await side.connect("root")
    sftp = Sftp()
    await connection.open(sftp)
    await reply(connection.sendRequest(sftp, b"subsystem", string(b"sftp"), 1))
    await sftp.begin()
    found = []
    for name, pair in ((b"file", (12, 34)), (b"link", (0xFFFFFFFF, 56)), (b"dir", (78, 0xFFFFFFFF))):
        answer = await sftp.tried(p.SETSTAT, string(path + b"/" + name), uint32(OWNER, *pair))
        info = os.stat(path + b"/" + name)
        gid = "own" if info.st_gid == pwd.getpwnam(side.user).pw_gid else info.st_gid
        found.append(f"{name.decode()}: {answer} {info.st_uid} {gid}")
    connection.close()
    await connection.disconnected
    return ", ".join(found)


# --- names -----------------------------------------------------------------------------------------------------------

_PAIRS = (
    ("file", "new"), ("new", "file2"), ("new", "full/x"), ("missing", "x"), ("new", "no/x"), ("dir", "full"),
    ("full", "dir"), ("dir", "dir/below"), ("dir", "file2"), ("link", "link2"), ("link2", "dangling"),
    ("dangling", "dangling2"), ("new", "new"), ("new", "/dev/shm/of-teleconch"),
)  # fmt: skip


async def _pairs(side: Side, how: str) -> str:
    """Each of some pairs of names."""
    folder = remote(side, _TREE + "echo 2 > file2")
    found = []
    async with requests(side) as sftp:
        for old, new in _PAIRS:
            paths = [string(name.encode() if name[0] == "/" else f"w/{name}".encode()) for name in (old, new)]
            reply = await (sftp.ask(p.RENAME, *paths) if how == "rename" else sftp.extended(how, *paths))
            found.append(f"{old} to {new}: {said(reply)}")
            if new[0] == "/" and os.path.lexists(new):
                os.unlink(new)
    return f"{', '.join(found)}; {tree(folder, modes=False)}"


@behaviour(REQUESTS, "rename: onto what exists, of directories and links, to another file system")
async def renames(side: Side) -> str:
    return await _pairs(side, "rename")


@behaviour(REQUESTS, "symlink: the order of its arguments; onto what exists; readlink")
async def links(side: Side) -> str:
    folder = remote(side, _TREE)
    async with requests(side) as sftp:
        made = await sftp.tried(p.SYMLINK, string(b"some/target"), string(b"w/made"))
        again = await sftp.tried(p.SYMLINK, string(b"x"), string(b"w/file"))
        target = os.readlink(folder / "made") if (folder / "made").is_symlink() else "other"
        read = await _each(sftp, p.READLINK, b"made", b"loop", b"file", b"missing")
    return f"{made}: made -> {target}, onto a file: {again}; readlink {read}"


@behaviour(REQUESTS, "realpath: missing names, '.', '..', links, slashes, the empty name, '~'")
async def real_paths(side: Side) -> str:
    remote(side, _TREE + "ln -s dir dirlink")
    paths = (
        b"", b".", b"..", b"w", b"w/", b"w/missing", b"w/missing/x", b"w/missing/..", b"w/file/x", b"w/dirlink/..",
        b"w/link", b"w/dangling", b"w/loop", b"w//./dir/../file", b"/", b"/..", b"//usr//", b"~", b"w/dirlink/",
    )  # fmt: skip
    async with requests(side) as sftp:
        found = [f"{readable(path)}: {await sftp.tried(p.REALPATH, string(path))}" for path in paths]
    return _user(side, ", ".join(found))


async def _listed(sftp: Sftp, path: bytes) -> dict[bytes, bytes]:
    """The long names of a directory."""
    handle = await sftp.ask(p.OPENDIR, string(path)) or b""
    assert handle[0] == p.HANDLE, said(handle)
    found = {}
    while (reply := await sftp.ask(p.READDIR, handle[1:]) or b"")[0] == p.NAME:
        reader = p.Reader(reply, 5)
        while reader.rest():
            name, line = reader.string(), reader.string()
            found[name] = line
            assert (reader.uint32(), reader.uint64())[0] == 15
            for _ in range(5):
                reader.uint32()
    return found


@behaviour(REQUESTS, "readdir: '.' and '..', and the long name: owner, size, time, odd modes, links, devices")
async def long_names(side: Side) -> str:
    now = int(time.time())
    folder = remote(
        side,
        "echo hello > file; ln -s file link; mkdir dir; mkfifo fifo; touch s t u; chmod 6755 s; chmod 1777 dir; "
        f"chmod 0 t; touch -d @{PAST} file; touch -d @{now + 86400 * 9} u; touch -h -d @{now - 86400 * 190} link fifo",
    )
    os.chown(folder / "t", 44444, 55555)
    os.mknod(folder / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    async with requests(side) as sftp:
        lines = await _listed(sftp, b"w")
    shown = "; ".join(readable(lines[name]) for name in sorted(lines))
    shown = re.sub(r"\w{3} [ \d]\d (\d\d:\d\d| \d{4})", lambda m: "DATE-TIME" if ":" in m[0] else "DATE-YEAR", shown)
    shown = re.sub(r"(?<=/ | /)\s+\d+ ", " N ", shown)
    entry = pwd.getpwnam(side.user)
    return re.sub(r" +4096 ", " N ", _user(side, shown).replace(str(entry.pw_gid), "GROUP"))


@behaviour(REQUESTS, "The long name's time in the user's own time zone (TZ in the file of variables)")
async def time_zone(side: Side) -> str:
    remote(side, f"touch -d @{int(time.time()) // 86400 * 86400 - 43200} file")  # noon in UTC
    _own_file(side, "TZ=XYZ-5\n")
    async with requests(side) as sftp:
        line = (await _listed(sftp, b"w"))[b"file"]
    _own_file(side, "")
    return line.split()[-2].decode()


@behaviour(REQUESTS, "readdir of 3,000 names")
async def many_names(side: Side) -> str:
    remote(side, "seq -f 'name with a space and a length that fills packets %g' 3000 | xargs -d '\\n' touch")
    async with requests(side) as sftp:
        names = await _listed(sftp, b"w")
    return f"{len(names)} names"


@behaviour(REQUESTS, "opendir and readdir: unreadable, readable but not searchable, missing, a file, the empty name")
async def closed_directories(side: Side) -> str:
    folder = remote(side, _TREE + "mkdir none list; touch list/a; chmod 0 none; chmod 444 list")
    async with requests(side) as sftp:
        opened = await _each(sftp, p.OPENDIR, b"none", b"missing", b"file", b"loop", b"file/x")
        empty = await sftp.tried(p.OPENDIR, string(b""))
        names = await _listed(sftp, b"w/list")
    (folder / "none").chmod(0o755)
    (folder / "list").chmod(0o755)
    return f"{opened}, empty: {empty}, list: {readable(b' '.join(sorted(names))) or 'nothing'}"


@behaviour(REQUESTS, "Odd names: spaces, newline, quotes, no UTF-8, a dash, control letters, 255 bytes, 256 bytes")
async def odd_names(side: Side) -> str:
    folder = remote(side)
    names = (
        b" ", b"two words", b"new\nline", b"'quotes\"", b"\xff\xfe", b"-rf", b"\x1b[1m", "ü€".encode(), b"*?[", b"\\",
        b"...", b"n" * 255, b"n" * 256,
    )  # fmt: skip
    found = []
    async with requests(side) as sftp:
        for name in names:
            path = b"w/" + name
            made = await sftp.tried(p.OPEN, string(path), uint32(WRITE | CREATE | EXCLUSIVE), NOTHING)
            real = await sftp.tried(p.REALPATH, string(path))
            found.append(f"{readable(name)[:12]} {made} {real.endswith(readable(name))}")
        listed = sorted(await _listed(sftp, b"w"))
        assert set(listed) == {*os.listdir(os.fsencode(folder)), b".", b".."}
        removed = {await sftp.tried(p.REMOVE, string(b"w/" + name)) for name in names[:-1]}
    return f"{', '.join(found)}; removed: {' '.join(sorted(removed))}"


@behaviour(REQUESTS, "Errors: missing, existing, not empty, not of that kind, too long, denied, a loop")
async def errors(side: Side) -> str:
    remote(side, _TREE)
    async with requests(side) as sftp:
        found = {
            "stat": await _each(sftp, p.STAT, b"missing", b"dangling", b"loop", b"file/x", b"n" * 256, b"a/" * 2500),
            "mkdir": ", ".join(
                [
                    f"{path.decode()}: {await sftp.tried(p.MKDIR, string(path), NOTHING)}"
                    for path in (b"w/file", b"w/dir", b"w/missing/x", b"/var/cache/ldconfig/x", b"w/file/x", b"", b"/")
                ]
            ),
            "rmdir": await _each(sftp, p.RMDIR, b"full", b"file", b"missing", b"link", b".", b".."),
            "remove": await _each(sftp, p.REMOVE, b"dir", b"missing", b"file/x"),
            "denied": ", ".join(
                [
                    f"{name} {await sftp.tried(type, string(path), *rest)}"
                    for name, type, path, *rest in (
                        ("open", p.OPEN, b"/etc/shadow", uint32(READ), NOTHING),
                        ("write", p.OPEN, b"/etc/passwd", uint32(WRITE), NOTHING),
                        ("create", p.OPEN, b"/etc/x", uint32(WRITE | CREATE), NOTHING),
                        ("list", p.OPENDIR, b"/root"),
                        ("remove", p.REMOVE, b"/etc/passwd"),
                        ("rename", p.RENAME, b"/etc/passwd", string(b"/etc/x")),
                        ("mode", p.SETSTAT, b"/etc/passwd", uint32(MODE, 0o666)),
                        ("link", p.SYMLINK, b"x", string(b"/etc/x")),
                        ("rmdir", p.RMDIR, b"/etc/skel"),
                        ("below", p.STAT, b"/var/cache/ldconfig/x"),
                    )
                ]
            ),
        }
    return "; ".join(f"{name}: {answers}" for name, answers in found.items())


@behaviour(REQUESTS, "A volume that can only be read")
async def read_only(side: Side) -> str:
    with volume(side, "size=1m") as folder:
        (folder / "file").write_text("x")
        os.chown(folder / "file", *pwd.getpwnam(side.user)[2:4])
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        async with requests(side) as sftp:
            file, new = string(b"w/volume/file"), string(b"w/volume/new")
            return ", ".join(
                [
                    f"{name} {await sftp.tried(type, *fields)}"
                    for name, type, *fields in (
                        ("open", p.OPEN, file, uint32(WRITE), NOTHING),
                        ("create", p.OPEN, new, uint32(WRITE | CREATE), NOTHING),
                        ("mkdir", p.MKDIR, new, NOTHING),
                        ("remove", p.REMOVE, file),
                        ("rename", p.RENAME, file, new),
                        ("mode", p.SETSTAT, file, uint32(MODE, 0o600)),
                    )
                ]
            )


@behaviour(REQUESTS, "A volume that is full: the answer, and what was written")
async def full_volume(side: Side) -> str:
    with volume(side, "size=64k") as folder:
        async with requests(side) as sftp:
            handle = await sftp.open(b"w/volume/file", WRITE | CREATE)
            found = [await sftp.tried(p.WRITE, handle, uint64(n * 32768 + 1), string(bytes(32768))) for n in range(3)]
            found.append(f"close {await sftp.tried(p.CLOSE, handle)}")
            return f"{', '.join(found)}; {(folder / 'file').stat().st_size} bytes"


@behaviour(
    REQUESTS,
    "What a failure (code 4) is called: not empty, exists, a directory, a full volume",
    reason="The code is sshd's, and the text says why: OpenSSH's client prints a word of its own for each code, and "
    "others show what they are told.",
)
async def failures(side: Side) -> str:
    with volume(side, "size=64k") as folder:
        (folder / "full" / "x").mkdir(parents=True)
        async with requests(side) as sftp:
            handle = await sftp.open(b"w/volume/file", WRITE | CREATE)
            told = [
                await sftp.ask(p.RMDIR, string(b"w/volume/full")),
                await sftp.ask(p.MKDIR, string(b"w/volume/full"), NOTHING),
                await sftp.ask(p.OPEN, string(b"w/volume/full"), uint32(WRITE), NOTHING),
                await sftp.ask(p.WRITE, handle, uint64(0), string(bytes(200_000))),
            ]
    return ", ".join(sentence_of(each) for each in told)


@behaviour(REQUESTS, "Directories, FIFOs and devices: read, write")
async def no_files(side: Side) -> str:
    folder = remote(side, "mkdir dir; mkfifo fifo")
    for name, minor in ("null", 3), ("full", 7):
        os.mknod(folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        (folder / name).chmod(0o666)
    async with requests(side) as sftp:
        found = [
            f"read dir {await sftp.tried(p.READ, await sftp.open(b'w/dir'), uint64(0), uint32(5))}",
            f"open dir to write {await sftp.tried(p.OPEN, string(b'w/dir'), uint32(WRITE), NOTHING)}",
        ]
        for device in (b"null", b"full"):
            handle = await sftp.open(b"w/" + device, READ | WRITE)
            found.append(f"read {device.decode()} {await sftp.tried(p.READ, handle, uint64(0), uint32(5))}")
            found.append(f"write {device.decode()} {await sftp.tried(p.WRITE, handle, uint64(0), string(b'x'))}")
        sftp.post(p.OPEN, string(b"w/fifo"), uint32(READ), NOTHING)
        early = said(await sftp.receive(0.3))
        fd = os.open(folder / "fifo", os.O_RDWR)
        late = await sftp.receive() or b""
        os.close(fd)
        found.append(f"fifo: {early}, with a writer: {said(late[:1] + late[5:])}")
    return ", ".join(found)


# --- handles and packets ---------------------------------------------------------------------------------------------


@behaviour(REQUESTS, "Handles: unknown ones, of the other kind, closed twice")
async def handles(side: Side) -> str:
    remote(side, _TREE)
    async with requests(side) as sftp:
        file, unknown = await sftp.open(b"w/file"), string(b"none")
        folder = (await sftp.ask(p.OPENDIR, string(b"w")) or b"")[1:]
        part = uint64(0) + uint32(1)
        found = [
            f"{name} {await sftp.tried(type, *fields)}"
            for name, type, *fields in (
                ("read unknown", p.READ, unknown, part),
                ("write unknown", p.WRITE, unknown, uint64(0), string(b"x")),
                ("fstat unknown", p.FSTAT, unknown),
                ("readdir unknown", p.READDIR, unknown),
                ("close unknown", p.CLOSE, unknown),
                ("readdir file", p.READDIR, file),
                ("read folder", p.READ, folder, part),
                ("fstat folder", p.FSTAT, folder),
                ("close", p.CLOSE, file),
                ("close again", p.CLOSE, file),
                ("read closed", p.READ, file, part),
            )
        ]
    return ", ".join(found)


@behaviour(REQUESTS, "How many handles there may be, with a limit of 321 descriptors (PAM)", pam=True)
async def most_handles(side: Side) -> str:
    remote(side, "touch file; mkdir dir")
    async with requests(side) as sftp:
        limits = await sftp.extended("limits@openssh.com") or b""
        most = int.from_bytes(limits[25:33], "big")
        count = 0
        while (reply := await sftp.ask(p.OPEN, string(b"w/file"), uint32(READ), NOTHING) or b"")[0] == p.HANDLE:
            count += 1
        folder = await sftp.tried(p.OPENDIR, string(b"w/dir"))
        closed = await sftp.tried(p.CLOSE, string(uint32(0)))
        again = await sftp.tried(p.OPEN, string(b"w/file"), uint32(READ), NOTHING)
    rest = f"{said(reply)}, a directory: {folder}, after a close ({closed}): {again}"
    return f"{most} are announced; {'as many' if abs(count - most) < 3 else count}, then {rest}"


@behaviour(REQUESTS, "1,000 requests at once: answered in order")
async def pipelined(side: Side) -> str:
    remote(side, "head -c 1000 /dev/zero > file")
    async with requests(side) as sftp:
        handle = await sftp.open(b"w/file")
        for number in range(1000):
            sftp.post(p.READ, handle, uint64(0), uint32(number + 1))
        sizes = [len(await sftp.receive() or b"") - 9 for _ in range(1000)]
    return "in order" if sizes == list(range(1, 1001)) else "out of order"


@behaviour(REQUESTS, "Packets: of 256 KiB, of one byte more, a request ahead of INIT, one of two bytes")
async def packet_sizes(side: Side) -> str:
    found = []
    for size in (256 * 1024, 256 * 1024 + 1):
        folder = remote(side)
        async with requests(side) as sftp:
            handle = await sftp.open(b"w/file", WRITE | CREATE)
            data = bytes(size - 1 - 4 - len(handle) - 8 - 4)
            found.append(f"{await sftp.tried(p.WRITE, handle, uint64(0), string(data))} {_ended(sftp)}")
            found[-1] += f" {(folder / 'file').stat().st_size}"
    for data in (uint32(9) + bytes((p.STAT,)) + uint32(1, 0), uint32(2) + bytes((p.STAT, 0))):
        async with requests(side, begin=data[3] == 2) as sftp:
            sftp.write(data)
            found.append(f"{said(await sftp.receive())} {_ended(sftp)}")
    return ", ".join(found)


def _ended(sftp: Sftp) -> str:
    return f"({sftp.status})" if sftp.status is not None else ""


@behaviour(REQUESTS, "The client's EOF, with files open: the status")
async def client_ends(side: Side) -> str:
    remote(side)
    async with requests(side) as sftp:
        handle = await sftp.open(b"w/file", WRITE | CREATE)
        await sftp.ask(p.WRITE, handle, uint64(0), string(b"x"))
        sftp.loseWriteConnection()
        return f"{said(await sftp.receive())} ({sftp.status})"


@behaviour(
    REQUESTS,
    "Requests of a type that is not known",
    reason="sshd's answers nothing, and the client waits for ever; the draft (section 7) has a status for it.",
)
async def unknown_type(side: Side) -> str:
    remote(side, _TREE)
    async with requests(side) as sftp:
        found = said(await sftp.ask(99, string(b"w"), patience=0.5))
        return f"{found}; the next one: {await sftp.tried(p.STAT, string(b'w'))}"


@behaviour(
    REQUESTS,
    "Requests that end early, and names with a zero byte",
    reason="sshd's ends, and with it all transfers on the connection; the node answers that request, and goes on.",
)
async def malformed(side: Side) -> str:
    found = []
    for fields in (uint32(99), string(b"a\0b")):
        async with requests(side) as sftp:
            found.append(f"{said(await sftp.ask(p.STAT, fields))} {_ended(sftp)}".strip())
    return ", ".join(found)


# --- extensions ------------------------------------------------------------------------------------------------------


@behaviour(EXTENSIONS, "posix-rename: onto what exists, of directories and links, to another file system")
async def posix_renames(side: Side) -> str:
    return await _pairs(side, "posix-rename@openssh.com")


@behaviour(EXTENSIONS, "hardlink: onto what exists, of directories and links, to another file system")
async def hard_links(side: Side) -> str:
    return await _pairs(side, "hardlink@openssh.com")


@behaviour(EXTENSIONS, "fsync of a file, a directory, an unknown handle")
async def syncs(side: Side) -> str:
    remote(side, _TREE)
    async with requests(side) as sftp:
        file = await sftp.open(b"w/file", WRITE)
        folder = (await sftp.ask(p.OPENDIR, string(b"w")) or b"")[1:]
        found = [said(await sftp.extended("fsync@openssh.com", each)) for each in (file, folder, string(b"none"))]
    return ", ".join(found)


def _volume_says(reply: bytes | None, path: str) -> str:
    """Whether all but the free numbers are what the system says."""
    if reply is None or reply[:1] != bytes((p.EXTENDED_REPLY,)):
        return said(reply)
    told, info = struct.unpack(">11Q", reply[1:]), os.statvfs(path)
    sizes = told[:3] == (info.f_bsize, info.f_frsize, info.f_blocks) and told[5] == info.f_files
    names = told[8] == info.f_fsid and told[10] == info.f_namemax
    return f"{'right' if sizes else 'wrong'} sizes, {'right' if names else 'wrong'} id, flags {told[9]}"


@behaviour(EXTENSIONS, "statvfs and fstatvfs: sizes, id, flags (nosuid is 2), and of what is missing")
async def volumes(side: Side) -> str:
    folder = str(remote(side, _TREE))
    async with requests(side) as sftp:
        file = await sftp.open(b"w/file")
        found = [
            _volume_says(await sftp.extended("statvfs@openssh.com", string(b"w")), folder),
            _volume_says(await sftp.extended("statvfs@openssh.com", string(b"/proc")), "/proc"),
            said(await sftp.extended("statvfs@openssh.com", string(b"w/missing"))),
            _volume_says(await sftp.extended("fstatvfs@openssh.com", file), folder),
            said(await sftp.extended("fstatvfs@openssh.com", string(b"none"))),
        ]
    return ", ".join(found)


@behaviour(EXTENSIONS, "lsetstat of a link, a file, what is missing: mode, size, times, owner")
async def link_settings(side: Side) -> str:
    folder = remote(side, _TREE)
    found = []
    async with requests(side) as sftp:
        for name in ("link", "full/x", "missing"):
            for what, value in {
                "mode": uint32(MODE, 0o640),
                "size": uint32(SIZE) + uint64(3),
                "times": uint32(TIMES, 7, PAST),
                "root's": uint32(OWNER, 0, 0),
                "none": NOTHING,
            }.items():
                reply = await sftp.extended("lsetstat@openssh.com", string(f"w/{name}".encode()), value)
                found.append(f"{name} {what} {said(reply)}")
    return f"{', '.join(found)}; link @{int(os.lstat(folder / 'link').st_mtime) - PAST}, {tree(folder / 'full')}"


@behaviour(EXTENSIONS, "limits: packet, read and write length")
async def limits(side: Side) -> str:
    async with requests(side) as sftp:
        reply = await sftp.extended("limits@openssh.com") or b""
    return " ".join(map(str, struct.unpack(">4Q", reply[1:])[:3]))


@behaviour(EXTENSIONS, "expand-path: ~, ~/x, ~user, ~nobody-known, without ~")
async def expanded(side: Side) -> str:
    found = []
    paths = ("~", "~/", "~/x", "~root", "~root/x", "~nosuchuser/x", "x", "", "~/no/x", f"~{side.user}/..")
    async with requests(side) as sftp:
        for path in paths:
            reply = await sftp.extended("expand-path@openssh.com", string(path.encode()))
            found.append(f"{path}: {said(reply)}")
    return _user(side, ", ".join(found))


@behaviour(EXTENSIONS, "copy-data: whole, a part, to an offset, onto itself, appending")
async def copies(side: Side) -> str:
    folder = remote(side, "printf 0123456789 > a; touch b c")
    async with requests(side) as sftp:
        source, target = await sftp.open(b"w/a"), await sftp.open(b"w/b", WRITE)
        appending, again = await sftp.open(b"w/c", WRITE | APPEND), await sftp.open(b"w/a", READ | WRITE)
        found = [
            said(await sftp.extended("copy-data", frm, uint64(at, size), to, uint64(into)))
            for frm, at, size, to, into in (
                (source, 0, 0, target, 0), (source, 2, 3, target, 12), (source, 0, 5, appending, 9),
                (source, 10, 0, target, 0), (source, 0, 5, source, 5), (source, 0, 5, again, 5),
                (source, 0, 5, string(b"none"), 0), (source, 2**63, 5, target, 0),
            )
        ]  # fmt: skip
    contents = [(folder / name).read_bytes().replace(b"\0", b".").decode() for name in "abc"]
    return f"{', '.join(found)}; {' '.join(contents)}"


@behaviour(
    EXTENSIONS,
    "copy-data: from a source that is too short, to a file that cannot be written",
    reason="sshd's says that it was done, though it was not (OpenSSH 9.2, for what fits in one read): data would be "
    "lost without a word.",
)
async def failed_copies(side: Side) -> str:
    remote(side, "printf 0123456789 > a; touch b")
    async with requests(side) as sftp:
        source, target = await sftp.open(b"w/a"), await sftp.open(b"w/b", WRITE)
        short = await sftp.extended("copy-data", source, uint64(5, 10), target, uint64(0))
        refused = await sftp.extended("copy-data", source, uint64(0, 10), await sftp.open(b"w/b"), uint64(0))
    return f"{said(short)}, {said(refused)}"


@behaviour(
    EXTENSIONS,
    "home-directory of oneself, of root, of nobody known, of no name",
    reason={
        "9.2": "The extension's draft asks for the home of the user who is named, and OpenSSH tells that since 10.0; "
        "before, it told one's own, whoever was named."
    },
)
async def homes(side: Side) -> str:
    async with requests(side) as sftp:
        found = [
            f"{user or 'none'}: {said(await sftp.extended('home-directory', string(user.encode())))}"
            for user in (side.user, "root", "nosuchuser", "")
        ]
    return _user(side, ", ".join(found))


@behaviour(EXTENSIONS, "users-groups-by-id: known and unknown numbers")
async def names_of_ids(side: Side) -> str:
    async with requests(side) as sftp:
        reply = await sftp.extended("users-groups-by-id@openssh.com", string(uint32(0, 44444)), string(uint32(0, 1)))
        reader = p.Reader(reply or b"", 1)
        lists = [p.Reader(reader.string()), p.Reader(reader.string())]
        found = [readable(each.string()) or "none" for each in lists for _ in range(2)]
    return " ".join(found)


@behaviour(EXTENSIONS, "An extension that is not known")
async def unknown_extension(side: Side) -> str:
    async with requests(side) as sftp:
        return said(await sftp.extended("nonesuch@example.com", string(b"x")))
