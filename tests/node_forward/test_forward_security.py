"""As root with unprivileged logins: what a user cannot reach through forwarding."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from teleconch.errors import ConnectionProblem
from teleconch.node.forward.errands import Errands
from teleconch.node.start import LoginRules
from teleconch.ssh.account import Account
from tests.worlds.forward import ask, children, free_port, listens, master, program, ssh_agent, upper
from tests.worlds.node import World, running_node
from tests.worlds.reactor import reactor
from tests.worlds.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.program("ssh", "ssh-agent", "ssh-add", "useradd", "runuser")]


def _as_user(user: str, code: str) -> subprocess.CompletedProcess[bytes]:
    line = ["runuser", "-u", user, "--", "/usr/bin/python3", "-c", code]
    return subprocess.run(line, capture_output=True, check=False, cwd="/")


def _uid_of(sock: socket.socket) -> int:
    """Who made the socket on loopback that ``sock`` is connected to, as services and firewalls learn it."""
    ends = f":{sock.getpeername()[1]:04X}", f":{sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(ends[0]) and fields[2].endswith(ends[1]):
            return int(fields[7])
    raise AssertionError("no such connection")


@pytest_twisted.ensureDeferred
async def test_dials_as_the_user(world: World, users: tuple[str, str]) -> None:
    """A service that asks who connects is told the login user, over TCP and over a Unix socket."""
    user, _ = users
    world.allow(user)
    uid = int(subprocess.check_output(["id", "-u", user]))
    found: list[int] = []

    def who_tcp(sock: socket.socket) -> None:
        found.append(_uid_of(sock))

    def who_unix(sock: socket.socket) -> None:
        found.append(int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], "little"))

    path = f"/tmp/{user}.service"
    try:
        with program(who_tcp) as server:
            await world.ssh(options=("-W", f"127.0.0.1:{server.getsockname()[1]}"), login=user, stdin=None)
        with program(who_unix, path):
            os.chmod(path, 0o777)
            port = free_port()
            ssh = await master(world, "-L", f"127.0.0.1:{port}:{path}", login=user)
            await ask(("127.0.0.1", port), b"")
            await ssh.end()
    finally:
        os.unlink(path)
    assert found == [uid, uid]


@pytest_twisted.ensureDeferred
async def test_sockets_of_others(world: World, users: tuple[str, str]) -> None:
    """`ssh -L` to another user's socket fails as it would in a shell, through a symlink too; also root's."""
    user, other = users
    world.allow(user)
    for owner, mode in ((other, 0o700), ("root", 0o700)):
        folder = Path("/tmp") / f"{user}.{owner}"
        folder.mkdir(mode=0o755)
        path = folder / "private"
        link = Path("/tmp") / f"{user}.link"
        try:
            with program(upper, str(path)):
                path.chmod(mode)
                subprocess.run(["chown", "-R", owner, str(folder)], check=True)
                subprocess.run(["runuser", "-u", user, "--", "ln", "-s", str(path), str(link)], check=True)
                for target in (path, link):
                    port = free_port()
                    ssh = await master(world, "-L", f"127.0.0.1:{port}:{target}", login=user)
                    assert await ask(("127.0.0.1", port), b"") == b""
                    await until(lambda ssh=ssh: b"Permission denied" in ssh.client.err)  # type: ignore[misc]
                    await ssh.end()
        finally:
            link.unlink(missing_ok=True)
            subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest_twisted.ensureDeferred
async def test_listeners_are_made_as_the_user(world: World, users: tuple[str, str]) -> None:
    """`ssh -R` makes a socket only where the user may, owned by him; no other user can connect to it."""
    user, other = users
    world.allow(user)
    path = f"/tmp/{user}.listener"
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        for forbidden in (f"/root/{user}", f"/etc/{user}", f"/home/{other}/listener", f"/run/{user}"):
            result = await world.ssh(
                options=("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{forbidden}:{target}"), login=user
            )
            assert b"remote port forwarding failed" in result.err
            assert not os.path.exists(forbidden)
        ssh = await master(world, "-R", f"{path}:{target}", login=user)
        await until(lambda: os.path.exists(path))
        assert Path(path).owner() == user
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        assert b"PermissionError" in (await deferToThread(_as_user, other, connect)).stderr
        assert (await deferToThread(_as_user, user, connect)).returncode == 0
        await ssh.end()


@pytest_twisted.ensureDeferred
async def test_a_symlink_is_not_followed(world: World, users: tuple[str, str]) -> None:
    """A symlink at the listener's path leads nowhere: nothing is made at its target, nothing is removed."""
    user, _ = users
    world.allow(user)
    link, victim = Path(f"/tmp/{user}.link"), Path(f"/etc/{user}.victim")
    subprocess.run(["runuser", "-u", user, "--", "ln", "-s", str(victim), str(link)], check=True)
    try:
        for _ in range(2):
            result = await world.ssh(
                options=("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{link}:127.0.0.1:1"), login=user
            )
            assert b"remote port forwarding failed" in result.err
            assert link.is_symlink()
        assert not victim.exists()
    finally:
        link.unlink()


