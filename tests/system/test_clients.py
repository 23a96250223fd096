"""Clients other than OpenSSH's, and programs on top of ssh, through the proxy."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.cluster import Cluster, run
from tests.worlds.pair import ME, Alone

pytestmark = pytest.mark.program("ssh")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    made = Alone(tmp_path_factory.mktemp("clients"))
    yield made
    assert made.daemon.stop() == 0


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(3_000_000))
    return path


def _identity(cluster: Cluster) -> Path:
    return cluster.folder.parent / "id"


def _fingerprint(port: int) -> str:
    """The SHA-256 fingerprint of a server's plain key, as PuTTY wants to have it."""
    lines = run("ssh-keyscan", "-t", "ed25519", "-p", str(port), "127.0.0.1").stdout.splitlines()
    (key,) = [line.split()[2] for line in lines if not line.startswith("#")]  # since 10.0 the version line stands here
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")


@pytest.mark.program("plink", "pscp", "psftp", "puttygen")
def test_putty(node: Alone, tmp_path: Path, big: Path) -> None:
    """PuTTY's programs (0.78 and up know certificates) log in, copy in both protocols, go through the proxy."""
    cluster, identity = node.cluster, _identity(node.cluster)
    env = {**os.environ, "HOME": str(tmp_path)}
    run("puttygen", identity, "-O", "private", "-o", tmp_path / "id.ppk", env=env)
    who = ["-batch", "-i", str(tmp_path / "id.ppk"), "-cert", f"{identity}-cert.pub"]
    direct = [*who, "-hostkey", _fingerprint(cluster.node), "-P", str(cluster.node)]
    done = run("plink", *direct, f"{ME}@127.0.0.1", "cat; echo err >&2; exit 3", stdin="in", env=env, check=False)
    assert (done.stdout, done.returncode) == ("in", 3)
    assert "err" in done.stderr
    for number, protocol in enumerate(("-sftp", "-scp")):
        there, back = tmp_path / f"there{number}", tmp_path / f"back{number}"
        run("pscp", protocol, "-q", *direct, big, f"{ME}@127.0.0.1:{there}", env=env)
        run("pscp", protocol, "-q", *direct, f"{ME}@127.0.0.1:{there}", back, env=env)
        assert back.read_bytes() == big.read_bytes()
    batch = tmp_path / "batch"
    batch.write_text(f"cd {tmp_path}\nlcd {tmp_path}\nput big up\nmv up up2\nget up2 down\nchmod 600 up2\nls\n")
    run("psftp", *direct, "-b", batch, f"{ME}@127.0.0.1", env=env)
    assert (tmp_path / "down").read_bytes() == big.read_bytes()
    assert (tmp_path / "up2").stat().st_mode & 0o777 == 0o600
    jump = f"plink {' '.join(who)} -hostkey {_fingerprint(cluster.proxy)} -P {cluster.proxy}"
    jump += f" -nc %host:%port {ME}@127.0.0.1"
    through = [*who, "-hostkey", _fingerprint(cluster.node), "-proxycmd", jump]
    assert run("plink", *through, f"{ME}@node1", "id", "-un", env=env).stdout.strip() == ME


ASYNCSSH = """
import asyncio, asyncssh, sys
proxy, port, me, key, known, big, folder = sys.argv[1:]
who = {"username": me, "client_keys": [(key, key + "-cert.pub")], "known_hosts": known, "config": None,
       "agent_path": None}

async def main():
    async with asyncssh.connect("localhost", int(proxy), **who) as jump:
        async with asyncssh.connect("node1", 22, tunnel=jump, **who) as there:
            done = await there.run("cat; exit 3", input="in")
            assert (done.stdout, done.exit_status) == ("in", 3), done
            process = await there.create_process("sleep 100")
            process.terminate()
            assert (await process.wait()).exit_signal[0] == "TERM"
            process = await there.create_process("read x; stty size", term_type="xterm", term_size=(80, 24))
            process.change_terminal_size(90, 30)
            process.stdin.write("\\n")
            assert "30 90" in (await process.wait()).stdout
            async with there.start_sftp_client() as sftp:
                await sftp.put(big, folder + "/a-there")
                await sftp.get(folder + "/a-there", folder + "/a-back")
                await sftp.symlink("target", folder + "/a-link")
                assert await sftp.readlink(folder + "/a-link") == "target"
            await asyncssh.scp(big, (there, folder + "/s-there"))
            await asyncssh.scp((there, folder + "/s-there"), folder + "/s-back", preserve=True)
            listener = await there.forward_remote_port("127.0.0.1", 0, "127.0.0.1", int(port))
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
            assert (await reader.readline()).startswith(b"SSH-2.0-")
            writer.close()
            listener.close()
            await listener.wait_closed()

asyncio.run(main())
"""


