"""A new user: one command, a sign-up, and `tsh` and plain `ssh` reach the node."""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster import BIN, PASSWORD, Cluster, Daemon, Home, run

ME = getpass.getuser()
pytestmark = pytest.mark.program("ssh")


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[tuple[Cluster, Daemon, Home]]:
    """``make start`` in a folder whose configuration has free ports."""
    cluster = Cluster(tmp_path / "var", nodename="box")
    cluster.write(cluster.config, "box", "auth", "ssh", "proxy")
    home = Home(tmp_path / "home")
    daemon = Daemon([sys.executable, "-m", "teleconch.cli.quickstart", cluster.folder], tmp_path / "out", env=home.env)
    yield cluster, daemon, home
    daemon.kill()


def test_from_nothing_to_a_session(quickstart: tuple[Cluster, Daemon, Home], tmp_path: Path) -> None:
    """Everything that `make start` prints works when it is typed, and a second start goes on with the same cluster."""
    _cluster, daemon, home = quickstart
    link = daemon.wait_for(r"tsh signup (--ca-pin=\S+) (\S+)")
    pin, url = link[1], link[2]
    daemon.wait_for("Administer:")
    secret = home.sign_up(url, pin)
    login = re.search(r"tsh (login \S+ \S+ \S+)", daemon.output())[1].split()[1:]
    said = home.log_in(*login, secret=secret).stdout
    assert "Valid until" in said
    listed = home.run("tsh", "ls").stdout
    assert "box" in listed
    assert "env=test" in listed
    assert home.run("tsh", "ls", "env=other", check=False).stdout.count("box") == 0
    hostname = run("hostname").stdout
    assert home.run("tsh", "ssh", f"{ME}@box", "hostname").stdout == hostname
    assert home.run("tsh", "ssh", f"{ME}@env=test", "exit 7", check=False).returncode == 7
    (home.path / ".ssh").mkdir(mode=0o700)
    (home.path / ".ssh/config").write_text(home.run("tsh", "config").stdout)
    # HOME is not where OpenSSH looks for its file: it asks the passwd entry
    ssh = ["ssh", "-F", home.path / ".ssh/config", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    assert home.run(*ssh, "box.main", "hostname").stdout == hostname
    data = os.urandom(3 << 20)
    assert home.run(*ssh, "box.main", "cat", stdin=data, text=False).stdout == data
    assert daemon.stop(signal.SIGINT) == 0
    again = Daemon(daemon.arguments, tmp_path / "out2", env=home.env)
    try:
        again.wait_for("Administer:")
        assert "signup" not in again.output()
        assert home.run("tsh", "ssh", f"{ME}@box", "hostname").stdout == hostname
    finally:
        assert again.stop(signal.SIGINT) == 0
    assert "Traceback" not in again.output() + daemon.output()


def test_wrong_answers_are_told_in_one_sentence(quickstart: tuple[Cluster, Daemon, Home]) -> None:
    """Wrong password, unknown user and wrong code sound the same; five of them lock out, a right one too."""
    cluster, daemon, home = quickstart
    link = daemon.wait_for(r"tsh signup (--ca-pin=\S+) (\S+)")
    daemon.wait_for("Administer:")
    secret = home.sign_up(link[2], link[1])
    proxy = [f"--proxy=localhost:{cluster.web}", link[1]]
    said = set()
    for user, password in ((ME, "wrong-password"), ("nobody-here", PASSWORD), (ME, "wrong again 12")):
        done = home.log_in(*proxy, f"--user={user}", secret=secret, password=password, check=False)
        assert done.returncode == 1
        said.add(done.stderr.splitlines()[-1])
    assert len(said) == 1, said
    for _ in range(3):
        home.log_in(*proxy, f"--user={ME}", secret=secret, password="no", check=False)
    locked = home.log_in(*proxy, f"--user={ME}", secret=secret, check=False)
    assert locked.returncode == 1
    assert locked.stderr.splitlines()[-1] in said


@pytest.mark.root
@pytest.mark.program("useradd", "groupadd")
def test_as_root_another_login(tmp_path: Path) -> None:
    """As root, a session is the login's: uid, all groups, home, and no way back to root."""
    subprocess.run(["groupadd", "-f", "tc-team"], check=True)
    subprocess.run(["userdel", "-r", "tc-alice"], capture_output=True, check=False)
    subprocess.run(["useradd", "-m", "-s", "/bin/sh", "-G", "tc-team", "tc-alice"], check=True)
    cluster = Cluster(tmp_path / "c", second_factor="off")
    daemon = cluster.start().ready()
    try:
        cluster.tctl("users", "add", "alice", "tc-alice")
        config = cluster.ssh_config(tmp_path, cluster.sign("alice", tmp_path / "id"))
        jump = ["ssh", "-F", config, "-J", f"tc-alice@localhost:{cluster.proxy}", "-p", str(cluster.node)]
        shown = run(*jump, "tc-alice@node1", "id; pwd; echo $HOME; grep -E '^Cap(Eff|Prm)' /proc/self/status").stdout
        assert run("id", "tc-alice").stdout.split()[0] in shown
        assert "(tc-team)" in shown
        assert "(root)" not in shown
        assert shown.count("/home/tc-alice") == 2
        assert shown.count("0000000000000000") == 2
        denied = run(*jump, "root@node1", "id", check=False)
        assert denied.returncode == 255
        assert "uid" not in denied.stdout
        daemon.wait_for("does not allow the login 'root'")
    finally:
        assert daemon.stop() == 0
        subprocess.run(["userdel", "-r", "tc-alice"], capture_output=True, check=False)
        subprocess.run(["groupdel", "tc-team"], capture_output=True, check=False)


def test_other_names_in_one_process(tmp_path: Path) -> None:
    """Whoever changes nodename or public_addr of a cluster in one process just starts it again."""
    cluster = Cluster(tmp_path / "c", second_factor="off")
    assert cluster.start().ready().stop() == 0
    cluster.nodename = "renamed"
    daemon = cluster.start().ready()
    try:
        cluster.tctl("users", "add", "joe", ME)
        config = cluster.ssh_config(tmp_path, cluster.sign("joe", tmp_path / "id"))
        jump = ["ssh", "-F", config, "-J", f"{ME}@localhost:{cluster.proxy}"]
        assert run(*jump, f"{ME}@renamed", "echo here").stdout == "here\n"
        assert "node1" not in cluster.tctl("nodes", "ls").stdout
    finally:
        assert daemon.stop() == 0


def test_open_files(tmp_path: Path) -> None:
    """The daemon may hold as many connections as the system allows; a session's soft limit is the one it began with."""
    cluster = Cluster(tmp_path / "c", second_factor="off")
    cluster.write(cluster.config, "node1", "auth", "ssh", "proxy")
    limited = ["sh", "-c", 'ulimit -S -n 1024; exec "$0" "$@"', BIN / "teleport", "start", "-c", cluster.config]
    daemon = Daemon(limited, tmp_path / "log").ready()
    try:
        cluster.tctl("users", "add", "joe", ME)
        config = cluster.ssh_config(tmp_path, cluster.sign("joe", tmp_path / "id"))
        jump = ["ssh", "-F", config, "-J", f"{ME}@localhost:{cluster.proxy}"]
        assert run(*jump, f"{ME}@node1", "ulimit -S -n").stdout == "1024\n"
        limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
        soft, hard = re.search(r"Max open files\s+(\d+)\s+(\d+)", limits).groups()
        assert soft == hard
        assert int(soft) > 1024
    finally:
        assert daemon.stop() == 0
    assert "teleport is stopping" in daemon.output()
