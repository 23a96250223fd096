"""sftp, scp and rsync against a node: what a user sees, and what its log tells."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest
import pytest_twisted

from tests.worlds.files import FilesWorld
from tests.worlds.node import ME
from tests.worlds.waiting import until

pytestmark = pytest.mark.program("scp", "sftp", "rsync")


def _contents(path: Path, size: int) -> bytes:
    data = os.urandom(size)
    path.write_bytes(data)
    return data


def _big(folder: Path) -> Path:
    (folder / "big").write_bytes(bytes(3_000_000))
    return folder / "big"


# --- sftp ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_sftp_up_and_down(files: FilesWorld, tmp_path: Path) -> None:
    """`sftp` puts and gets files; the log tells each with its path, direction and size."""
    data = _contents(tmp_path / "here", 3_000_000)
    result = await files.sftp(f"put {tmp_path}/here {tmp_path}/there", f"get {tmp_path}/there {tmp_path}/back")
    assert (result.code, result.err) == (0, b"")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes() == data
    there = str(tmp_path / "there")
    assert files.moved("sftp") == [(there, "upload", len(data), True), (there, "download", len(data), True)]
    (start,) = files.world.logged("session.start")
    (end,) = files.world.logged("session.end")
    for event in files.world.logged("sftp"):
        assert (event["user"], event["login"], event["sid"]) == ("alice", ME, start["sid"])
    assert (start["subsystem"], end["exit_code"]) == ("sftp", 0)
    assert files.world.events.index(end) > files.world.events.index(files.world.logged("sftp")[-1])


@pytest_twisted.ensureDeferred
async def test_sftp_commands(files: FilesWorld, tmp_path: Path) -> None:
    """Each command of `sftp` does what it does with sshd."""
    here = tmp_path / "d"
    user, group = (12, 34) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    result = await files.sftp(
        f"mkdir {here}", f"cd {here}", "pwd", "put /etc/passwd a", "rename a b", "ln b c", "symlink b s",
        "chmod 640 b", f"chown {user} b", f"chgrp {group} b", "ls -la", "df .", "df -h", "rm c", "mkdir e",
        "cp b e/b", "ls -1 e", "put -f /etc/passwd f", "cp f g", "rm e/b", "rmdir e", "version",
    )  # fmt: skip
    assert (result.code, result.err) == (0, b"")
    info = (here / "b").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, user, group)
    assert os.readlink(here / "s") == "b"
    assert sorted(os.listdir(here)) == ["b", "f", "g", "s"]
    assert f"Remote working directory: {here}".encode() in result.out
    assert b"SFTP protocol version 3" in result.out


@pytest_twisted.ensureDeferred
async def test_sftp_refusals(files: FilesWorld, tmp_path: Path) -> None:
    """What cannot be done is told in sftp's usual words, and the log knows of the attempt."""
    result = await files.sftp("-get /nonexistent/x /dev/null", "-put /etc/hostname /nonexistent/x", "-rm /nonexistent")
    assert b'File "/nonexistent/x" not found' in result.err
    assert b'dest open "/nonexistent/x": No such file or directory' in result.err
    assert files.moved("sftp") == [("/nonexistent/x", "upload", 0, False)]


@pytest_twisted.ensureDeferred
async def test_sftp_starts_in_the_home_directory(files: FilesWorld, other_user: str) -> None:
    """`sftp` starts at home, without what the shell's start-up files print, and is the user: uid, gid and groups."""
    files.world.allow(other_user)
    home = pwd.getpwnam(other_user).pw_dir
    Path(home, ".bashrc").write_text("echo noise that would break sftp\n")
    result = await files.sftp("pwd", "put /etc/passwd mine", "ls -l mine", login=other_user)
    assert result.code == 0, result.err
    assert f"Remote working directory: {home}".encode() in result.out
    info = os.stat(f"{home}/mine")
    assert (info.st_uid, info.st_gid) == pwd.getpwnam(other_user)[2:4]
    assert stat.S_IMODE(info.st_mode) == 0o644


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false", "/bin/rbash"])
async def test_sftp_needs_the_shell(files: FilesWorld, other_user: str, shell: str) -> None:
    """An account whose shell forbids things gets no files past it, as with sshd."""
    os.system(f"usermod -s {shell} {other_user}")
    files.world.allow(other_user)
    result = await files.sftp("pwd", login=other_user)
    assert result.code != 0
    assert b"/home" not in result.out