def test_asyncssh(node: Alone, tmp_path: Path, big: Path) -> None:
    """AsyncSSH goes through the proxy and verifies both hosts: commands, signals, sizes, sftp, scp, forwarding."""
    cluster = node.cluster
    known = _identity(cluster).parent / "known_hosts"
    arguments = (cluster.proxy, cluster.node, ME, _identity(cluster), known, big, tmp_path)
    run(sys.executable, "-c", ASYNCSSH, *map(str, arguments), timeout=60)
    assert (tmp_path / "a-back").read_bytes() == (tmp_path / "s-back").read_bytes() == big.read_bytes()


@pytest.mark.program("rclone")
def test_rclone(node: Alone, tmp_path: Path, big: Path) -> None:
    """rclone (Go's SSH) copies a tree with a certificate and finds the sums equal, which it asks the shell for."""
    config, source = tmp_path / "rclone.conf", tmp_path / "source"
    source.mkdir()
    big.rename(source / "big")
    (source / "odd 'name").write_text("x")
    identity = _identity(node.cluster)
    config.write_text(
        f"[node]\ntype = sftp\nhost = 127.0.0.1\nport = {node.cluster.node}\nuser = {ME}\n"
        f"key_file = {identity}\npubkey_file = {identity}-cert.pub\n"
    )
    rclone = ["rclone", "--config", str(config), "--retries", "1"]
    run(*rclone, "sync", source, f"node:{tmp_path}/target")
    assert "0 differences" in run(*rclone, "check", source, f"node:{tmp_path}/target").stderr
    assert (tmp_path / "target" / "big").read_bytes() == (source / "big").read_bytes()


@pytest.mark.program("lftp")
def test_lftp(node: Alone, tmp_path: Path, big: Path) -> None:
    """lftp mirrors a tree up and down with several transfers at once."""
    source = tmp_path / "source"
    for number in range(20):
        (source / f"d{number % 3}").mkdir(parents=True, exist_ok=True)
        (source / f"d{number % 3}" / f"f {number}").write_bytes(big.read_bytes()[: number * 1000])
    commands = (
        f"set sftp:connect-program 'ssh -a -x -F {node.config}'; set net:max-retries 1; open -u {ME}, sftp://node1;"
        f" mirror -R --parallel=3 {source} {tmp_path}/there; mirror --parallel=3 {tmp_path}/there {tmp_path}/back"
    )
    run("lftp", "-c", commands)
    for path in source.rglob("f *"):
        assert (tmp_path / "back" / path.relative_to(source)).read_bytes() == path.read_bytes()


@pytest.mark.program("hg")
def test_mercurial(node: Alone, tmp_path: Path) -> None:
    """Mercurial clones from a node and pushes to it."""
    env = {**os.environ, "HGRCPATH": "/dev/null", "HGUSER": "a"}
    there, clone = tmp_path / "there", tmp_path / "clone"
    run("hg", "init", there, env=env)
    run("hg", "clone", "-q", "--ssh", node.ssh, f"ssh://node1/{there}", clone, env=env)
    (clone / "file").write_text("x")
    run("hg", "-R", clone, "commit", "-qAm", "one", env=env, cwd=clone)
    run("hg", "-R", clone, "push", "-q", "--ssh", node.ssh, env=env)
    assert run("hg", "-R", there, "log", "-T", "{desc}", env=env).stdout == "one"


@pytest.mark.program("svn", "svnadmin")
def test_subversion(node: Alone, tmp_path: Path) -> None:
    """svn+ssh checks out and commits."""
    env = {**os.environ, "SVN_SSH": node.ssh}
    there, clone = tmp_path / "there", tmp_path / "clone"
    run("svnadmin", "create", there)
    config = f"--config-dir={tmp_path}/svn"
    run("svn", "checkout", "-q", config, f"svn+ssh://node1{there}", clone, env=env)
    (clone / "file").write_text("x")
    run("svn", "add", "-q", config, clone / "file", env=env)
    run("svn", "commit", "-q", config, "-m", "one", clone, env=env)
    assert run("svn", "info", config, "--show-item", "revision", "-r", "HEAD", clone, env=env).stdout.strip() == "1"


