"""A daemon in a container without an init, where it is PID 1; and scores of the OOM killer."""

from __future__ import annotations

import getpass
import signal
import time
from pathlib import Path

import pytest

from tests.worlds.cluster import BIN, Cluster, Daemon, run

ME = getpass.getuser()
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def _config(cluster: Cluster, folder: Path) -> Path:
    cluster.tctl("users", "add", "joe", ME)
    return cluster.ssh_config(folder, cluster.sign("joe", folder / "joe"))


@pytest.mark.program("ssh", "unshare")
@pytest.mark.root
def test_first_process_of_a_container(tmp_path: Path) -> None:
    """As PID 1 the daemon leaves no zombie of what lost its parent; sessions, labels and TERM work as elsewhere."""
    cluster = Cluster(tmp_path / "c", second_factor="off")
    cluster.write(cluster.config, "node1", "auth", "ssh", "proxy")
    text = cluster.config.read_text()
    labels = "labels: {env: test}"
    assert labels in text
    cluster.config.write_text(text.replace(labels, f"{labels}\n  commands: [{{name: told, command: [id, -un]}}]"))
    line = [*CONTAINER, BIN / "teleport", "start", "-c", cluster.config]
    daemon = Daemon(line, tmp_path / "log").ready()
    try:
        ssh = ["ssh", "-F", _config(cluster, tmp_path), "-p", str(cluster.node), f"{ME}@localhost"]
        orphans = "for n in 1 2 3 4; do (setsid sh -c 'exit 3' &); done; (setsid sleep 0.01 &)"
        run(*ssh, orphans)
        deadline = time.monotonic() + 20
        while run(*ssh, "ps -eo stat= | grep Z", check=False).stdout:
            assert time.monotonic() < deadline
        assert run(*ssh, "exit 7", check=False).returncode == 7
        assert run(*ssh, "ps -o args= -p 1").stdout.rstrip().endswith(str(cluster.config))
        deadline = time.monotonic() + 20
        while f"told={ME}" not in cluster.tctl("nodes", "ls").stdout:
            assert time.monotonic() < deadline
        (first,) = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
        run("kill", "-HUP", first)
        daemon.wait_for("Reload is not supported yet")
        run("kill", "-TERM", first)
        assert daemon.process.wait(30) == 0
        assert "Traceback" not in daemon.output()
    finally:
        daemon.kill()


@pytest.mark.program("unshare")
@pytest.mark.root
def test_first_process_that_cannot_start(tmp_path: Path) -> None:
    """The status of a daemon that cannot start, or is killed, reaches whoever started the container."""
    cluster = Cluster(tmp_path, second_factor="off")
    cluster.write(cluster.config, "authhost", "auth")
    line = [*CONTAINER, BIN / "twistd", "-n", "--pidfile=", "teleport-auth", "-c", cluster.config]
    daemon = Daemon(line, tmp_path / "log").ready()
    try:
        second = Daemon(line, tmp_path / "log2")
        assert second.process.wait(30) == 1
        (first,) = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
        (own,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        run("kill", "-KILL", own)
        assert daemon.process.wait(30) == 128 + signal.SIGKILL
    finally:
        daemon.kill()


@pytest.mark.program("ssh")
@pytest.mark.root
def test_who_is_killed_when_memory_is_short(tmp_path: Path) -> None:
    """The daemon and its launcher are not the first to go; sessions and labels have the score that they would have
    under sshd."""
    cluster = Cluster(tmp_path / "c", second_factor="off")
    cluster.write(cluster.config, "node1", "auth", "ssh", "proxy")
    show = "[cat, /proc/self/oom_score_adj]"
    text = cluster.config.read_text().replace(
        "{env: test}", f"{{env: test}}\n  commands: [{{name: oom, command: {show}}}]"
    )
    cluster.config.write_text(text)
    started = ["sh", "-c", 'echo 123 >/proc/self/oom_score_adj; exec "$0" "$@"']
    daemon = Daemon([*started, BIN / "teleport", "start", "-c", cluster.config], tmp_path / "log").ready()
    try:
        ssh = ["ssh", "-F", _config(cluster, tmp_path), "-p", str(cluster.node), f"{ME}@localhost"]
        assert run(*ssh, "cat /proc/self/oom_score_adj").stdout == "123\n"
        pid = daemon.process.pid
        family = [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        scores = [Path(f"/proc/{each}/oom_score_adj").read_text() for each in family]
        assert scores in (["-900\n"] * 2, ["0\n"] * 2)  # the second without CAP_SYS_RESOURCE
        deadline = time.monotonic() + 20
        while "oom=123" not in (said := cluster.tctl("nodes", "ls").stdout):
            assert time.monotonic() < deadline, said
    finally:
        assert daemon.stop() == 0
