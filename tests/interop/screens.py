"""Three windows of tmux for one person who types the same in each: OpenSSH's ssh to sshd, ssh through the proxy to the
node, and ``tsh ssh``. In each window ``go`` stands for the program with what it needs to find the host ``box``."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.worlds.cluster import BIN, Cluster, Daemon, free_ports, run

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/sshd
TrustedUserCAKeys {folder}/users
PidFile none
LogLevel ERROR
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AcceptEnv LANG LC_*
StrictModes no
"""
_CLIENT = """
Host *
  IdentityFile {folder}/joe
  CertificateFile {folder}/joe-cert.pub
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  SendEnv LANG LC_*
"""


class Road:
    """One way to a shell: its name, the OS user it leads to, and ``go``, the program that goes there."""

    def __init__(self, name: str, user: str, go: Path) -> None:
        self.name, self.user, self.go = name, user, go

    @property
    def home(self) -> Path:
        return Path(os.path.expanduser(f"~{self.user}"))


def _script(path: Path, *words: str | Path) -> Path:
    path.mkdir()
    path /= "go"
    path.write_text("#!/bin/sh\nexec " + shlex.join(str(word) for word in words) + ' "$@"\n')
    path.chmod(0o755)
    return path


class Place:
    """A cluster of one node called ``box``, sshd beside it, and the roads to both."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.users: list[str] = []
        self.sshd: subprocess.Popen[bytes] | None = None
        self.cluster = cluster = Cluster(folder / "c", second_factor="off", nodename="box")
        self.daemon: Daemon = cluster.start().ready()
        try:
            self._open(folder, cluster)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path, cluster: Cluster) -> None:
        for _ in range(3):
            name = f"tc{secrets.token_hex(3)}"
            run("useradd", "-m", "-s", "/bin/bash", "-p", "*", name)
            self.users.append(name)
        cluster.tctl("users", "add", "joe", ",".join(self.users))
        cluster.sign("joe", folder / "joe")
        cluster.tctl("auth", "sign", "--user=joe", "--format=file", f"--out={folder / 'joe.pem'}")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "sshd")
        authority = re.findall(r"ssh-\S+ AAAA\S+", cluster.tctl("auth", "export", "--type=user").stdout)
        (folder / "users").write_text("\n".join(authority) + "\n")
        (port,) = free_ports(1)
        (folder / "sshd_config").write_text(_SSHD.format(port=port, folder=folder))
        known = cluster.tctl("auth", "export", "--type=host", "--names=localhost", "--names=box").stdout
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'sshd.pub').read_text()}{known}")
        client = _CLIENT.format(folder=folder)
        jump = f"ssh -F {folder}/base -p {cluster.proxy} %r@localhost -s proxy:%h:%p"
        (folder / "base").write_text(client)
        (folder / "plain").write_text(f"Host box\n  HostName 127.0.0.1\n  Port {port}\n{client}")
        (folder / "through").write_text(f"Host box\n  HostKeyAlias box\n  ProxyCommand {jump}\n{client}")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        # Under a shell, since sshd writes its title over the mark in its environment.
        line = f"trap 'kill $pid' TERM; /usr/sbin/sshd -D -e -f {folder}/sshd_config & pid=$!; wait; wait"
        with (folder / "sshd.log").open("wb") as log:
            self.sshd = subprocess.Popen(
                ["sh", "-c", line], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": PATH, "TELECONCH_TEST_DAEMON": "1"},
            )  # fmt: skip
        tsh: list[str | Path] = ["-i", folder / "joe.pem", f"--proxy=localhost:{cluster.web},{cluster.proxy}"]
        sshd, node, own = self.users
        self.roads = (
            Road("sshd", sshd, _script(folder / "sshd.bin", "ssh", "-F", folder / "plain", "-l", sshd)),
            Road("ssh", node, _script(folder / "ssh.bin", "ssh", "-F", folder / "through", "-l", node)),
            Road("tsh", own, _script(folder / "tsh.bin", BIN / "tsh", *tsh, "ssh", "-l", own)),
        )
        for road in self.roads:
            (road.home / ".hushlogin").touch()
            (road.home / "f").write_text("".join(f"{number}\n" for number in range(1, 501)))
            (road.home / ".bash_profile").write_text(
                "PS1='\\[\\e[38;5;208m\\]ready\\[\\e[0m\\]> '; export LESSHISTFILE=-\n"
            )
            run("chown", "-R", f"{road.user}:", road.home)

    def close(self) -> None:
        for name in self.users:
            subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        if self.sshd is not None:
            self.sshd.terminate()
            self.sshd.wait()
        self.daemon.stop()
        for name in self.users:
            subprocess.run(["userdel", "-r", "-f", name], check=False, capture_output=True)


class Screens:
    """A window for each road, with a local shell in it whose prompt is ``local>``."""

    def __init__(self, place: Place, server: str, columns: int, rows: int) -> None:
        self.roads = place.roads
        self._server = server
        for road in self.roads:
            environment = [
                *("env", "-i", f"PATH={road.go.parent}:{BIN}:{PATH}", f"HOME={place.folder}", "LANG=C.UTF-8"),
                *("TERM=tmux-256color", "PS1=local> ", "HISTFILE=/dev/null", "bash", "--norc", "--noprofile"),
            ]
            size = ("-x", str(columns), "-y", str(rows))
            self.tmux("new-session", "-d", "-s", road.name, *size, shlex.join(environment))

    def tmux(self, *words: str) -> str:
        """tmux's answer."""
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "xterm-256color", "TELECONCH_TEST_DAEMON": "1"}
        line = ["tmux", "-u", "-L", self._server, "-f", "/dev/null", *words]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False).stdout

    def type(self, *keys: str, road: str = "") -> None:
        """Type in all windows, or in one; names such as Enter and C-c are keys."""
        for each in self.roads:
            if road in ("", each.name):
                self.tmux("send-keys", "-t", each.name, *keys)

    def line(self, text: str) -> None:
        """Type a line. One that begins with ``clear`` is typed on an empty screen, so that nothing old is awaited."""
        if text.startswith("clear"):
            self.type("-R")
        self.type("-l", text)
        self.type("Enter")

    def log_in(self) -> None:
        """A shell on each host, on an empty screen."""
        self.line("clear; go box")
        self.shows("ready")

    def size(self, columns: int, rows: int) -> None:
        for road in self.roads:
            self.tmux("resize-window", "-t", road.name, "-x", str(columns), "-y", str(rows))

    def screen(self, road: Road, colours: bool = True) -> str:
        """What a window shows, with names that differ made equal."""
        text = self.tmux("capture-pane", *(("-e",) if colours else ()), "-p", "-t", road.name)
        return re.sub(r"pts/\d+", "pts/N", text.replace(road.user, "USER").replace("127.0.0.1 closed", "box closed"))

    def shows(self, *texts: str, seconds: float = 15) -> None:
        """Wait until all windows show these texts."""
        self.until(lambda screen: all(text in screen for text in texts), f"does not show {texts}", seconds)

    def prompts(self) -> None:
        """Wait until all shells ask for the next line; what is typed sooner may go to a program that is just ending."""
        self.until(lambda screen: screen.rstrip().endswith("ready>"), "does not come back to the prompt")

    def until(self, right: Callable[[str], object], problem: str, seconds: float = 15) -> None:
        """Wait until ``right`` holds for all screens."""
        until = time.monotonic() + seconds
        for road in self.roads:
            while not right(self.screen(road, colours=False)):
                assert time.monotonic() < until, f"{road.name} {problem}:\n{self.screen(road, colours=False)}"
                time.sleep(0.05)

    def equal(self, seconds: float = 8) -> str:
        """The screen, when all windows show the same."""
        until = time.monotonic() + seconds
        while True:
            shown = {road.name: self.screen(road) for road in self.roads}
            if len(set(shown.values())) == 1:
                return shown["sshd"]
            assert time.monotonic() < until, "\n".join(f"--- {name}\n{text}" for name, text in shown.items())
            time.sleep(0.05)


@contextmanager
def screens(place: Place, columns: int = 100, rows: int = 30) -> Iterator[Screens]:
    """Three windows; gone afterwards."""
    made = Screens(place, f"teleconch-{secrets.token_hex(4)}", columns, rows)
    try:
        made.shows("local>")
        yield made
    finally:
        made.tmux("kill-server")
