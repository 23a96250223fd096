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

from tests.worlds.checks import found
from tests.worlds.cluster import BIN, PASSWORD, Cluster, Daemon, Home, run

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
    login = found(r"tsh (login \S+ \S+ \S+)", daemon.output())[1].split()[1:]
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


@pytest.mark.root
@pytest.mark.parametrize("login", ["CORP\\kim", "kim+x@corp.example.com", "tc-web1$"])
def test_names_of_directories(tmp_path: Path, login: str) -> None:
    """People whose address or account comes from a directory sign up, log in, and reach their account in every way."""
    user, passwd = "joe+ops@example.com", Path("/etc/passwd")
    before = passwd.read_text()
    (home := Home(tmp_path / "home")).path.joinpath(".ssh").mkdir(mode=0o700)
    cluster = Cluster(tmp_path / "c", second_factor="off")
    daemon = cluster.start().ready()
    passwd.write_text(f"{before}{login}:x:54321:54321::/tmp:/bin/bash\n")
    try:
        pin = f"--ca-pin={cluster.pin()}"
        home.sign_up(cluster.signup_link(user, f"{login},root"), pin)
        said = home.log_in(f"--proxy=localhost:{cluster.web}", pin, f"--user={user}").stdout
        assert login in said
        assert home.run("tsh", "ssh", f"{login}@node1", "id -un; echo $LOGNAME").stdout == f"{login}\n{login}\n"
        assert home.run("tsh", f"--login={login}", "ssh", "node1", "id -u").stdout == "54321\n"
        config = home.path / ".ssh/config"
        config.write_text(home.run("tsh", "config").stdout)
        ssh = ["ssh", "-F", config, "-o", "BatchMode=yes"]
        assert home.run(*ssh, f"{login}@node1.main", "id -un").stdout == f"{login}\n"
        assert home.run(*ssh, "-l", login, "node1.main", "id -u").stdout == "54321\n"
        config.write_text(f"Host node1.main\n    User {login}\n{config.read_text()}")
        assert home.run(*ssh, "node1.main", "echo $USER").stdout == f"{login}\n"
        home.run("scp", "-q", "-F", config, "node1.main:/etc/passwd", tmp_path / "copy")
        assert login in (tmp_path / "copy").read_text()
        home.run("tsh", "scp", f"{login}@node1:/etc/passwd", tmp_path / "copy2")
        assert (tmp_path / "copy2").read_bytes() == passwd.read_bytes()
        assert user in home.run("tsh", "status").stdout
        assert home.run("tsh", "logout").returncode == 0
        document = cluster.tctl("get", f"user/{user}").stdout
        cluster.tctl("rm", f"user/{user}")
        assert user in cluster.tctl("create", stdin=document).stdout
        assert cluster.tctl("get", f"user/{user}").stdout == document
    finally:
        passwd.write_text(before)
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.output()


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
