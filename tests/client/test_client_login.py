"""`tsh login`, `logout`, `status`, `ls`, `config`: against a real cluster, with real OpenSSH."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.worlds.client import BIN, PASSWORD, World


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


def test_status_after_login(world: World) -> None:
    """After a login tsh says where, as whom, with which logins and until when."""
    done = world.tsh("status")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert text.startswith(f"> Profile URL:  https://localhost:{world.web}\n  Logged in as: joe\n")
    assert f"Logins:       {world.login}, nobody" in text
    assert "[valid for 11h" in text or "[valid for 12h" in text
    (state,) = json.loads(world.tsh("status", "--format=json").stdout)
    assert (state["user"], state["cluster"], state["active"]) == ("joe", "example.test", True)


def test_login_that_holds_asks_nothing(world: World) -> None:
    """A second `tsh login` only says that the first still holds; --force logs in anew."""
    done = world.tsh("login")
    assert done.returncode == 0
    assert b"logged in already" in done.stderr
    assert world.tsh("login", "--force").returncode == 1
    assert world.tsh("login", "--force", stdin=f"{PASSWORD}\n".encode()).returncode == 0


def test_wrong_password(world: World) -> None:
    """A wrong password is answered with the server's sentence; the login that was there stays."""
    done = world.tsh("login", "--force", stdin=b"wrong\n")
    assert done.returncode == 1
    assert b"ERROR: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert world.tsh("status").returncode == 0


def test_trust_on_first_contact(world: World, tmp_path: Path) -> None:
    """Nobody's password goes to a proxy that is not known: a pin that is wrong or missing ends it before."""
    env = {**world.env, "TELEPORT_HOME": str(tmp_path)}
    proxy = f"--proxy=localhost:{world.web}"
    done = world.tsh("login", proxy, env=env, stdin=PASSWORD.encode())
    assert (done.returncode, b"--ca-pin=PIN" in done.stderr) == (1, True)
    done = world.tsh("login", proxy, f"--ca-pin=sha256:{'0' * 64}", env=env, stdin=PASSWORD.encode())
    assert (done.returncode, b"is not signed by the authority with the pin" in done.stderr) == (1, True)
    done = world.tsh("login", proxy, "--ca-pin=sha256:12", env=env)
    assert (done.returncode, b"64 hex digits" in done.stderr) == (1, True)
    assert not list(tmp_path.iterdir())
    done = world.tsh("login", proxy, "--insecure", "--user=joe", env=env, stdin=f"{PASSWORD}\n".encode())
    assert done.returncode == 0
    assert done.stderr.startswith(b"WARNING: With --insecure")


def test_wrong_pin_for_a_known_proxy(world: World) -> None:
    """A pin that was typed counts also where an earlier login is remembered: no password goes out before it fits."""
    proxy = f"--proxy=localhost:{world.web}"
    done = world.tsh("login", proxy, f"--ca-pin=sha256:{'0' * 64}", stdin=f"{PASSWORD}\n".encode())
    assert (done.returncode, b"is not signed by the authority with the pin" in done.stderr) == (1, True)
    assert world.tsh("status").returncode == 0


def test_host_name_is_checked(world: World, tmp_path: Path) -> None:
    """With the right pin, the certificate must still be for the name that was typed."""
    env = {**world.env, "TELEPORT_HOME": str(tmp_path)}
    done = world.tsh("login", f"--proxy=127.0.0.2:{world.web}", f"--ca-pin={world.pin}", env=env)
    assert done.returncode == 1
    assert (
        b"The certificate of the proxy is not for 127.0.0.2" in done.stderr or b"accepts no connection" in done.stderr
    )


def test_ttl(world: World, tmp_path: Path) -> None:
    """--ttl shortens a login; a number alone is minutes, as in Teleport."""
    env = {**world.env, "TELEPORT_HOME": str(tmp_path)}
    flags = ("--ttl=5", f"--proxy=localhost:{world.web}", "--user=joe", f"--ca-pin={world.pin}")
    done = world.tsh("login", *flags, env=env, stdin=f"{PASSWORD}\n".encode())
    assert done.returncode == 0
    assert b"[valid for 4m5" in done.stdout or b"[valid for 5m0s]" in done.stdout