@pytest_twisted.ensureDeferred
async def test_swapping_the_socket_removes_nothing_else(world: World, users: tuple[str, str]) -> None:
    """A user who swaps his socket's folder for a link to root's cannot have root's file removed at the end."""
    user, _ = users
    world.allow(user)
    home, roots = Path(f"/home/{user}"), Path(f"/etc/{user}.d")
    roots.mkdir()
    (roots / "socket").write_text("root's")
    try:
        subprocess.run(["runuser", "-u", user, "--", "mkdir", str(home / "d")], check=True)
        ssh = await master(world, "-R", f"{home}/d/socket:127.0.0.1:1", login=user)
        await until((home / "d/socket").exists)
        swap = f"mv {home}/d {home}/e && ln -s {roots} {home}/d"
        subprocess.run(["runuser", "-u", user, "--", "sh", "-c", swap], check=True)
        await ssh.end()
        await until(lambda: not children(world))
        assert (roots / "socket").read_text() == "root's"
    finally:
        subprocess.run(["rm", "-rf", str(roots)], check=True)


@pytest_twisted.ensureDeferred
async def test_low_ports(world: World, users: tuple[str, str]) -> None:
    """A port below 1024 is root's, even where the kernel would give it to anyone."""
    user, _ = users
    port = next(port for port in range(700, 1000) if not listens(("127.0.0.1", port)))
    forward = ("-R", f"{port}:127.0.0.1:1")
    world.allow(user, "root")
    result = await world.ssh(options=("-N", "-o", "ExitOnForwardFailure=yes", *forward), login=user)
    assert b"remote port forwarding failed" in result.err
    assert world.logged("port", success=False)[0]["error"] == "Permission denied"
    ssh = await master(world, *forward)
    await until(lambda: listens(("127.0.0.1", port)))
    await ssh.end()


@pytest_twisted.ensureDeferred
async def test_agent_of_another(world: World, users: tuple[str, str]) -> None:
    """The agent's socket answers its user, and nobody else; not even when the folder is opened by mistake."""
    user, other = users
    world.allow(user)
    with ssh_agent(world.path / "agent") as agent:
        client = world.start(
            "ssh-add -l; echo $SSH_AUTH_SOCK=; exec sleep 60",
            options=("-A",),
            env=agent,
            login=user,
            stdin=None,
        )
        await client.until(b"=")
        assert b"The agent has no identities." in client.out
        forwarded = re.search(rb"(/tmp/ssh-.*/agent\..*)=", client.out)
        assert forwarded is not None
        theirs = forwarded[1].decode()
        assert Path(theirs).owner() == Path(theirs).parent.owner() == user
        talk = f"import socket; s=socket.socket(socket.AF_UNIX); s.connect({theirs!r}); "
        talk += r"s.sendall(b'\0\0\0\1\x0b'); print(s.recv(100))"
        assert b"PermissionError" in (await deferToThread(_as_user, other, talk)).stderr
        os.chmod(Path(theirs).parent, 0o777)
        os.chmod(theirs, 0o777)
        answer = await deferToThread(_as_user, other, talk)
        assert answer.stdout in (b"", b"b''\n")
        assert [event for event in world.logged("port", success=False) if "id" in event["error"]]
        assert b"\\x0c" in (await deferToThread(_as_user, user, talk)).stdout
        client.kill()
        await client.done
        await until(lambda: not os.path.exists(theirs))


