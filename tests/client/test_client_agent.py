"""The ssh-agent after `tsh login` and `tsh logout`."""

import os
import select
import socket
import subprocess

import pytest
from test_client_identity import make_identity

from teleconch.client.agent import add_key, agent_path, remove_key
from teleconch.errors import ConnectionProblem


@pytest.fixture
def agent(tmp_path):
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


def test_agent_gets_the_certificate_and_loses_it_again(agent):
    """`ssh-add -L` shows the certificate after the login, and nothing after the logout."""
    identity = make_identity()
    assert add_key(agent, identity.ssh_private_key, identity.ssh_cert, "teleport:joe", 60)
    shown = listed(agent)
    assert identity.ssh_cert.split()[1] in shown
    assert "teleport:joe" in shown
    assert remove_key(agent, identity.ssh_cert)
    assert identity.ssh_cert.split()[1] not in listed(agent)
    assert not remove_key(agent, identity.ssh_cert)


def test_no_agent(tmp_path, monkeypatch):
    """A stale SSH_AUTH_SOCK is a sentence, not a traceback."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    assert agent_path() is None
    identity = make_identity()
    with pytest.raises(ConnectionProblem, match="ssh-agent"):
        remove_key(str(tmp_path / "none"), identity.ssh_cert)
