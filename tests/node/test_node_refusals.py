"""Who is refused, with which sentence, and that the log has it. Each opens a shell for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionLost

from teleconch.ca.keys import new_ssh_key
from teleconch.errors import TeleconchError
from teleconch.ssh.channel import Channel
from tests.worlds.node import ME, Authorities, World

pytestmark = pytest.mark.program("ssh", "ssh-keygen")


async def _refused(world: World, word: str, login: str = ME) -> None:
    """The login fails, nothing runs, and a log line with the fields of an audit says why."""
    result = await world.ssh("echo in", login=login)
    assert (result.out, result.code) == (b"", 255)
    assert b"Permission denied" in result.err
    events = [event for event in world.logged("auth", success=False) if word in event["error"]]
    assert events, [event["error"] for event in world.logged("auth")]
    assert events[0]["login"] == login
    assert "127.0.0.1" in events[0]["addr_remote"]
    assert events[0]["server_id"] == world.node.parts.host_uuid
    assert not world.logged("session.start")


def _keygen(world: World, *options: str, ca: str | None = None, identity: str = "alice") -> None:
    """Have ssh-keygen sign the client's key with the user authority (or the key file ``ca``)."""
    signer = world.path / "ca"
    if ca is None:
        signer.touch(0o600)
        signer.write_text(world.authorities.user.ssh_private_key.reveal())
    world.key()
    line = ["ssh-keygen", "-q", "-s", ca or str(signer), "-I", identity, "-n", ME, "-V", "-1m:+10m"]
    subprocess.run([*line, *options, str(world.path / "key.pub")], check=True, capture_output=True)


@pytest_twisted.ensureDeferred
async def test_expired(world: World) -> None:
    """An expired certificate is refused."""
    world.allow(ME, after=-120, before=-60)
    await _refused(world, "expired")


@pytest_twisted.ensureDeferred
async def test_not_yet_valid(world: World) -> None:
    """A certificate from the future is refused, with a hint at the clocks."""
    world.allow(ME, after=600)
    await _refused(world, "not valid before")


@pytest_twisted.ensureDeferred
async def test_another_login(world: World) -> None:
    """A login that is no principal of the certificate is refused."""
    world.allow("alice")
    await _refused(world, f"does not allow the login {ME!r}")


@pytest_twisted.ensureDeferred
async def test_another_cluster(world: World) -> None:
    """Another cluster's user authority lets nobody in."""
    other = Authorities("other.example.com")
    world.certificate(other.user_cert(world.public(), (ME,)))
    await _refused(world, "not signed by a user authority")


@pytest_twisted.ensureDeferred
async def test_another_cluster_that_is_trusted_otherwise(world: World) -> None:
    """An authority of another cluster in the cache still lets nobody in: the cluster is bound to the authority."""
    other = Authorities("other.example.com")
    world.member.also = other.trusted()
    world.certificate(other.user_cert(world.public(), (ME,)))
    await _refused(world, "not signed by a user authority")


@pytest_twisted.ensureDeferred
async def test_host_certificate(world: World) -> None:
    """A host's certificate lets nobody in, even one that the user authority should never have signed."""
    with pytest.raises(TeleconchError):
        await world.connect(certificate=world.authorities.host_cert(world.public()))
    assert "not signed by a user authority" in world.logged("auth", success=False)[-1]["error"]
    _keygen(world, "-h")
    with pytest.raises(TeleconchError):
        await world.connect()
    assert "host's certificate" in world.logged("auth", success=False)[-1]["error"]
    assert not world.logged("session.start")


@pytest_twisted.ensureDeferred
async def test_nested_certificate(world: World) -> None:
    """A certificate signed by a key that itself only has a certificate is refused (CVE-2025-49825)."""
    private, public = new_ssh_key()
    middle = world.path / "middle"
    middle.touch(0o600)
    middle.write_text(private.reveal())
    (world.path / "middle.pub").write_text(public)
    (world.path / "middle-cert.pub").write_text(world.authorities.user_cert(public, (ME,)))
    _keygen(world, ca=str(middle))
    await _refused(world, "not signed by a user authority")


@pytest_twisted.ensureDeferred
async def test_unknown_critical_option(world: World) -> None:
    """A critical option that the node does not know is refused, as its meaning could be a limit."""
    _keygen(world, "-O", "critical:verify-moon=full")
    await _refused(world, "critical option")
    _keygen(world, "-O", "force-command=id")
    await _refused(world, "critical option")