@pytest_twisted.ensureDeferred
async def test_the_child_is_the_user(world: World, users: tuple[str, str]) -> None:
    """The forwarding process has the user's rights only, holds nothing of the daemon's, and he cannot look into it."""
    user, _ = users
    world.allow(user)
    ssh = await master(world, "-R", f"/tmp/{user}.listener:127.0.0.1:1", login=user)
    await until(lambda: os.path.exists(f"/tmp/{user}.listener"))
    (child,) = children(world)
    status = Path(f"/proc/{child}/status").read_text()
    uid = subprocess.check_output(["id", "-u", user]).decode().strip()
    assert re.search(rf"^Uid:\t{uid}\t{uid}\t{uid}\t{uid}$", status, re.M)
    assert re.search(r"^CapEff:\t0+$", status, re.M)
    peek = f"open('/proc/{child}/mem', 'rb')"
    assert b"PermissionError" in (await deferToThread(_as_user, user, peek)).stderr
    assert len(os.listdir(f"/proc/{child}/fd")) <= 8
    await ssh.end()
    await until(lambda: not children(world))


@pytest_twisted.ensureDeferred
async def test_stopped_child(world: World, users: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who stops his own forwarding process waits in vain; others are served, and all of it ends in time."""
    user, _ = users
    world.allow(user, "root")
    monkeypatch.setattr("teleconch.node.forward.errands.DEADLINE", 1.0)
    errands = Errands(reactor, world.node.parts.launcher, user, lambda: Account(1 << 24))
    with program(upper) as server:
        port = server.getsockname()[1]
        (await errands.dial(b"127.0.0.1", port)).close()
        (child,) = children(world)
        subprocess.run(["runuser", "-u", user, "--", "kill", "-STOP", str(child)], check=True)
        with pytest.raises(ConnectionProblem, match="timed out"):
            await errands.dial(b"127.0.0.1", port)
        assert (await world.ssh(options=("-W", f"127.0.0.1:{port}"), stdin=b"on")).out == b"ON"
        errands.close()
        os.kill(child, 18)
        await until(lambda: not children(world))


@pytest_twisted.ensureDeferred
async def test_preloading_has_no_effect(world: World, users: tuple[str, str]) -> None:
    """What a user puts into his home cannot get into the forwarding process: it loads nothing as the user."""
    user, _ = users
    world.allow(user)
    home = Path(f"/home/{user}")
    traps = f"open('/tmp/{user}.trapped', 'w')\n"
    for name in ("usercustomize.py", "sitecustomize.py", "socket.py", "json.py"):
        (home / name).write_text(traps)
    done = threading.Event()

    def act(sock: socket.socket) -> None:
        done.set()

    with program(act) as server:
        await world.ssh(options=("-W", f"localhost:{server.getsockname()[1]}"), login=user)
    assert done.is_set()
    assert not os.path.exists(f"/tmp/{user}.trapped")


@pytest_twisted.ensureDeferred
async def test_through_pam(tmp_path: Path, users: tuple[str, str]) -> None:
    """With PAM around each process of the user, forwarding works and leaves nothing, as without."""
    user, _ = users
    world = await running_node(tmp_path, rules=LoginRules(pam_service="sshd"))
    world.allow(user)
    path = f"/tmp/{user}.listener"
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        assert (await world.ssh(options=("-W", target), login=user, stdin=b"pam")).out == b"PAM"
        ssh = await master(world, "-R", f"{path}:{target}", login=user)
        await until(lambda: os.path.exists(path))
        assert await ask(path, b"back") == b"BACK"
        ssh.client.kill()
        await ssh.client.done
    await until(lambda: not os.path.exists(path) and not children(world))
    await world.close()


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false"])
@pytest_twisted.ensureDeferred
async def test_account_without_a_shell(world: World, users: tuple[str, str], shell: str) -> None:
    """An account that is there only to forward (its shell runs nothing) forwards, as with sshd."""
    user, _ = users
    subprocess.run(["usermod", "-s", shell, user], check=True)
    world.allow(user)
    with program(upper) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        assert (await world.ssh(options=("-W", target), login=user, stdin=b"only")).out == b"ONLY"