@pytest_twisted.ensureDeferred
async def test_sftp_through_an_unknown_shell(files: FilesWorld, other_user: str, tmp_path: Path) -> None:
    """A shell that this node does not know is asked, and may allow it."""
    shell = Path("/usr/local/bin") / f"{other_user}-sh"
    shell.write_text('#!/bin/bash\nexec /bin/bash "$@"\n')
    shell.chmod(0o755)
    try:
        os.system(f"usermod -s {shell} {other_user}")
        files.world.allow(other_user)
        result = await files.sftp("put /etc/passwd mine", "ls mine", login=other_user)
        assert (result.code, result.err) == (0, b"")
        assert len(files.moved("sftp")) == 1
    finally:
        shell.unlink()


@pytest_twisted.ensureDeferred
async def test_transfer_cut_off(files: FilesWorld, tmp_path: Path) -> None:
    """A file whose transfer was cut off is in the log, and not as moved whole; the child is gone."""
    back = tmp_path / "back"
    (tmp_path / "big").write_bytes(b"")
    os.truncate(tmp_path / "big", 8 << 30)
    client = files.start(
        "sftp", *files.options(), "-b", "-", f"{ME}@127.0.0.1", stdin=f"get {tmp_path}/big {back}\n".encode()
    )
    await until(lambda: back.exists() and back.stat().st_size > 1_000_000)
    client.kill()
    await until(lambda: files.moved("sftp"))
    ((path, action, size, ok),) = files.moved("sftp")
    assert (path, action, ok) == (f"{tmp_path}/big", "download", False)
    assert 0 < size < 8 << 30


# --- scp -------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("protocol", ["-O", "-s"])
async def test_scp(files: FilesWorld, tmp_path: Path, protocol: str) -> None:
    """`scp` copies up and down in both of its protocols, and the log tells of each file."""
    data = _contents(tmp_path / "one", 2_000_000)
    there = tmp_path / "there"
    there.mkdir()
    result = await files.scp(protocol, "-p", f"{tmp_path}/one", f"{ME}@127.0.0.1:{there}/")
    assert (result.code, result.out, result.err) == (0, b"", b"")
    result = await files.scp(protocol, f"{ME}@127.0.0.1:{there}/one", f"{tmp_path}/back")
    assert (result.code, result.out, result.err) == (0, b"", b"")
    assert (tmp_path / "back").read_bytes() == (there / "one").read_bytes() == data
    event = "scp" if protocol == "-O" else "sftp"
    path = f"{there}/one"
    assert files.moved(event) == [(path, "upload", len(data), True), (path, "download", len(data), True)]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("protocol", ["-O", "-s"])
async def test_scp_globs_and_words(files: FilesWorld, tmp_path: Path, protocol: str) -> None:
    """Patterns, tildes and quotes mean what they mean with sshd."""
    folder = tmp_path / "f"
    folder.mkdir()
    for name in "a1", "a2", "b1", "with space":
        (folder / name).write_text(name)
    back = tmp_path / "back"
    back.mkdir()
    result = await files.scp(protocol, f"{ME}@127.0.0.1:{folder}/a*", str(back))
    assert (result.code, sorted(os.listdir(back))) == (0, ["a1", "a2"])
    quoted = "with\\ space" if protocol == "-O" else "with space"
    result = await files.scp(protocol, f"{ME}@127.0.0.1:{folder}/{quoted}", str(back))
    assert (result.code, (back / "with space").read_text()) == (0, "with space")
    result = await files.scp(protocol, f"{ME}@127.0.0.1:{folder}/none*", str(back))
    assert result.code == 1
    assert b"No such file or directory" in result.err


