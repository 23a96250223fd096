"""Rows for OpenSSH's sftp and scp, as their users meet them."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.interop.conformance import Side, behaviour, processes, until, usermod
from tests.interop.file_clients import PAST, local, remote, scp, sftp, start, tree, volume, words

SFTP = "Files: sftp"
SCP = "Files: scp"
ENTRY = "Files: accounts and shells"
ODD = """ 'two words' 'new
line' "'quotes" '"' -rf '*?[' 'a\\b' '$HOME' "$(printf '\\377\\376')" ü """

# --- sftp ------------------------------------------------------------------------------------------------------------


@behaviour(
    SFTP, "Exit status of a batch: all done, one fails, one with '-' fails, an unknown command, exit, a bad handle"
)
async def batch(side: Side) -> str:
    remote(side, "echo x > file")
    batches = (
        ("pwd",), ("get w/none", "rm w/file"), ("-get w/none", "-rm w/none", "rm w/file"), ("nonesuch",),
        ("exit", "rm w/none"), (),
    )  # fmt: skip
    local(side)
    return ", ".join([str((await sftp(side, *each)).code) for each in batches])


@behaviour(SFTP, "put and get: contents and modes; -p: times as well; onto a file that is there")
async def put_get(side: Side) -> str:
    there = remote(side, "echo old-and-longer > over; chmod 640 over")
    here = local(side, f"echo hello > a; chmod 750 a; touch -d @{PAST + 5} a")
    said = await sftp(
        side, "put a w/a", "put -p a w/b", "put a w/over", "get w/b got", "get -p w/b kept", "get w/over a2", "put a w"
    )
    return f"{words(side, said)}; there {tree(there, times=True)}; here {tree(here, times=True)}"


_TREE = (
    "mkdir -p d/e/f d/empty; echo 1 > d/one; echo 2 > d/e/two; touch d/e/f/nothing; ln -s one d/link; "
    f"chmod 640 d/one; chmod 700 d/e; chmod 555 d/empty; find d -exec touch -h -d @{PAST + 5} {{}} +; "
)


@behaviour(SFTP, "put -r and get -r, and with -p: modes, times, links, read-only directories")
async def trees(side: Side) -> str:
    there, here = remote(side), local(side, _TREE)
    said = [await sftp(side, "put -r d w/r", "put -rp d w/p", "get -r w/p r", "get -rp w/p p")]
    said += [await sftp(side, "put -r d/ w/p", "get -r w/p .")]
    shutil.rmtree(here / "d")
    return f"{'; '.join(words(side, each) for each in said)}; there {tree(there, times=True)}; here {tree(here)}"


@behaviour(SFTP, "reget and reput: a part, the whole, a longer one, none")
async def resumed(side: Side) -> str:
    there = remote(side, "printf 0123456789 > a; printf 01234 > b")
    here = local(side, "printf 0123 > a; printf 0123456789 > b; cp b long; cp b same")
    said = await sftp(
        side, "reget w/a a", "reput b w/b", "-reget w/b long", "-reput a w/new", "reget w/a fresh", "reget w/a same",
        "-reput a w/a",
    )  # fmt: skip
    return f"{words(side, said)}; there {tree(there)}; here {tree(here)}"


@behaviour(SFTP, "ln, ln -s, rename, chmod, chmod -h, chgrp, chown, cp, mkdir, rmdir, rm")
async def commands(side: Side) -> str:
    there = remote(side, "echo hello > a; mkdir d; touch c")
    group = pwd.getpwnam(side.user).pw_gid
    said = await sftp(
        side, "cd w", "ln a hard", "ln -s a soft", "rename a b", "rename c hard", "chmod 604 b", "-chmod -h 600 soft",
        f"chgrp {group} b", "-chown 0 b", "-chown -h 0 soft", "cp b copy", "mkdir new", "-mkdir new", "rmdir d",
        "-rmdir none", "-rm new", "-rm none", "-cd b", "-cd none", "-ls none", "pwd",
    )  # fmt: skip
    return f"{words(side, said)}; {tree(there)}"


@behaviour(SFTP, "What is refused: get and put that are denied or missing, of directories, into no directory")
async def refused(side: Side) -> str:
    there = remote(side, "mkdir d none; echo x > secret; echo y > fixed; chmod 0 secret none; chmod 400 fixed")
    here = local(side, "echo z > a; mkdir e")
    said = await sftp(
        side, "-get w/secret", "-get w/d", "-get -r w/none", "-get w/missing", "-put a w/fixed", "-put a w/none/a",
        "-put a w/missing/a", "-put e", "-put missing", "-put a /etc/a", "-get /etc/shadow", "-rm /etc/passwd",
        "-chmod 666 /etc/passwd", "-ls w/none", "-get w/a*", "-put b*", "-get -r w/d e/missing/x",
    )  # fmt: skip
    (there / "none").chmod(0o755)
    return f"{words(side, said)}; here {tree(here)}"


@behaviour(SFTP, "ls, ls -1, ls -l, ls -la, ls -n, ls with patterns")
async def listing(side: Side) -> str:
    remote(
        side, f"mkdir d; echo x > a; ln -s a b; touch -h -d @{PAST} a b d; touch .hidden; touch {ODD.split('-rf')[0]}"
    )
    said = await sftp(side, "cd w", "ls -1", "ls -la a b", "ls -l a", "ls -n a", "ls -1 [a-d]", "-ls z*", "ls -1 -a d")
    entry = pwd.getpwnam(side.user)
    shown = words(side, said).replace(str(entry.pw_uid), "N").replace(str(entry.pw_gid), "N")
    return re.sub(r" {2,}", " ", shown)


@behaviour(SFTP, "df, df -h, df -i")
async def free(side: Side) -> str:
    remote(side)
    said = words(side, await sftp(side, "df w", "df -h w", "df -i w"))
    info = os.statvfs(side.home)
    whole = "right" if str(info.f_blocks * info.f_frsize // 1024) in said else "wrong"
    inodes = "right" if info.f_files == 0 or str(info.f_files) in said else "wrong"
    return f"size {whole}, inodes {inodes}: {re.sub(r'[0-9][0-9.]*[A-Z]*B?', 'N', said)}"


@behaviour(SFTP, "Odd names: spaces, quotes, newline, no UTF-8, a dash; by name and by pattern")
async def odd_names(side: Side) -> str:
    there = remote(side, "mkdir by-name by-pattern")
    here = local(side, f'mkdir src back; cd src; for n in {ODD}; do echo x > "./$n"; done')
    lines = (
        "lcd src", "put * w/by-pattern", 'put "two words" w/by-name', r"put \'quotes w/by-name", r'put "\"" w/by-name',
        r"put a\\\\b w/by-name", "put ./-rf w/by-name", "put \udcff\udcfe w/by-name", "cd w/by-name",
        r'rename "two words" "2 \"w\""', "rename -rf r", "lcd ../back", "get ../by-pattern/*", "rm ../by-pattern/*",
    )  # fmt: skip
    said = await sftp(side, *(f"-{each}" for each in lines))
    back = tree(here / "back", modes=False)
    return f"{words(side, said, ordered=False)}; there {tree(there, modes=False)}; back {back}"


@behaviour(SFTP, "Where it starts; a folder and a file in the address; -R, -B, -l, -f, -a")
async def addresses(side: Side) -> str:
    remote(side, "mkdir d; seq 20000 > d/file")
    here = local(side)
    said = [words(side, await sftp(side, "pwd")), words(side, await sftp(side, "pwd", to=":w/d"))]
    result = await (await start(side, "sftp", "-q", "127.0.0.1:w/d/file")).done
    said += [f"{result.code} {(here / 'file').stat().st_size}"]
    for options in (("-R", "1", "-B", "1000"), ("-l", "80000"), ("-f",), ("-a",)):
        said.append(words(side, await sftp(side, "get w/d/file x", "put x w/x", "put -f x w/y", options=options)))
    return f"{'; '.join(said)}; {(here / 'x').stat().st_size}"


@behaviour(SFTP, "-s: another subsystem, the server's path; the ssh command's -s sftp")
async def subsystem(side: Side) -> str:
    remote(side)
    local(side)
    said = []
    for name in ("sftp", "nonesuch", "/usr/lib/openssh/sftp-server", "/nonexistent"):
        result = await sftp(side, "pwd", options=("-s", name))
        said.append(f"{result.code} {'home' if str(side.home).encode() in result.out else 'nothing'}")
    client = side.start("sftp", options=("-s",), stdin=None)
    client.write(b"\0\0\0\5\1\0\0\0\3")
    assert await until(lambda: len(client.out) > 9)
    client.transport.closeStdin()
    return f"{', '.join(said)}; {client.out[4:9].hex()} {(await client.done).code}"


@behaviour(SFTP, "get of files of /proc (size 0), of a sparse file, of a FIFO without a writer")
async def odd_files(side: Side) -> str:
    remote(side, "truncate -s 3M sparse; printf end >> sparse; mkfifo fifo")
    here = local(side)
    said = await sftp(side, "get /proc/version v", "get w/sparse s", "-get w/fifo f", "-get -r w all")
    same = (here / "v").read_bytes() == Path("/proc/version").read_bytes()
    whole = (here / "s").read_bytes() == bytes(3 << 20) + b"end"
    read = f"{'same' if same else 'another'} text, {'whole' if whole else 'cut'}"
    return f"{words(side, said, ordered=False)}; {read}; {tree(here / 'all')}"


@behaviour(SFTP, "Links: get and put through them, onto one that dangles")
async def through_links(side: Side) -> str:
    there = remote(side, "echo x > a; ln -s a link; ln -s nowhere dangling; mkdir d; ln -s d dlink")
    here = local(side, "echo new > n; ln -s n m")
    said = await sftp(
        side,
        "get w/link",
        "put m w/m",
        "put n w/dangling",
        "put n w/dlink",
        "-get w/loop",
        "put n w/link",
        "rm w/dlink",
    )
    return f"{words(side, said)}; there {tree(there, modes=False)}; here {tree(here, modes=False)}"


@behaviour(SFTP, "put to a full disk, to a read-only volume")
async def full_disk(side: Side) -> str:
    here = local(side, "head -c 200000 /dev/zero > big; echo x > small")
    found = []
    with volume(side, "size=64k") as folder:
        found.append(words(side, await sftp(side, "-put big w/volume/", "-put small w/volume/", "ls w/volume")))
        found.append(f"{(folder / 'big').stat().st_size} bytes")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        found.append(words(side, await sftp(side, "-put small w/volume/s", "-rm w/volume/big", "-mkdir w/volume/d")))
    assert here.exists()
    return "; ".join(found)


@behaviour(SFTP, "Permission denied in the midst of get -r and put -r")
async def denied_trees(side: Side) -> str:
    there = remote(side, "mkdir -p a/b a/shut; echo 1 > a/1; echo 2 > a/2; echo 3 > a/b/3; chmod 0 a/2 a/shut")
    here = local(side, "mkdir -p a/b; echo n > a/1; echo n > a/2; echo n > a/b/3")
    said = [await sftp(side, "get -r w/a got"), await sftp(side, "put -r a w")]
    (there / "a/shut").chmod(0o755)
    shown = "; ".join(words(side, each, ordered=False) for each in said)
    return f"{shown}; here {tree(here / 'got')}; there {tree(there)}"


@behaviour(SFTP, "A client that is killed in the midst of put and get: what is there, and what is left behind")
async def killed(side: Side) -> str:
    there = remote(side)
    local(side)
    pipe = side.world.path / f"local-{side.name}" / "big"
    with open(pipe, "wb") as file:
        file.truncate(4 << 30)
    found = []
    for program, line, batch in (
        ("sftp", ("-q", "-b", "-", "127.0.0.1"), b"put big w/big\n"),
        ("scp", ("-q", "big", "127.0.0.1:w/big2"), b""),
        ("scp", ("-q", "-O", "big", "127.0.0.1:w/big3"), b""),
    ):
        path = there / (line[-1].partition("w/")[2] or "big")
        client = await start(side, program, *line, stdin=batch, alone=True)
        assert await until(lambda path=path: path.exists() and path.stat().st_size > 1 << 20)  # type: ignore[misc]
        client.kill()
        await client.done
        gone = await until(lambda: not _processes(side), 5)
        found.append(
            f"{'a part' if 0 < path.stat().st_size < 4 << 30 else 'another'}, {'none' if gone else 'one'} goes on"
        )
        path.unlink()
    pipe.unlink()
    return ", ".join(found)


def _processes(side: Side) -> list[str]:
    """What runs as the user, but for what serves the shared connection, which is idle: sshd's own."""
    return [line for line in processes(side) if f": {side.user}" not in line]


# --- scp -------------------------------------------------------------------------------------------------------------


async def _both(what: Callable[[str], Awaitable[str]]) -> str:
    """The same by both of scp's protocols."""
    new, old = await what("-s"), await what("-O")
    return f"both: {new}" if new == old else f"sftp: {new} · -O: {old}"


@behaviour(SCP, "A file up and down; onto a file; -p; an empty one; set-user-ID bits")
async def one(side: Side) -> str:
    async def run(way: str) -> str:
        there = remote(side, "echo old-and-longer > over; chmod 640 over")
        here = local(side, f"echo x > a; chmod 751 a; touch empty s; chmod 4755 s; touch -d @{PAST + 5} a s")
        codes = [
            (await scp(side, way, *arguments)).code
            for arguments in (
                ("a", "HOST:w/new"), ("a", "HOST:w/over"), ("-p", "a", "HOST:w/kept"), ("empty", "HOST:w"),
                ("s", "HOST:w/s1"), ("-p", "s", "HOST:w/s2"), ("HOST:w/kept", "got"), ("-p", "HOST:w/kept", "got2"),
                ("-p", "HOST:w/s2", "s3"), ("HOST:w/s2", "HOST:w/kept", "."),
            )
        ]  # fmt: skip
        return f"{codes}; there {tree(there, times=True)}; here {tree(here, times=True)}"

    return await _both(run)


@behaviour(SCP, "Patterns: *, ?, [ab]*, {a,b}, none that fits, a name with a star, ~, ~user, $HOME")
async def patterns(side: Side) -> str:
    async def run(way: str) -> str:
        remote(side, "touch a1 a2 b1 c '*' 'x y'; mkdir d; touch d/e")
        here = local(side)
        found = []
        for name in ("w/*1", "w/?", "w/[ab]*", "w/{a1,b1}", "w/z*", "w/\\*", "~/w/a1", f"~{side.user}/w/a2",
                     "$HOME/w/c", "w/x\\ y", "w/x y", "w/*/e", "w/d/../c"):  # fmt: skip
            shutil.rmtree(here)
            here.mkdir()
            result = await scp(side, way, f"HOST:{name}", ".")
            found.append(f"{name} {' '.join(sorted(os.listdir(here))) or words(side, result)}")
        return ", ".join(found).replace(side.user, "USER")

    return await _both(run)


@behaviour(SCP, "Directories: without -r, -r to a new and an old name, with a slash and a dot, -r -p, of many")
async def directories(side: Side) -> str:
    async def run(way: str) -> str:
        there, here = remote(side, "mkdir old"), local(side, _TREE)
        found = [
            words(side, await scp(side, way, *arguments))
            for arguments in (
                ("d", "HOST:w/x"), ("-r", "d/e", "HOST:w/new"), ("-r", "d/e", "HOST:w/old"),
                ("-r", "d/e/", "HOST:w/slash"), ("-r", "d/e/.", "HOST:w/dot"), ("-rp", "d", "HOST:w/p"),
                ("HOST:w/p", "."), ("-r", "HOST:w/p", "down"), ("-rp", "HOST:w/p", "kept"),
                ("-r", "HOST:w/new", "HOST:w/old/e", "."), ("-r", "HOST:w/p/.", "dot"),
            )
        ]  # fmt: skip
        shutil.rmtree(here / "d")
        kept = tree(here / "kept", times=True)
        shutil.rmtree(here / "kept")
        names = f"there {tree(there, modes=False)}; here {tree(here, modes=False)}"
        return f"{', '.join(found)}; {names}; kept {kept}"

    return await _both(run)


@behaviour(SCP, "Missing sources: alone, among others; up and down")
async def missing(side: Side) -> str:
    async def run(way: str) -> str:
        there, here = remote(side, "echo 1 > a; echo 2 > b"), local(side, "echo 3 > c")
        found = [
            words(side, await scp(side, way, *arguments))
            for arguments in (
                ("HOST:w/none", "."), ("HOST:w/a", "HOST:w/none", "HOST:w/b", "."), ("none", "HOST:w"),
                ("c", "none", "HOST:w"), ("-r", "HOST:w/none", "."),
            )
        ]  # fmt: skip
        return f"{', '.join(found)}; there {tree(there)}; here {tree(here)}"

    return await _both(run)


async def _targets(side: Side, *lines: tuple[str, ...]) -> str:
    async def run(way: str) -> str:
        there = remote(
            side,
            "mkdir d shut; touch f fixed; chmod 500 shut; chmod 400 fixed; ln -s d link; ln -s nowhere dangling",
        )
        local(side, "echo 1 > a; echo 2 > b; mkdir t; echo 3 > t/c")
        found = [f"{' '.join(line)}: {words(side, await scp(side, way, *line))}" for line in lines]
        home = side.home / "a"
        if home.exists():
            found.append("home a")
            home.unlink()
        return f"{', '.join(found)}; {tree(there)}".replace("HOST:", ":")

    return await _both(run)


@behaviour(SCP, "Targets: a directory, by a link, with a slash, a dangling link, none, a dot, ~")
async def targets(side: Side) -> str:
    return await _targets(
        side, ("a", "HOST:w/d"), ("b", "HOST:w/d/"), ("a", "b", "HOST:w/d"), ("a", "HOST:w/link"),
        ("b", "HOST:w/dangling"), ("a", "HOST:"), ("a", "HOST:."), ("b", "HOST:~/w/tilde"),
    )  # fmt: skip


@behaviour(SCP, "Targets: a missing directory, also of many files; a file in its place")
async def no_targets(side: Side) -> str:
    return await _targets(
        side, ("a", "HOST:w/no/"), ("a", "HOST:w/no/x"), ("a", "b", "HOST:w/no"), ("a", "b", "HOST:w/f"),
        ("-r", "t", "HOST:w/f"), ("-r", "t", "HOST:w/none/x"), ("a", "HOST:w/f/x"),
    )  # fmt: skip


@behaviour(SCP, "Targets: a directory and a file that may not be written")
async def denied_targets(side: Side) -> str:
    return await _targets(
        side, ("a", "HOST:w/shut"), ("-r", "t", "HOST:w/shut"), ("a", "HOST:w/fixed"), ("a", "HOST:/etc/x"),
        ("a", "HOST:/var/cache/ldconfig/x"),
    )  # fmt: skip


@behaviour(SCP, "Odd names, with a directory: spaces, quotes, newline, no UTF-8, a dash, patterns, $HOME")
async def odd_copies(side: Side) -> str:
    async def run(way: str) -> str:
        there, here = remote(side), local(side, f'mkdir d; cd d; for n in {ODD}; do echo x > "./$n"; done')
        codes = [(await scp(side, way, "-r", *each)).code for each in (("d", "HOST:w/d"), ("HOST:w/d", "back"))]
        kept = tree(here / "d", modes=False)
        said = [tree(there / "d", modes=False), tree(here / "back", modes=False)]
        return f"{codes}; {'; '.join('the same' if each == kept else each for each in said)}"

    return await _both(run)


@behaviour(SCP, "Links: to a file, a directory, nowhere, in a circle; given by name and below -r")
async def link_copies(side: Side) -> str:
    script = (
        "mkdir d e; echo 1 > a; echo 2 > e/f; cd d; ln -s ../a file; ln -s ../e dir; ln -s no nowhere; ln -s loop loop"
    )

    async def run(way: str) -> str:
        there, here = remote(side, f"mkdir src; cd src; {script}"), local(side, script)
        found = [
            words(side, await scp(side, way, *arguments), ordered=False)
            for arguments in (
                ("d/file", "HOST:w/one"), ("-r", "d", "HOST:w/up"), ("HOST:w/src/d/file", "one"),
                ("d/nowhere", "HOST:w"), ("-r", "HOST:w/src/d", "down"), ("HOST:w/src/d/nowhere", "x"),
            )
        ]  # fmt: skip
        shutil.rmtree(there / "src")
        shutil.rmtree(here / "d")
        return f"{', '.join(found)}; there {tree(there)}; here {tree(here)}"

    return await _both(run)


@behaviour(SCP, "Permission denied in the midst of -r, up and down")
async def denied_copies(side: Side) -> str:
    async def run(way: str) -> str:
        there = remote(side, "mkdir -p a/b a/shut; echo 1 > a/1; echo 2 > a/2; echo 3 > a/b/3; chmod 0 a/2 a/shut")
        here = local(side, "mkdir -p a/b a/shut; echo n > a/1; echo n > a/2; echo n > a/b/3; echo n > a/shut/4")
        said = [await scp(side, way, "-r", "HOST:w/a", "got"), await scp(side, way, "-r", "a", "HOST:w")]
        (there / "a/shut").chmod(0o755)
        shown = ", ".join(words(side, each, ordered=False) for each in said)
        return f"{shown}; here {tree(here / 'got')}; there {tree(there)}"

    return await _both(run)


@behaviour(SCP, "A full disk; another file after it; a volume that can only be read")
async def full_copies(side: Side) -> str:
    async def run(way: str) -> str:
        local(side, "head -c 200000 /dev/zero > big; echo x > small; mkdir d; cp big d; cp small d/z")
        found = []
        with volume(side, "size=64k") as folder:
            found.append(words(side, await scp(side, way, "big", "HOST:w/volume/big")))
            found.append(f"{(folder / 'big').stat().st_size} bytes")
            found.append(words(side, await scp(side, way, "big", "small", "HOST:w/volume")))
            found.append(tree(folder))
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            found.append(words(side, await scp(side, way, "small", "HOST:w/volume/s")))
        return "; ".join(found)

    return await _both(run)


@behaviour(SCP, "FIFOs, devices and files of /proc; /dev/null as the target")
async def device_copies(side: Side) -> str:
    async def run(way: str) -> str:
        remote(side, "mkdir d; mkfifo d/fifo; echo x > d/x")
        here = local(side, "echo x > a")
        found = [
            words(side, await scp(side, way, *arguments))
            for arguments in (
                ("HOST:w/d/fifo", "f"), ("-r", "HOST:w/d", "d"), ("HOST:/dev/null", "n"), ("HOST:/proc/version", "v"),
                ("a", "HOST:/dev/null"),
            )
        ]  # fmt: skip
        mode = os.stat("/dev/null").st_mode
        return f"{', '.join(found)}; {tree(here)}; /dev/null {mode:o}".replace(
            Path("/proc/version").read_text(), "TEXT"
        )

    return await _both(run)


@behaviour(SCP, "Between two hosts by way of this one (-3); -3 with what is missing; names with a colon")
async def third(side: Side) -> str:
    async def run(way: str) -> str:
        there = remote(side, "mkdir from to; echo 1 > from/a; echo 2 > from/b; touch 'from/c:d'")
        here = local(side, "echo x > e:f")
        found = [
            words(side, await scp(side, way, *arguments))
            for arguments in (
                ("-3", "HOST:w/from/a", "HOST:w/to"), ("-3", "-r", "HOST:w/from", "HOST:w/tree"),
                ("-3", "HOST:w/none", "HOST:w/to"), ("HOST:w/from/c:d", "."), ("./e:f", "HOST:w/to"),
            )
        ]  # fmt: skip
        return f"{', '.join(found)}; there {tree(there)}; here {tree(here)}"

    return await _both(run)


@behaviour(SCP, "From host to host (-R): scp is run there")
async def remote_run(side: Side) -> str:
    entry = pwd.getpwnam(side.user)
    folder = side.home / ".ssh"
    folder.mkdir(exist_ok=True)
    for name in ("key", "key-cert.pub", "known_hosts"):
        shutil.copy(side.world.path / name, folder / name)
    (folder / "config").write_text(
        f"Host 127.0.0.1\n Port {side.world.port}\n IdentityFile {folder}/key\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known_hosts\n BatchMode yes\n"
    )
    for each in (folder, *folder.iterdir()):
        os.chown(each, entry.pw_uid, entry.pw_gid)

    async def run(way: str) -> str:
        there = remote(side, "echo 1 > a")
        local(side)
        said = [
            words(side, await scp(side, way, "-R", *arguments))
            for arguments in (("HOST:w/a", "HOST:w/b"), ("HOST:w/none", "HOST:w/c"))
        ]
        return f"{', '.join(said)}; {tree(there)}"

    try:
        return await _both(run)
    finally:
        shutil.rmtree(folder)


@behaviour(SCP, "A client that is killed in the midst of a download: nothing goes on")
async def killed_downloads(side: Side) -> str:
    remote(side, "truncate -s 4G big")
    here = local(side)
    found, path = [], here / "big"
    for way in ("-s", "-O"):
        client = await start(side, "scp", "-q", way, "127.0.0.1:w/big", "big", alone=True)
        assert await until(lambda: path.exists() and path.stat().st_size > 1 << 20)
        client.kill()
        await client.done
        gone = await until(lambda: not _processes(side), 5)
        found.append("none goes on" if gone else f"goes on: {_processes(side)}")
        path.unlink()
    return ", ".join(found)


@behaviour(SCP, "A limit of file sizes (ulimit -f) that the shell's start-up file sets, with -O")
async def size_limit(side: Side) -> str:
    there = remote(side)
    local(side, "head -c 300000 /dev/zero > big; echo x > small")
    with _start_up(side, "ulimit -f 100; trap '' XFSZ"):
        said = words(side, await scp(side, "-O", "big", "small", "HOST:w", alone=True))
    return f"{said}; {tree(there)}"


@behaviour(SCP, "Commands in names of the old protocol (the user's own shell runs them)")
async def shell_words(side: Side) -> str:
    there = remote(side, "echo 1 > a")
    local(side)
    said = [
        words(side, await scp(side, "-O", f"HOST:{name}", "x"))
        for name in ("w/$(echo a)", "w/a; touch w/made", "`touch w/too; echo w/a`")
    ]
    return f"{', '.join(said)}; {tree(there, modes=False)}"


# --- accounts and shells ---------------------------------------------------------------------------------------------


class _start_up:
    """Lines at the front of the user's ~/.bashrc, for a while."""

    def __init__(self, side: Side, text: str) -> None:
        self._file = side.home / ".bashrc"
        self._text = text

    def __enter__(self) -> None:
        self._before = self._file.read_text()
        self._file.write_text(f"{self._text}\n{self._before}")

    def __exit__(self, *_: object) -> None:
        self._file.write_text(self._before)


async def _all_ways(side: Side) -> str:
    """sftp, scp and scp -O over connections of their own: what was said, and what arrived."""
    found = []
    for way in ("sftp", "-s", "-O"):
        there = remote(side)
        local(side, "echo hello > a")
        if way == "sftp":
            result = await sftp(side, "put a w/a", alone=True)
        else:
            result = await scp(side, way, "a", "HOST:w/a", alone=True)
        name = {"sftp": "sftp", "-s": "scp", "-O": "scp -O"}[way]
        found.append(f"{name}: {words(side, result)}, {tree(there)}")
    return "; ".join(found)


async def _with_shell(side: Side, shell: str) -> str:
    await usermod(side, "-s", shell)
    try:
        return await _all_ways(side)
    finally:
        await usermod(side, "-s", "/bin/bash")


@behaviour(ENTRY, "Login shell bash, sh")
async def usual_shells(side: Side) -> str:
    return f"bash: {await _all_ways(side)}; sh: {await _with_shell(side, '/bin/sh')}"


@behaviour(ENTRY, "Login shell nologin")
async def nologin(side: Side) -> str:
    return await _with_shell(side, "/usr/sbin/nologin")


@behaviour(ENTRY, "Login shell /bin/false")
async def false(side: Side) -> str:
    return await _with_shell(side, "/bin/false")


@behaviour(
    ENTRY,
    "Login shell rbash",
    reason="Both refuse what has a slash in its name. sshd throws away what a subsystem says on stderr; from the node "
    "the user hears why.",
)
async def restricted(side: Side) -> str:
    return re.sub(r"/[^ ]*/sftp-server", "FOLDER/sftp-server", await _with_shell(side, "/bin/rbash"))


@behaviour(ENTRY, "Login shell: a script that runs what it is given, and logs")
async def script_shell(side: Side) -> str:
    script = Path("/usr/local/bin", f"{side.user}-shell")
    script.write_text('#!/bin/sh\necho "$1" >> ~/asked\nexec /bin/sh "$@"\n')
    script.chmod(0o755)
    try:
        said = await _with_shell(side, str(script))
    finally:
        script.unlink()
    return f"{said}; asked {(side.home / 'asked').read_text().split()}"


@behaviour(
    ENTRY,
    "A ~/.bashrc that prints",
    reason="No shell is started for SFTP where the account's is one that lets its user run anything, as for sshd's own "
    "internal-sftp: nothing printed can get into the protocol.",
)
async def noise(side: Side) -> str:
    with _start_up(side, "echo Welcome to this host"):
        return await _all_ways(side)


@behaviour(
    ENTRY,
    "A ~/.bashrc that sets a umask",
    reason="As above: no shell, no ~/.bashrc for SFTP. A umask for all comes from PAM (below).",
)
async def umask(side: Side) -> str:
    with _start_up(side, "umask 077"):
        return await _all_ways(side)


@behaviour(
    ENTRY,
    "Home directory is missing",
    reason="The same place; the node says so, on stderr, as for a command.",
)
async def homeless(side: Side) -> str:
    await usermod(side, "-d", "/nonexistent")
    try:
        return words(side, await sftp(side, "pwd", alone=True))
    finally:
        await usermod(side, "-d", f"/home/{side.user}")


@behaviour(ENTRY, "With PAM: its word of the day and umask 027", pam=True)
async def with_pam(side: Side) -> str:
    return await _all_ways(side)


@behaviour(ENTRY, "What copying leaves behind: processes, files of the user outside of his home")
async def left(side: Side) -> str:
    uid = pwd.getpwnam(side.user).pw_uid

    def files() -> set[str]:
        places = [Path(folder) for folder in ("/tmp", "/run", "/var/tmp", "/dev/shm")]
        return {str(each) for place in places for each in place.iterdir() if each.lstat().st_uid == uid}

    before = files()
    await _all_ways(side)
    gone = await until(lambda: not _processes(side), 5)
    return f"processes: {'none' if gone else _processes(side)}; files: {' '.join(files() - before) or 'none'}"