def test_agent_holds_the_login(world: World, tmp_path: Path, agent: str) -> None:
    """With a running ssh-agent, plain ssh has the certificate after the login, and not after the logout."""
    env = {**world.env, "TELEPORT_HOME": str(tmp_path / "tsh"), "SSH_AUTH_SOCK": agent}
    flags = (f"--proxy=localhost:{world.web}", "--user=joe", f"--ca-pin={world.pin}")
    assert world.tsh("login", *flags, env=env, stdin=f"{PASSWORD}\n".encode()).returncode == 0
    listed = subprocess.run(["ssh-add", "-L"], env=env, capture_output=True, text=True, check=False).stdout
    assert "ssh-ed25519-cert-v01@openssh.com" in listed
    assert "teleport:joe@example.test" in listed
    done = world.tsh("logout", env=env)
    assert done.stdout == f"Logged out joe from localhost:{world.web}.\n".encode()
    listed = subprocess.run(["ssh-add", "-L"], env=env, capture_output=True, text=True, check=False).stdout
    assert "cert" not in listed
    done = world.tsh("ssh", "alpha", env=env)
    assert f"tsh login --proxy=localhost:{world.web} --user=joe".encode() in done.stderr
    assert world.tsh("status", env=env).returncode == 1


def test_identity_files(world: World, tmp_path: Path) -> None:
    """`tsh login --out` and `tctl auth sign` write what `tsh -i` logs in with; nothing else is needed."""
    env = {**world.env, "TELEPORT_HOME": str(tmp_path / "tsh")}
    proxy = f"--proxy=localhost:{world.web}"  # which says where its SSH is
    flags = (proxy, "--user=joe", f"--ca-pin={world.pin}", f"--out={tmp_path / 'joe.pem'}")
    assert world.tsh("login", *flags, env=env, stdin=f"{PASSWORD}\n".encode()).returncode == 0
    assert not (tmp_path / "tsh").exists()
    assert (tmp_path / "joe.pem").stat().st_mode & 0o777 == 0o600
    done = world.tsh("login", *flags, env=env, stdin=f"{PASSWORD}\n".encode())
    assert (done.returncode, b"exists already" in done.stderr) == (1, True)
    world.tctl("auth", "sign", "--user=joe", "--format=file", f"--out={tmp_path / 'bot.pem'}")
    for name in ("joe.pem", "bot.pem"):
        done = world.tsh("-i", str(tmp_path / name), proxy, "ssh", f"{world.login}@alpha", "echo in", env=env)
        assert done.stdout == b"in\n", done.stderr
        assert b"alpha" in world.tsh("-i", str(tmp_path / name), proxy, "ls", env=env).stdout


def test_openssh_identity(world: World, tmp_path: Path) -> None:
    """`tsh -i KEY` takes a key of `--format=openssh` with its certificate beside it, where the proxy is known."""
    key = tmp_path / "ok"
    world.tctl("auth", "sign", "--user=joe", "--format=openssh", f"--out={key}")
    proxy = f"--proxy=localhost:{world.web}"
    done = world.tsh("-i", str(key), proxy, "ssh", f"{world.login}@alpha", "echo here")
    assert (done.returncode, done.stdout) == (0, b"here\n"), done.stderr
    (tmp_path / "file").write_text("x")
    done = world.tsh("-i", str(key), proxy, "scp", str(tmp_path / "file"), f"{world.login}@alpha:{tmp_path}/copy")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy").read_text() == "x"
    done = world.tsh("-i", str(key), proxy, "ls")
    assert done.returncode == 1
    assert b"--format=file" in done.stderr
    done = world.tsh("-i", str(key), "--proxy=other.example:1", "ssh", f"{world.login}@alpha", "true")
    assert b"does not say whose hosts to trust" in done.stderr
    other = tmp_path / "other"
    world.tctl("auth", "sign", "--user=joe", "--format=openssh", f"--out={other}")
    key.with_name("ok-cert.pub").write_bytes(other.with_name("other-cert.pub").read_bytes())
    done = world.tsh("-i", str(key), proxy, "ssh", f"{world.login}@alpha", "true")
    assert b"is not the certificate of the key" in done.stderr


def test_ls(world: World) -> None:
    """Nodes are listed with address, labels and state, by label, and for programs."""
    lines = world.tsh("ls").stdout.decode().splitlines()
    assert lines[0].split() == ["Node", "Name", "Address", "Labels", "Status"]
    assert lines[2].split() == ["alpha", f"127.0.0.1:{world.node}", "env=test,pair=both", "online"]
    assert world.tsh("ls", "env=prod").stdout == b""
    for labels in (["env=test"], ["env=test,pair=both"], ["env=test", "pair=both"], ['env="test",pair="both"']):
        assert len(world.tsh("ls", *labels).stdout.splitlines()) == 3, labels
    assert world.tsh("ls", "env=test,pair=none").stdout == b""
    (node,) = json.loads(world.tsh("ls", "--format=json").stdout)
    assert node["spec"]["hostname"] == "alpha"


