"""One small cluster in a process of its own, and tsh as a person runs it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.worlds.checks import found
from tests.worlds.cluster import free_ports

BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery"
CONFIG = """
teleport:
  nodename: alpha
  data_dir: {home}/data
  log: {{output: stderr, severity: INFO}}
auth_service:
  enabled: yes
  cluster_name: example.test
  listen_addr: 127.0.0.1:{auth}
  authentication: {{type: local, second_factor: "off"}}
ssh_service:
  enabled: yes
  listen_addr: 127.0.0.1:{node}
  labels: {{env: test, pair: both}}
proxy_service:
  enabled: yes
  listen_addr: 127.0.0.1:{ssh}
  web_listen_addr: 127.0.0.1:{web}
  public_addr: localhost:{web}
  ssh_public_addr: localhost:{ssh}
"""


class World:
    """``login`` is the OS user who runs the tests; ``tsh`` and ``home`` are joe's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.auth, self.node, self.ssh, self.web = free_ports(4)
        self.config = folder / "teleport.yaml"
        self.config.write_text(
            CONFIG.format(home=folder, **{n: getattr(self, n) for n in ("auth", "node", "ssh", "web")})
        )
        self.home = folder / "home of joe"
        self.home.mkdir()
        self.login = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "teleport", "start", "-c", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TELECONCH_TEST_DAEMON": "1"},
            )
        until = time.monotonic() + 60
        while b"teleport is ready" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        self.pin = found(r"sha256:\w+", self.tctl("status"))[0]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def tctl(self, *arguments: str) -> str:
        return subprocess.run(
            [BIN / "tctl", "-c", self.config, *arguments], capture_output=True, text=True, check=True
        ).stdout

    def tsh(self, *arguments: str, stdin: bytes | None = b"", **how: Any) -> subprocess.CompletedProcess[bytes]:
        """Run tsh; its output as bytes."""
        how.setdefault("env", self.env)
        return subprocess.run(
            [BIN / "tsh", *arguments], input=stdin, capture_output=True, timeout=60, check=False, **how
        )

    def add_user(self, name: str, logins: str) -> str:
        """A new user; the sign-up link."""
        return found(r"https://\S+", self.tctl("users", "add", name, logins))[0]

    def log_in(self, name: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
        return self.tsh(
            "login", f"--proxy=localhost:{self.web}", f"--user={name}", f"--ca-pin={self.pin}", *flags,
            stdin=f"{PASSWORD}\n".encode(),
        )  # fmt: skip


def terminal_run(
    world: World, *arguments: str, talk: Callable[..., Any], size: tuple[int, int] = (24, 80), program: str = "tsh"
) -> int:
    """tsh at a terminal; ``talk(write, expect, terminal, process)`` is the person. Returns the
    exit status."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    process = subprocess.Popen(
        [BIN / program, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=world.env, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    seen = bytearray()
    try:

        def expect(pattern: bytes, seconds: int = 20) -> bytes:
            until = time.monotonic() + seconds
            while not re.search(pattern, bytes(seen)):
                assert time.monotonic() < until, bytes(seen)
                if select.select([ours], [], [], 0.2)[0]:
                    seen.extend(os.read(ours, 65536))
            found = bytes(seen)
            seen.clear()
            return found

        before = termios.tcgetattr(theirs)
        talk(lambda data: os.write(ours, data), expect, ours, process)
        status = process.wait(20)
        assert termios.tcgetattr(theirs) == before, "the terminal was not put back"
        return status
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
