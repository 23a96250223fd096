"""A whole cluster in real processes on loopback, for the user stories in this folder."""

from __future__ import annotations

import base64
import hmac
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.worlds.checks import found

BIN = Path(sys.executable).parent
TREE = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
STATIC = "static-token-of-the-tests-0123456789"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. They are below the range from which the kernel takes outgoing ones.

    At random: runs side by side in containers may share the network, and have the same process ids.
    """
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 12000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def totp(secret: str, at: float | None = None) -> str:
    """RFC 6238 with SHA-1, 30 s, 6 digits: what an authenticator app shows."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int((time.time() if at is None else at) // 30)), "sha1")
    number = struct.unpack(">L", digest[digest[-1] & 15 :][:4])[0] & 0x7FFFFFFF
    return f"{number % 1000000:06}"


class Daemon:
    """One process in the foreground, its log in a file."""

    def __init__(self, arguments: Iterable[object], log: Path, env: dict[str, str] | None = None, **popen: Any) -> None:
        self.log = log
        self.arguments = [str(each) for each in arguments]
        with log.open("ab") as out:
            self.start_offset = out.tell()
            self.process = subprocess.Popen(
                self.arguments,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={**(os.environ if env is None else env), "TELECONCH_TEST_DAEMON": "1"},
                start_new_session=True,
                **popen,
            )

    def output(self) -> str:
        data = self.log.read_bytes()[self.start_offset :]
        return data.decode("utf-8", "replace")

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """The first match of ``pattern`` in this run's log. Fails with the log when it ends or never says so."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.output())
            if match is not None:
                return match
            ended = self.process.poll()
            assert ended is None, f"{self.arguments} ended with {ended}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {seconds} s from {self.arguments}:\n{self.output()}"
            select.select([], [], [], 0.02)

    def ready(self) -> Daemon:
        self.wait_for("teleport is ready")
        return self

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def run(*arguments: object, env: dict[str, str] | None = None, check: bool = True, stdin: str | bytes | None = None,
        timeout: float = 60, text: bool = True, **popen: Any) -> subprocess.CompletedProcess[Any]:  # fmt: skip
    """A program to its end. With ``check``, its output is shown when it fails."""
    given: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(
        [str(each) for each in arguments], env=env, capture_output=True, text=text, timeout=timeout, **given, **popen
    )
    if check:
        assert done.returncode == 0, f"{arguments} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Home:
    """An empty HOME with the programs on PATH: a person at a terminal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        kept = {
            name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TZ", "USER", "LOGNAME")
        }
        self.env = {**kept, "HOME": str(path), "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "xterm"}

    def run(self, *arguments: object, **how: Any) -> subprocess.CompletedProcess[Any]:
        return run(*arguments, env=self.env, **how)

    def sign_up(self, url: str, *options: str, password: str = PASSWORD) -> str:
        """Follow a sign-up link in the terminal; gives the second factor's secret ("" where there is none)."""
        process = subprocess.Popen(
            ["tsh", *options, "signup", url], env=self.env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        shown, secret = "", ""
        process.stdin.write(f"{password}\n{password}\n")
        process.stdin.flush()
        for line in process.stdout:
            shown += line
            if match := re.search(r"Secret for the authenticator: (\S+)", line):
                secret = match[1]
                process.stdin.write(totp(secret) + "\n")
                process.stdin.flush()
        rest, errors = process.communicate(timeout=30)
        assert process.returncode == 0, shown + rest + errors
        return secret

    def log_in(
        self, *options: str, secret: str = "", code: str = "", password: str = PASSWORD, **how: Any
    ) -> subprocess.CompletedProcess[Any]:
        """``tsh login``. The code is the next one: the current one may be used up by the sign-up."""
        if secret:
            code = totp(secret, time.time() + 30)
        return self.run("tsh", "login", *options, stdin=f"{password}\n{code}\n", **how)


class Cluster:
    """One process with all roles, or the parts of one, each from a file of its own."""

    def __init__(self, folder: Path, second_factor: str = "otp", nodename: str = "node1") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.auth, self.node, self.proxy, self.web, self.diag = free_ports(5)
        self.second_factor = second_factor
        self.nodename = nodename
        self.config = folder / "teleport.yaml"

    def section(self, name: str) -> str:
        return {
            "auth": "auth_service:\n  enabled: yes\n  cluster_name: main\n"
            f"  listen_addr: 127.0.0.1:{self.auth}\n  tokens: ['node,proxy:{STATIC}']\n"
            f"  authentication: {{type: local, second_factor: '{self.second_factor}'}}\n",
            "ssh": f"ssh_service:\n  enabled: yes\n  listen_addr: 127.0.0.1:{self.node}\n  labels: {{env: test}}\n",
            "proxy": f"proxy_service:\n  enabled: yes\n  listen_addr: 127.0.0.1:{self.proxy}\n"
            f"  web_listen_addr: 127.0.0.1:{self.web}\n  public_addr: localhost:{self.web}\n"
            f"  ssh_public_addr: localhost:{self.proxy}\n",
        }[name]

    def write(self, path: Path, nodename: str, *sections: str, extra: str = "") -> Path:
        """A configuration with just these sections on."""
        text = f"teleport:\n  nodename: {nodename}\n  data_dir: {path.with_suffix('.data')}\n"
        text += f"  log: {{output: stderr, severity: INFO}}\n{extra}"
        for name in ("auth", "ssh", "proxy"):
            text += self.section(name) if name in sections else f"{name}_service: {{enabled: no}}\n"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def start(self) -> Daemon:
        """Everything in one process."""
        self.write(self.config, self.nodename, "auth", "ssh", "proxy")
        return Daemon([BIN / "teleport", "start", "-c", self.config], self.folder / "teleport.log")

    def tctl(self, *arguments: object, **how: Any) -> subprocess.CompletedProcess[Any]:
        return run(BIN / "tctl", "-c", self.config, *arguments, **how)

    def pin(self) -> str:
        return str(found(r"sha256:[0-9a-f]{64}", self.tctl("status").stdout)[0])

    def signup_link(self, user: str, logins: str) -> str:
        return str(found(r"https://\S+/web/newuser/\S+", self.tctl("users", "add", user, logins).stdout)[0])

    def sign(self, user: str, out: Path, *options: str) -> Path:
        """A key pair and certificate made by ``tctl auth sign``."""
        self.tctl("auth", "sign", f"--user={user}", "--format=openssh", f"--out={out}", *options)
        return out

    def ssh_config(self, folder: Path, identity: Path) -> Path:
        """What a user of plain OpenSSH has: the key, the certificate beside it, and the host authority."""
        known = folder / "known_hosts"
        known.write_text(self.tctl("auth", "export", "--type=host", "--names=localhost").stdout)
        path = folder / "ssh_config"
        path.write_text(
            f"Host *\n  IdentityFile {identity}\n  IdentityAgent none\n  UserKnownHostsFile {known}\n"
            "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        return path