@pytest_twisted.ensureDeferred
async def test_scp_old_protocol_is_ours(files: FilesWorld, other_user: str, tmp_path: Path) -> None:
    """`scp -O` works for a user who can read neither the node's program nor its interpreter, as that user."""
    files.world.allow(other_user)
    home = Path(pwd.getpwnam(other_user).pw_dir)
    result = await files.scp("-O", "-r", "/etc/skel", f"{other_user}@127.0.0.1:copy")
    assert (result.code, result.err) == (0, b"")
    assert {info.st_uid for info in map(os.stat, [home / "copy", home / "copy/.bashrc"])} == {
        pwd.getpwnam(other_user)[2]
    }
    result = await files.scp("-O", f"{other_user}@127.0.0.1:/etc/shadow", str(tmp_path))
    assert (result.code, b"scp: /etc/shadow: Permission denied" in result.err) == (1, True)
    assert ("/etc/shadow", "download", 0, False) in files.moved("scp")
    assert (f"{home}/copy/.bashrc", "upload", (home / "copy/.bashrc").stat().st_size, True) in files.moved("scp")


@pytest_twisted.ensureDeferred
async def test_scp_exit_statuses(files: FilesWorld, tmp_path: Path) -> None:
    """Exit statuses and errors of `scp -O` are sshd's; the shell's own come through too."""
    assert (await files.ssh("scp -f /nonexistent; exit 7", stdin=b"\0" * 9)).code == 7
    result = await files.ssh("scp -f /nonexistent", stdin=b"\0" * 9)
    assert (result.code, result.out) == (1, b"\x01scp: /nonexistent: No such file or directory\n")
    result = await files.ssh("scp -f /etc/passwd | wc -c; scp -t 2>&1; kill -TERM $$", stdin=b"\0" * 3)
    assert result.code == 255
    assert files.world.logged("session.end")[-1]["exit_code"] == -15
    result = await files.ssh("scp 2>&1", stdin=b"")
    assert (result.code, b"usage: scp" in result.out) == (1, True)
    result = await files.ssh(
        "scp /etc/hostname /dev/stdout; cd /etc; umask 077; scp -f passwd > " + f"{tmp_path}/o", stdin=b"\0" * 3
    )
    assert result.code == 0
    assert (tmp_path / "o").read_bytes().startswith(b"C0644 ")
    assert result.out == Path("/etc/hostname").read_bytes()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0", b"\0\1no\n", b"\2no\n"])
async def test_scp_client_that_goes(files: FilesWorld, tmp_path: Path, sent: bytes) -> None:
    """A client of `scp -O` that ends in the middle leaves nobody waiting."""
    assert (await files.ssh(f"scp -f {_big(tmp_path)}", stdin=sent)).code == 1
    assert (await files.ssh(f"scp -t {tmp_path}/x", stdin=b"C0644 5 x\nab")).code == 1
    assert ((f"{tmp_path}/x", "upload", 2, False)) in files.moved("scp")


@pytest_twisted.ensureDeferred
async def test_scp_far_end_that_is_killed(files: FilesWorld, tmp_path: Path) -> None:
    """`scp -O` whose far end is killed (no memory left, say) ends, and waits for nobody."""
    client = files.start(*["ssh", *files.options(), f"{ME}@127.0.0.1", f"scp -t {tmp_path}/x; echo $?"], stdin=None)
    client.write(b"C0644 5 x\n")
    await until(lambda: (tmp_path / "x").exists())
    session = files.world.logged("session.start")[0]["pid"]
    (lender,) = (pid for pid in _children(session) if _command(pid) == _command(session))
    os.kill(lender, 9)
    result = await client.done
    assert (result.code, result.out) == (0, b"\0\0" + b"137\n")


def _command(pid: int) -> str:
    """What everyone may read, unlike ``exe`` of a process that forbids tracing."""
    return Path(f"/proc/{pid}/comm").read_text()


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest_twisted.ensureDeferred
async def test_scp_keeps_to_the_shells_limits(files: FilesWorld, tmp_path: Path) -> None:
    """A limit that the user's shell has set (`ulimit`) holds for `scp -O` as well."""
    result = await files.ssh(f"scp -T; ulimit -f 1; scp -t {tmp_path}/x", stdin=b"C0644 5000 x\n" + bytes(5001))
    assert (result.code, result.out) == (1, b"\0\0\x01scp: %s/x: File too large\n" % os.fsencode(tmp_path))
    assert (tmp_path / "x").stat().st_size == 1024


