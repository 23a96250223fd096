"""Signals that service managers, logrotate and people send: to each program as they start it, and what is then left."""

from __future__ import annotations

import getpass
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worlds.cluster import BIN, STATIC, TREE, Cluster, Daemon, run

ME = getpass.getuser()
SAID = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR)
SILENT = (signal.SIGPIPE, signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT, signal.SIGURG)
LAUNCHER = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, *SAID, *SILENT)


def defaults() -> None:
    """Signals as a service manager leaves them: under nohup, for one, a hang-up would be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Running:
    """All roles in one process, and one who is logged in."""

    def __init__(self, folder: Path, program: list[str | Path], logged: Path | None = None) -> None:
        self.cluster = cluster = Cluster(folder, second_factor="off")
        folder.mkdir(exist_ok=True)
        cluster.write(cluster.config, "node1", "auth", "ssh", "proxy")
        if logged is not None:
            text = cluster.config.read_text().replace("output: stderr", f"output: {logged}")
            cluster.config.write_text(text)
        self.daemon = Daemon(program, folder / "said", preexec_fn=defaults)
        self.log = logged or folder / "said"
        self.until(lambda: "teleport is ready" in self.text())
        cluster.tctl("users", "add", "joe", ME)
        config = cluster.ssh_config(folder, cluster.sign("joe", folder / "joe"))
        self.ssh: list[str | Path] = ["ssh", "-F", config, "-p", str(cluster.node), f"{ME}@localhost"]
        # The word comes back only after the session has outlived what was sent meanwhile.
        self.client = subprocess.Popen([*self.ssh, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.echo("begun")

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert self.daemon.process.poll() is None, self.daemon.output() + self.text()
            assert time.monotonic() < deadline, self.daemon.output() + self.text()
            time.sleep(0.01)

    def echo(self, word: str) -> None:
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write(f"{word}\n")
        self.client.stdin.flush()
        assert self.client.stdout.readline() == f"{word}\n"

    def send(self, number: int, line: str) -> None:
        before = self.text().count(line)
        self.daemon.process.send_signal(number)
        self.until(lambda: self.text().count(line) > before)

    def launcher(self) -> int:
        children = Path(f"/proc/{self.daemon.process.pid}/task/{self.daemon.process.pid}/children").read_text()
        (pid,) = (
            pid for pid in children.split() if b"node.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )  # fmt: skip
        return int(pid)

    def stop(self) -> None:
        self.client.kill()
        self.client.communicate()
        self.daemon.kill()


def start(folder: Path, logged: Path | None = None) -> Running:
    return Running(folder, [BIN / "teleport", "start", "-c", folder / "teleport.yaml"], logged)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that leave it running."""
    folder = tmp_path_factory.mktemp("signals")
    made = start(folder / "c", folder / "teleport.log")
    yield made
    made.stop()


@pytest.mark.program("ssh")
def test_no_signal_takes_the_host_away(running: Running) -> None:
    """What `systemctl reload`, logrotate and a curious administrator send ends neither the daemon nor a session."""
    running.send(signal.SIGHUP, "Reload is not supported yet: restart")
    for number in SAID:
        running.send(number, f"{number.name} has no meaning")
    for number in SILENT:
        running.daemon.process.send_signal(number)
    running.send(signal.SIGHUP, "Reload is not supported yet: restart")
    for number in LAUNCHER:
        os.kill(running.launcher(), number)
    running.echo("still here")
    assert run(*running.ssh, "echo in").stdout == "in\n"
    assert "Traceback" not in running.text()


@pytest.mark.program("ssh")
def test_logrotate(running: Running, tmp_path: Path) -> None:
    """After the log was renamed, HUP goes on in a new file with the same permissions, or in the one that was made."""
    log, old = running.log, tmp_path / "teleport.log.1"
    log.chmod(0o640)
    owner = 12345 if os.geteuid() == 0 else os.geteuid()
    os.chown(log, owner, -1)
    log.rename(old)
    size = old.stat().st_size
    running.send(signal.SIGHUP, "the log was reopened")
    assert old.stat().st_size == size
    assert (stat.S_IMODE(log.stat().st_mode), log.stat().st_uid) == (0o640, owner)
    log.rename(old)
    log.touch()
    log.chmod(0o604)  # as logrotate's `create` makes it
    running.send(signal.SIGHUP, "the log was reopened")
    assert stat.S_IMODE(log.stat().st_mode) == 0o604
    log.rename(old)
    os.mkfifo(log)  # nobody reads it, and nobody waits for that
    running.log = old
    running.send(signal.SIGHUP, "cannot be reopened")
    log.unlink()
    running.log = log
    running.send(signal.SIGHUP, "the log was reopened")
    running.echo("still here")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.program("ssh")
def test_told_twice_to_stop(tmp_path: Path, number: int) -> None:
    """The first TERM, Ctrl-C or QUIT lets sessions end, TERM then hangs them up: status 0, nothing odd in the log."""
    running = start(tmp_path / "c")
    try:
        running.send(number, "waiting for 1 sessions to end")
        running.echo("still here")
        running.daemon.process.send_signal(signal.SIGTERM)
        assert running.daemon.process.wait(20) == 0
        assert running.client.wait(20) == 255
        assert ("stopping at once" in running.text()) == (number != signal.SIGQUIT)
        assert "Traceback" not in running.text()
    finally:
        running.stop()


