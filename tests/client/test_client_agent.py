"""The ssh-agent after `tsh login` and `tsh logout`."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from teleconch.client.agent import add_key, agent_path, remove_key
from teleconch.errors import ConnectionProblem
from tests.worlds.client import PASSWORD, World
from tests.worlds.identities import make_identity


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    for _ in range(500):
        with socket.socket(socket.AF_UNIX) as tried:
            if tried.connect_ex(path) == 0:
                break
        select.select([], [], [], 0.01)
    yield path
    process.terminate()
    process.wait()


def listed(path: str) -> str:
    return subprocess.run(
        ["ssh-add", "-L"],
        env={"SSH_AUTH_SOCK": path, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def test_agent_gets_the_certificate_and_loses_it_again(agent: str) -> None:
    """`ssh-add -L` shows the certificate after the login, and nothing after the logout."""
    identity = make_identity()
    assert add_key(agent, identity.ssh_private_key, identity.ssh_cert, "teleport:joe", 60)
    shown = listed(agent)
    assert identity.ssh_cert.split()[1] in shown
    assert "teleport:joe" in shown
    assert remove_key(agent, identity.ssh_cert)
    assert identity.ssh_cert.split()[1] not in listed(agent)
    assert not remove_key(agent, identity.ssh_cert)


def test_no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale SSH_AUTH_SOCK is a sentence, not a traceback."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    assert agent_path() is None
    identity = make_identity()
    with pytest.raises(ConnectionProblem, match="ssh-agent"):
        remove_key(str(tmp_path / "none"), identity.ssh_cert)


def test_lifetime_in_the_agent(world: World, tmp_path: Path) -> None:
    """The agent is told the seconds until the certificate expires; --no-agent tells it nothing; logout removes it."""
    path, heard = str(tmp_path / "agent"), []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                size = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
                heard.append(peer.recv(size, socket.MSG_WAITALL))
                peer.sendall(b"\0\0\0\1\6")

    env = {**world.env, "SSH_AUTH_SOCK": path, "TELEPORT_HOME": str(tmp_path / "tsh")}
    login = ("login", f"--proxy=localhost:{world.web}", "--user=joe", f"--ca-pin={world.pin}", "--ttl=30m")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        assert world.tsh(*login, "--no-agent", stdin=f"{PASSWORD}\n".encode(), env=env).returncode == 0
        assert not any(message[0] in (17, 25) for message in heard)
        heard.clear()
        assert world.tsh(*login, "--force", stdin=f"{PASSWORD}\n".encode(), env=env).returncode == 0
        (added,) = (message for message in heard if message[0] in (17, 25))
        assert (added[0], added[-5]) == (25, 1)
        assert 1700 < int.from_bytes(added[-4:], "big") <= 1800
        heard.clear()
        assert world.tsh("logout", env=env).returncode == 0
        assert [message[0] for message in heard] == [18]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