@pytest_twisted.ensureDeferred
async def test_scp_leaves_the_environment_alone(files: FilesWorld) -> None:
    """A command that begins with scp sees the same variables as any other, but for the front of PATH."""
    show = "env -u SSH_CLIENT -u SSH_CONNECTION -u SSH_SESSION_ID -u PATH"
    plain = await files.ssh(show)
    other = await files.ssh(f"scp -f; {show}", stdin=b"\0")
    before, after = (sorted(each.out.splitlines()) for each in (plain, other))
    assert after == before
    assert b"teleconch-" not in (await files.ssh("echo $PATH")).out


@pytest_twisted.ensureDeferred
async def test_folder_is_gone_with_the_node(files: FilesWorld) -> None:
    """A node that stops leaves no temporary file; one whose folder was cleaned away makes it again."""
    result = await files.ssh("scp -f; command -v scp", stdin=b"\0")
    folder = Path(os.fsdecode(result.out.strip())).parent
    assert sorted(os.listdir(folder)) == ["scp", "sftp-server"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    (folder / "scp").unlink()
    (folder / "sftp-server").unlink()
    folder.rmdir()
    result = await files.ssh("scp -f; command -v scp", stdin=b"\0")
    again = Path(os.fsdecode(result.out.strip())).parent
    assert again.exists()
    await files.world.node.stopService()
    assert not again.exists()


@pytest_twisted.ensureDeferred
async def test_rsync(files: FilesWorld, tmp_path: Path) -> None:
    """`rsync` sends many files, deletes and updates."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    for number in range(300):
        (here / str(number)).write_text(str(number))
    result = await files.rsync("-a", f"{here}/", f"{ME}@127.0.0.1:{there}/")
    assert (result.code, result.err) == (0, b"")
    (here / "7").unlink()
    (here / "8").write_text("changed")
    result = await files.rsync("-a", "--delete", f"{here}/", f"{ME}@127.0.0.1:{there}/")
    assert (result.code, result.err) == (0, b"")
    assert {each.name: each.read_text() for each in here.iterdir()} == {
        each.name: each.read_text() for each in there.iterdir()
    }


# --- users among each other ------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", ["sftp", "scp -O", "scp -s"])
async def test_another_users_files(files: FilesWorld, other_user: str, tmp_path: Path, way: str) -> None:
    """A user gets and overwrites nobody's files, neither by name nor through links (issue 4, point 5)."""
    files.world.allow(other_user)
    home = Path(pwd.getpwnam(other_user).pw_dir)
    secret = Path("/root") / f"{other_user}-secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    (home / "link").symlink_to(secret)
    (home / "folder").symlink_to("/root")
    try:
        for path in str(secret), "link", f"folder/{secret.name}", f"../../{secret}", f"/proc/self/root/{secret}":
            for source, target in (
                (f"{other_user}@127.0.0.1:{path}", f"{tmp_path}/got"),
                ("/etc/passwd", f"{other_user}@127.0.0.1:{path}"),
            ):
                if way == "sftp":
                    verb = f"get {path} {tmp_path}/got" if source != "/etc/passwd" else f"put /etc/passwd {path}"
                    result = await files.sftp(verb, login=other_user)
                else:
                    result = await files.scp(way.split()[1], source, target)
                assert result.code != 0
        assert secret.read_text() == "secret"
        assert not (tmp_path / "got").exists() or not (tmp_path / "got").read_bytes()
        assert not any(each[3] for each in files.moved("sftp") + files.moved("scp"))
    finally:
        secret.unlink()


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_child_is_the_user(files: FilesWorld, other_user: str) -> None:
    """The process that serves SFTP has no way back to root, and nothing of the daemon's."""
    files.world.allow(other_user)
    client = files.start("sftp", *files.options(), f"{other_user}@127.0.0.1", stdin=None)
    await until(lambda: files.world.logged("session.start"))
    pid = files.world.logged("session.start")[0]["pid"]
    uid = pwd.getpwnam(other_user).pw_uid
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(uid)] * 4
    assert {status[name].strip().strip("0") for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {""}
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert len(targets) == 4, targets
    assert not [each for each in targets if not each.startswith(("pipe:", "socket:"))]
    client.kill()
    await client.done