@pytest.mark.program("ssh")
def test_quit_waits_for_sessions(tmp_path: Path) -> None:
    """QUIT, as in Teleport 4.2: nobody new gets in, those who are here may finish, and then the daemon ends."""
    running = start(tmp_path / "c")
    try:
        running.send(signal.SIGQUIT, "waiting for 1 sessions to end")
        running.send(signal.SIGHUP, "the log was reopened")
        running.echo("still here")
        assert run(*running.ssh, "true", check=False).returncode == 255
        running.client.communicate("the last\n")
        assert running.client.returncode == 0
        assert running.daemon.process.wait(20) == 0
    finally:
        running.stop()


@pytest.mark.program("ssh")
def test_make_start(tmp_path: Path) -> None:
    """`make start` outlives a hang-up like the others, and Ctrl-C ends it in good order."""
    folder = tmp_path / "var"
    running = Running(folder, [BIN / "python", "-m", "teleconch.cli.quickstart", folder], tmp_path / "log")
    try:
        running.send(signal.SIGHUP, "Reload is not supported yet")
        for number in SAID:
            running.send(number, f"{number.name} has no meaning")
        running.echo("still here")
        running.client.communicate("")
        assert running.daemon.stop(signal.SIGINT) == 0
    finally:
        running.stop()


def test_terminal_of_make_start_is_closed(tmp_path: Path) -> None:
    """Closing the terminal in which `make start` runs ends the cluster, with a line in the log."""
    folder = tmp_path / "var"
    cluster = Cluster(folder, second_factor="off")
    cluster.write(cluster.config, "node1", "auth", "ssh", "proxy")
    log = tmp_path / "log"
    cluster.config.write_text(cluster.config.read_text().replace("output: stderr", f"output: {log}"))
    pid, master = os.forkpty()
    if pid == 0:
        defaults()
        os.chdir(TREE)
        os.execv(BIN / "python", [str(BIN / "python"), "-m", "teleconch.cli.quickstart", str(folder)])
    said = b""
    try:
        while b"Administer" not in said:
            said += os.read(master, 4096)
    finally:
        os.close(master)
        _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status)  # with which status depends on whether its last word had anywhere to go
    assert "SIGHUP: stopping" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_twistd(tmp_path: Path) -> None:
    """Each role under twistd outlives them, too, and TERM ends it with status 0."""
    cluster = Cluster(tmp_path, second_factor="off")
    cluster.config = cluster.write(tmp_path / "auth.yaml", "authhost", "auth")

    def twistd(role: str, *options: str | Path) -> Daemon:
        line = [BIN / "twistd", "-n", "--pidfile=", *options, f"teleport-{role}", "-c", tmp_path / f"{role}.yaml"]
        return Daemon(line, tmp_path / f"{role}.log", preexec_fn=defaults)

    daemons = [twistd("auth").ready()]
    try:
        extra = f"  auth_token: {STATIC}\n  ca_pin: '{cluster.pin()}'\n  auth_servers: ['127.0.0.1:{cluster.auth}']\n"
        cluster.write(tmp_path / "node.yaml", "nodehost", "ssh", extra=extra)
        cluster.write(tmp_path / "proxy.yaml", "proxyhost", "proxy", extra=extra)
        daemons += [twistd("node"), twistd("proxy")]
        for daemon in daemons:
            daemon.ready()
        for number in (*SILENT, *SAID, signal.SIGHUP):
            for daemon in daemons:
                daemon.process.send_signal(number)
            if number in SAID:
                for daemon in daemons:
                    daemon.wait_for(f"{number.name} has no meaning")
        for daemon in daemons:
            daemon.wait_for("Reload is not supported yet")
        for daemon in reversed(daemons):
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.output()
    finally:
        for daemon in daemons:
            daemon.kill()


def test_log_files_of_twistd(tmp_path: Path) -> None:
    """With twistd's own --logfile, HUP goes on under the name after a rename, and USR1 rotates as it always did."""
    cluster = Cluster(tmp_path, second_factor="off")
    cluster.write(cluster.config, "authhost", "auth")
    log = tmp_path / "twistd.log"
    line = [BIN / "twistd", "-n", "--pidfile=", "--logfile", log, "teleport-auth", "-c", cluster.config]
    daemon = Daemon(line, tmp_path / "said", preexec_fn=defaults)

    def until(path: Path, pattern: str) -> None:
        deadline = time.monotonic() + 60
        while not (path.exists() and re.search(pattern, path.read_text())):
            assert daemon.process.poll() is None
            assert time.monotonic() < deadline, pattern
            time.sleep(0.01)

    try:
        until(log, "teleport is ready")
        log.rename(tmp_path / "renamed")
        daemon.process.send_signal(signal.SIGHUP)
        until(log, "the log was reopened")
        daemon.process.send_signal(signal.SIGUSR1)
        until(tmp_path / "twistd.log.1", "the log was reopened")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