@pytest.mark.program("restic")
def test_restic(node: Alone, tmp_path: Path, big: Path) -> None:
    """restic keeps a repository over a bare sftp subsystem (``ssh -s``)."""
    env = {**os.environ, "RESTIC_PASSWORD": "x", "HOME": str(tmp_path)}
    restic = ["restic", "-q", "--no-cache", "-o", f"sftp.command={node.ssh} node1 -s sftp"]
    restic += ["-r", f"sftp:node1:{tmp_path}/repo"]
    for command in (["init"], ["backup", big], ["check"], ["restore", "latest", "--target", tmp_path / "back"]):
        run(*restic, *command, env=env)
    assert (tmp_path / "back" / big.relative_to("/")).read_bytes() == big.read_bytes()


@pytest.mark.program("borg")
def test_borg(node: Alone, tmp_path: Path, big: Path) -> None:
    """borg talks to ``borg serve`` on the node."""
    env = {**os.environ, "BORG_RSH": node.ssh, "BORG_BASE_DIR": str(tmp_path / "b"), "HOME": str(tmp_path),
           "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}  # fmt: skip
    repository = f"ssh://node1{tmp_path}/repo"
    run("borg", "init", "-e", "none", repository, env=env)
    run("borg", "create", f"{repository}::one", big, env=env)
    run("borg", "extract", f"{repository}::one", env=env, cwd=tmp_path / "b")
    assert (tmp_path / "b" / big.relative_to("/")).read_bytes() == big.read_bytes()


TRAMP = """
(require 'tramp)
(setq tramp-verbose 1 tramp-use-ssh-controlmaster-options nil tramp-persistency-file-name nil vc-handled-backends nil)
(let ((scp (cdr (assoc "scp" tramp-methods))) (more '(("-F" "CONFIG"))))
  (dolist (name '(tramp-login-args tramp-copy-args))
    (setcdr (assq name scp) (list (append more (cadr (assq name scp)))))))
(let* ((folder "/scp:ME@node1:FOLDER/") (file (concat folder "note")) (default-directory folder))
  (with-temp-file file (insert "one\\ntwo\\n"))
  (princ (with-temp-buffer (insert-file-contents file) (buffer-string)))
  (copy-file "FOLDER/big" (concat folder "copied"))
  (princ (shell-command-to-string "id -un; pwd"))
  (princ (process-file "sh" nil nil nil "-c" "exit 3"))
  (rename-file file (concat file "2"))
  (princ (format "\\n%s" (file-expand-wildcards "note*"))))
"""


@pytest.mark.program("emacs")
def test_emacs_tramp(node: Alone, tmp_path: Path, big: Path) -> None:
    """TRAMP, which minds every prompt and echo of the remote shell, edits, copies and runs."""
    script = tmp_path / "tramp.el"
    script.write_text(TRAMP.replace("CONFIG", str(node.config)).replace("FOLDER", str(tmp_path)).replace("ME", ME))
    env = {**os.environ, "HOME": str(tmp_path)}
    done = run("emacs", "-Q", "--batch", "-l", script, env=env, timeout=60)
    assert done.stdout == f"one\ntwo\n{ME}\n{tmp_path}\n3\n(note2)"
    assert (tmp_path / "copied").read_bytes() == big.read_bytes()


@pytest.mark.program("mosh-server")
def test_mosh_server_starts(node: Alone) -> None:
    """mosh's server is started on a terminal, says its port and key, and outlives the session."""
    command = "mosh-server new -s -l LANG=C.UTF-8 -- sleep 1000"
    done = run(*node.ssh.split(), "-tt", "node1", command)
    assert re.search(r"MOSH CONNECT \d+ \S{22}", done.stdout)
    pid = re.search(r"pid = (\d+)", done.stdout + done.stderr)
    assert pid is not None
    os.kill(int(pid[1]), 15)


@pytest.mark.program("socat")
def test_docker_context(node: Alone) -> None:
    """``docker -H ssh://``: a program on the node that joins its streams to a Unix socket, with half-closes."""
    folder = tempfile.mkdtemp(prefix="tc")  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/docker.sock")
        server.listen()
        server.settimeout(20)
        dial = [*node.ssh.split(), "-o", "ConnectTimeout=30", "-T", "--", "node1", "socat", "-"]
        client = subprocess.Popen(
            [*dial, f"UNIX-CONNECT:{folder}/docker.sock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            accepted, _ = server.accept()
            with accepted:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(b"request")
                client.stdin.close()
                assert accepted.makefile("rb").read() == b"request"
                accepted.sendall(b"answer")
            assert client.stdout.read() == b"answer"
            assert client.wait(20) == 0
        finally:
            client.kill()
            client.wait()
            shutil.rmtree(folder)