@frozen
class Programs:
    """Runs programs with the configuration file ``config``."""

    run: Callable[..., subprocess.CompletedProcess[bytes]]
    config: Path

    def __call__(self, *arguments: Path | str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.run(*arguments, stdin=stdin)


@pytest.fixture
def openssh(world: World, tmp_path: Path) -> Programs:
    """A home with nothing but `tsh config` (twice) in its ssh config; runs programs there."""
    config = tmp_path / "config"
    for _ in range(2):
        config.write_bytes((config.read_bytes() if config.exists() else b"") + world.tsh("config").stdout)

    def run(*arguments: Path | str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        program, *rest = arguments
        return subprocess.run(
            [program, "-F", config, *rest], input=stdin, capture_output=True, env=world.env, timeout=60, check=False
        )

    return Programs(run, config)


def test_plain_ssh_scp_and_sftp(world: World, openssh: Programs, tmp_path: Path) -> None:
    """After `tsh config >> ~/.ssh/config`, ssh, scp and sftp reach the node, host keys checked, without a question."""
    node = f"{world.login}@alpha.example.test"
    done = openssh("ssh", "-o", "BatchMode=yes", node, "echo out; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"")
    (tmp_path / "from").write_bytes(os.urandom(100_000))
    done = openssh("scp", "-q", tmp_path / "from", f"{node}:{tmp_path}/to")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to").read_bytes() == (tmp_path / "from").read_bytes()
    done = openssh("sftp", "-q", "-b", "-", node, stdin=f"get {tmp_path}/from {tmp_path}/back\n".encode())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == (tmp_path / "from").read_bytes()


def test_plain_ssh_with_options_for_every_host(world: World, openssh: Programs, tmp_path: Path) -> None:
    """Forwards, commands and algorithms that `Host *` names do not break the connection to the proxy."""
    taken = socket.create_server(("127.0.0.1", 0))
    hostile = (
        f"Host *\n    LocalForward {taken.getsockname()[1]} 127.0.0.1:1\n    ForwardAgent yes\n"
        "    HostKeyAlgorithms ssh-ed25519,rsa-sha2-512\n    PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512\n"
        "    PreferredAuthentications password\n    LogLevel ERROR\n"
    )
    openssh.config.write_text(openssh.config.read_text() + hostile)
    # What ProxyCommand runs reads ~/.ssh/config, and that is the OS user's, whatever HOME says.
    text = openssh.config.read_text().replace("ProxyCommand ssh ", f"ProxyCommand ssh -F '{openssh.config}' ")
    openssh.config.write_text(text)
    with taken:
        node = f"{world.login}@alpha.example.test"
        done = openssh("ssh", "-o", "BatchMode=yes", node, "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, b"out\n"), done.stderr
    done = openssh("ssh", "-o", "BatchMode=yes", "-o", "RemoteCommand=echo own", node)
    assert (done.returncode, done.stdout) == (0, b"own\n"), done.stderr


@pytest.mark.program("git")
def test_git(world: World, openssh: Programs, tmp_path: Path) -> None:
    """git clones over the same configuration."""
    env = {
        **world.env, "GIT_SSH_COMMAND": f"ssh -F '{openssh.config}'", "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True, env=env)
    subprocess.run(["git", "-C", tmp_path / "repo", "commit", "-q", "--allow-empty", "-m", "x"], check=True, env=env)
    url = f"{world.login}@alpha.example.test:{tmp_path}/repo"
    done = subprocess.run(["git", "clone", "-q", url, tmp_path / "copy"], env=env, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_prompts_at_a_terminal(world: World, tmp_path: Path) -> None:
    """At a terminal the password is asked for and not shown."""
    import pty

    env = {**world.env, "TELEPORT_HOME": str(tmp_path)}
    ours, theirs = pty.openpty()
    command = [str(BIN / "tsh"), "login", f"--proxy=localhost:{world.web}", "--user=joe", f"--ca-pin={world.pin}"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    seen = b""
    try:
        while b"Enter password for Teleport user joe:" not in seen:
            assert select.select([ours], [], [], 20)[0], seen
            seen += os.read(ours, 4096)
        os.write(ours, PASSWORD.encode() + b"\n")
        while b"Valid until" not in seen:
            assert select.select([ours], [], [], 20)[0], seen
            seen += os.read(ours, 4096)
        assert process.wait(20) == 0
        assert PASSWORD.encode() not in seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
