"""The tools that people run over ssh, through the proxy, as they are: nobody's workflow breaks."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.cluster import free_ports, run
from tests.worlds.pair import ME, Alone

pytestmark = pytest.mark.program("ssh", "scp", "sftp")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    made = Alone(tmp_path_factory.mktemp("tools"))
    yield made
    assert made.daemon.stop() == 0


def _tree(root: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        path = root / f"d{number % 17}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(3000)))


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.program("rsync")
def test_rsync(node: Alone, tmp_path: Path) -> None:
    """rsync copies a thousand files, deletes what is gone, and goes on with a file that was cut off."""
    source, target = tmp_path / "source", tmp_path / "target"
    _tree(source, 1000, seed=1)
    rsync = ["rsync", "-a", "--delete", "-e", node.ssh]
    run(*rsync, f"{source}/", f"node1:{target}/")
    assert _contents(target) == _contents(source)
    for path in list(source.rglob("file*"))[:100]:
        path.unlink()
    big = source / "big"
    big.write_bytes(os.urandom(8 << 20))
    (target / "big").write_bytes(big.read_bytes()[: 3 << 20])
    run(*rsync, "--append-verify", f"{source}/", f"node1:{target}/")
    assert _contents(target) == _contents(source)
    back = tmp_path / "back"
    run(*rsync, f"node1:{target}/", f"{back}/")
    assert _contents(back) == _contents(source)


@pytest.mark.program("git")
def test_git(node: Alone, tmp_path: Path) -> None:
    """git clones from a node and pushes to it."""
    env = {
        **os.environ, "GIT_SSH_COMMAND": node.ssh, "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    bare, clone, again = tmp_path / "bare.git", tmp_path / "clone", tmp_path / "again"
    run("git", "init", "-q", "--bare", "-b", "main", bare, env=env)
    run("git", "clone", "-q", f"node1:{bare}", clone, env=env)
    _tree(clone, 50, seed=2)
    for command in (["checkout", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
        run("git", "-C", clone, *command, env=env)
    run("git", "-C", clone, "push", "-q", "origin", "main", env=env)
    run("git", "clone", "-q", f"ssh://node1{bare}", again, env=env)
    assert (again / "d0" / "file 0").read_bytes() == (clone / "d0" / "file 0").read_bytes()


def test_scp_and_sftp(node: Alone, tmp_path: Path) -> None:
    """scp in both protocols and an sftp batch, there and back."""
    data = tmp_path / "data"
    data.write_bytes(os.urandom(1 << 20))
    for number, options in enumerate(([], ["-O"])):
        there, back = tmp_path / f"there {number}", tmp_path / f"back {number}"
        remote = f"node1:{there}"
        if options:
            remote = remote.replace(" ", "\\ ")  # the old protocol goes through a shell
        run("scp", "-q", *options, "-F", node.config, data, remote)
        run("scp", "-q", *options, "-F", node.config, remote, back)
        assert back.read_bytes() == data.read_bytes()
    batch = f"put {data} {tmp_path}/up\nget {tmp_path}/up {tmp_path}/down\nrename {tmp_path}/up {tmp_path}/up2\nls -l\n"
    run("sftp", "-F", node.config, "-b", "-", "node1", stdin=batch)
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up2").read_bytes() == data.read_bytes()


def test_control_master_with_ten_sessions(node: Alone, tmp_path: Path) -> None:
    """One connection carries ten sessions at once, as ControlMaster and Ansible use it."""
    master = [*node.ssh.split(), "-o", f"ControlPath={tmp_path}/cm", "-o", "ControlPersist=60"]
    run(*master, "-o", "ControlMaster=yes", "-fN", "node1", stdin=None, timeout=30)
    try:
        sessions = [
            subprocess.Popen([*master, "node1", f"cat; exit {number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for number in range(10)
        ]
        for number, session in enumerate(sessions):
            out, _ = session.communicate(bytes([number]) * 300_000, timeout=60)
            assert out == bytes([number]) * 300_000
            assert session.returncode == number
    finally:
        run(*master, "-O", "exit", "node1", check=False)


def test_what_an_editor_does_first(node: Alone) -> None:
    """VS Code's remote extension: a bash script on standard input of a forwarding connection, then work through -D."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        (port,) = free_ports(1)
        editor = subprocess.Popen(
            [*node.ssh.split(), "-T", "-D", str(port), "node1", "bash"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert editor.stdin is not None
            assert editor.stdout is not None
            editor.stdin.write("echo ready:$$:end; uname -s\n")
            editor.stdin.flush()
            assert editor.stdout.readline().startswith("ready:")
            assert editor.stdout.readline() == "Linux\n"
            with _socks(port, server.getsockname()[1]) as through:
                accepted, _ = server.accept()
                with accepted:
                    through.sendall(b"over the node")
                    assert accepted.recv(100) == b"over the node"
            editor.stdin.close()
            assert editor.wait(20) == 0
        finally:
            editor.kill()
            editor.wait()
            editor.stdout.close()


def _socks(port: int, target: int) -> socket.socket:
    """A SOCKS5 connection (RFC 1928) to 127.0.0.1:``target``."""
    deadline = time.monotonic() + 20
    while True:
        try:
            made = socket.create_connection(("127.0.0.1", port), 5)
            break
        except OSError:
            assert time.monotonic() < deadline
    made.sendall(b"\5\1\0")
    assert made.recv(2) == b"\5\0"
    made.sendall(b"\5\1\0\1" + socket.inet_aton("127.0.0.1") + target.to_bytes(2, "big"))
    assert made.recv(10)[1] == 0
    return made


PLAYBOOK = """\
- hosts: all
  gather_facts: no
  tasks:
    - raw: "true"
    - copy: {{src: "{data}", dest: "{folder}/copied-{{{{ inventory_hostname }}}}", mode: "0640"}}
    - template: {{src: "{template}", dest: "{folder}/made-{{{{ inventory_hostname }}}}"}}
    - command: id -un
      become: {become}
      register: who
    - copy: {{content: "{{{{ who.stdout }}}}", dest: "{folder}/who-{{{{ inventory_hostname }}}}"}}
"""


@pytest.mark.parametrize("pipelining", [True, False])
def test_ansible(node: Alone, tmp_path: Path, pipelining: bool) -> None:
    """A playbook for ten hosts at once copies, fills templates and becomes root, with and without pipelining."""
    short = Path(tempfile.mkdtemp(prefix="tc"))  # a socket's path has at most 107 bytes
    data, template = tmp_path / "data", tmp_path / "template.j2"
    data.write_bytes(os.urandom(100_000))
    template.write_text("made for {{ inventory_hostname }}\n")
    become = "yes" if ME == "root" else "no"
    (tmp_path / "play.yml").write_text(PLAYBOOK.format(data=data, folder=tmp_path, template=template, become=become))
    hosts = [f"host{number}" for number in range(10)]
    (tmp_path / "hosts").write_text("".join(f"{host} ansible_host=node1\n" for host in hosts))
    (tmp_path / "ansible.cfg").write_text(
        f"[defaults]\nhost_key_checking=True\nforks=10\nlocal_tmp={tmp_path}/local\nremote_tmp={tmp_path}/remote\n"
        f"interpreter_python={sys.executable}\n[ssh_connection]\npipelining={pipelining}\n"
        f"ssh_args=-F {node.config} -o ControlMaster=auto -o ControlPersist=10 -o ControlPath={short}/%C\n"
    )
    play = [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts", tmp_path / "play.yml"]
    env = {**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "ANSIBLE_HOME": str(tmp_path / "home"),
           "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}  # fmt: skip
    run(*play, env=env, timeout=200)
    for host in hosts:
        assert (tmp_path / f"copied-{host}").read_bytes() == data.read_bytes()
        assert (tmp_path / f"made-{host}").read_text() == f"made for {host}\n"
        assert (tmp_path / f"who-{host}").read_text() == ME
    for path in short.iterdir():
        run("ssh", "-o", f"ControlPath={path}", "-O", "exit", "node1", check=False)
    shutil.rmtree(short, ignore_errors=True)  # the masters remove their sockets as they end
