"""sshd's scripts before a session. How they run beside sshd's stands in ``tests/interop/conformance_rc.py``."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest
import pytest_twisted

from teleconch.ca.ssh import PERMITS
from teleconch.node.launch import rc
from tests.worlds.node import World

pytestmark = [pytest.mark.program("ssh"), pytest.mark.root]


def _script(login: str, text: str) -> Path:
    entry = pwd.getpwnam(login)
    folder = Path(entry.pw_dir, ".ssh")
    folder.mkdir(exist_ok=True)
    file = folder / "rc"
    file.write_text(text)
    for each in (folder, file):
        os.chown(each, entry.pw_uid, entry.pw_gid)
    return file


@pytest_twisted.ensureDeferred
async def test_users_script_has_the_users_rights(world: World, other_user: str) -> None:
    """~/.ssh/rc runs as its user, with none of the node's descriptors, and only where the certificate allows it."""
    world.allow(other_user)
    _script(
        other_user, "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; exit 7\n"
    )
    ran = await world.ssh("grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '",
                          login=other_user)  # fmt: skip
    assert ran.code == 0
    before, after = ran.out[: len(ran.out) // 2], ran.out[len(ran.out) // 2 :]
    assert before == after
    assert before.endswith(b"0 1 2 3 ")
    assert str(pwd.getpwnam(other_user).pw_uid).encode() in before
    world.allow(other_user, extensions=tuple(name for name in PERMITS if name != "permit-user-rc"))
    assert b"Uid" not in (await world.ssh("echo in", login=other_user)).out


@pytest_twisted.ensureDeferred
async def test_a_script_that_is_a_trap(world: World, other_user: str) -> None:
    """A link to what only root may read shows nothing of it, and the session goes on."""
    world.allow("root", other_user)
    secret = world.path / "secret"
    secret.write_text("echo STOLEN\n")
    secret.chmod(0o600)
    file = _script(other_user, "")
    file.unlink()
    file.symlink_to(secret)
    result = await world.ssh("echo in", login=other_user)
    assert b"STOLEN" not in result.out + result.err.replace(str(secret).encode(), b"")
    assert b"in\n" in result.out


@pytest_twisted.ensureDeferred
async def test_shell_that_goes_away_meanwhile(world: World, other_user: str) -> None:
    """Who deletes his own shell in the script reads what happened, and gets 255."""
    shell = Path(pwd.getpwnam(other_user).pw_dir, "sh")
    shell.write_bytes(Path("/bin/sh").read_bytes())
    shell.chmod(0o755)
    os.chown(shell.parent, *pwd.getpwnam(other_user)[2:4])
    subprocess.run(["usermod", "-s", str(shell), other_user], check=True)
    world.allow(other_user)
    _script(other_user, f"rm -f {shell}\n")
    result = await world.ssh("echo in", login=other_user)
    assert (result.out, result.code) == (b"", 255)
    assert b"could not be run (No such file" in result.err


def test_which_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own comes first, the administrator's is for the others, and subsystems know the latter alone."""
    system = tmp_path / "sshrc"
    monkeypatch.setattr(rc, "SYSTEM_FILE", str(system))
    home = str(tmp_path)
    assert [rc.find(which, home) for which in (None, rc.SYSTEM, rc.USER)] == [None] * 3
    system.touch()
    assert [rc.find(which, home) for which in (None, rc.SYSTEM, rc.USER)] == [None, str(system), str(system)]
    own = tmp_path / ".ssh" / "rc"
    own.parent.mkdir()
    own.touch()
    assert [rc.find(which, home) for which in (None, rc.SYSTEM, rc.USER)] == [None, str(system), str(own)]