@pytest_twisted.ensureDeferred
async def test_source_address(world: World) -> None:
    """source-address holds: another network is refused, the right one is let in."""
    _keygen(world, "-O", "source-address=10.9.0.0/16")
    await _refused(world, "may not be used from 127.0.0.1")
    _keygen(world, "-O", "source-address=10.9.0.0/16,127.0.0.0/8")
    assert (await world.ssh("echo in")).out == b"in\n"


@pytest_twisted.ensureDeferred
async def test_plain_key_and_odd_principals(world: World) -> None:
    """A plain key, and a certificate whose principals are a list in one, open nothing (CVE-2026-35414)."""
    (world.path / "key-cert.pub").unlink()
    await _refused(world, "certificate")
    _keygen(world, "-n", "alice,root x")
    await _refused(world, "principals")


@pytest_twisted.ensureDeferred
async def test_unknown_os_user(world: World) -> None:
    """A login that the machine does not have: a sentence that says so, exit status 255, and a log line."""
    world.allow("nosuchuser")
    result = await world.ssh("echo in", login="nosuchuser")
    assert (result.out, result.code) == (b"", 255)
    assert b"There is no user nosuchuser on this machine" in result.err
    (event,) = world.logged("session.start")
    assert (event["success"], event["login"], event["user"]) == (False, "nosuchuser", "alice")
    assert "no user nosuchuser" in event["error"]
    result = await world.ssh(login="nosuchuser", options=("-tt",), pty=True)
    assert b"There is no user nosuchuser" in result.out


@pytest_twisted.ensureDeferred
async def test_forwarding_is_refused_with_a_reason(world: World) -> None:
    """Without the permits in the certificate, -L, -R and -A are refused; the log says who asked for what."""
    world.allow(ME, extensions=("permit-pty",))
    result = await world.ssh("echo in", options=("-W", "127.0.0.1:22"))
    assert b"administratively prohibited" in result.err
    (event,) = world.logged("port")
    assert (event["user"], event["success"]) == ("alice", False)
    result = await world.ssh("echo in", options=("-A", "-R", "0:127.0.0.1:22"))
    assert result.out == b"in\n"
    assert b"remote port forwarding failed" in result.err


@pytest_twisted.ensureDeferred
async def test_subsystem_is_refused(world: World) -> None:
    """A subsystem that is not there is refused, and logged."""
    result = await world.ssh("nothing", options=("-s",))
    assert result.code == 255
    assert "subsystem" in world.logged("session.start")[0]["error"]


@pytest_twisted.ensureDeferred
async def test_renewed_host_certificate(world: World) -> None:
    """After the host's certificate was renewed, new connections see the new one; the old connection goes on."""
    first = await world.ssh("true", options=("-v",))
    world.member.renew()
    second = await world.ssh("true", options=("-v",))
    keys = [[line for line in r.err.splitlines() if b"Server host certificate:" in line] for r in (first, second)]
    assert keys[0] != keys[1]
    assert keys[0]
    assert keys[1]


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_node_of_an_ordinary_user(world: World, other_user: str) -> None:
    """A node that does not run as root opens its own user's sessions, and says why it opens no other's."""
    program = (
        "import os, sys, json, pwd, socket\n"
        "name, login, root = sys.argv[1:]\n"
        "entry = pwd.getpwnam(name)\n"
        "sys.path.append(root)\n"
        "from teleconch.node.launch import accounts\n"
        "os.setgroups(os.getgrouplist(name, entry.pw_gid)); os.setgid(entry.pw_gid); os.setuid(entry.pw_uid)\n"
        "account = accounts.look_up(login)\n"
        "try: accounts.check(account); accounts.become(account); print('in', os.getuid() == account.uid)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )

    def run(login: str) -> Any:
        line = [sys.executable, "-I", "-S", "-c", program, other_user, login, os.getcwd()]
        return subprocess.run(line, capture_output=True, check=True).stdout.decode()

    assert run(other_user) == "in True\n"
    assert f"runs as the user {other_user} and not as root" in run("root")


@pytest_twisted.ensureDeferred
async def test_no_more_sessions(world: World) -> None:
    """Once ssh has said that its sessions are all open, who takes over its connection gets no other, but the end."""
    connection = await world.connect()

    async def session() -> Channel:
        channel = Channel()
        channel.name = b"session"
        return await connection.open(channel)

    await session()
    assert await connection.sendGlobalRequest(b"no-more-sessions@openssh.com", b"", 1) == b""  # type: ignore[misc]
    with pytest.raises(ConnectionLost):
        await session()
    await connection.disconnected
    assert "no more sessions" in world.logged("session.start", success=False)[0]["error"]
