"""teleconch itself: auth server, node and proxy, each a process of its own, and ``tsh`` beside OpenSSH's client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from bench.peers import CTR, LOGIN, Peer
from bench.processes import NotReady, free_port

BIN = Path(sys.executable).parent
NODE = "target"
_TOKEN = "bench-token-bench-token-bench-token"
_PASSWORD = "correct horse battery"
_SERVICES = ("auth", "ssh", "proxy")


class Teleconch(Peer):
    name = short = "teleconch"
    ciphers = (*Peer.ciphers, CTR)
    remarks = ("teleconch logs in with a certificate (one signature more to check), the others with a plain key.",)

    def start(self) -> None:
        self.auth_port, self.web_port = free_port(), free_port()
        self.env = {**os.environ, "TELEPORT_HOME": str(self.folder / "tsh")}
        auth = self._configure(
            "auth", "auth",
            f"  cluster_name: bench\n  listen_addr: 127.0.0.1:{self.auth_port}\n  tokens: ['node,proxy:{_TOKEN}']\n"
            "  authentication: {type: local, second_factor: 'off'}\n",
        )  # fmt: skip
        self._daemon("auth", self.auth_port)
        self._sign(auth)
        self._configure(
            "proxy", "proxy",
            f"  listen_addr: 127.0.0.1:{self.jump_port}\n  web_listen_addr: 127.0.0.1:{self.web_port}\n",
        )  # fmt: skip
        self._configure("node", "ssh", f"  listen_addr: 127.0.0.1:{self.target_port}\n")
        self.start_target()
        self.jump_pid = self._daemon("proxy", self.jump_port)
        self.write_config(behind=NODE)
        self._wait_until_registered()

    def start_target(self) -> None:
        self.target_pid = self._daemon("node", self.target_port)

    def _configure(self, role: str, service: str, settings: str) -> Path:
        others = "".join(f"{each}_service: {{enabled: no}}\n" for each in _SERVICES if each != service)
        joins = f"  auth_servers: ['127.0.0.1:{self.auth_port}']\n  auth_token: {_TOKEN}\n"
        path = self.folder / f"{role}.yaml"
        path.touch(0o600)
        path.write_text(
            f"teleport:\n  nodename: {NODE if role == 'node' else f'the-{role}'}\n  data_dir: {self.folder / role}\n"
            "  log: {output: stderr, severity: WARN}\n  connection_limits: {max_connections: 15000, max_users: 15000}\n"
            f"{joins if role != 'auth' else ''}"
            f"{service}_service:\n  enabled: yes\n{settings}{others}"
        )
        return path

    def _daemon(self, role: str, port: int) -> int:
        return self.space.daemon(port, BIN / "teleport", "start", "-c", self.folder / f"{role}.yaml")

    def _sign(self, config: Path) -> None:
        """A user, and a key and certificate for ``ssh``."""
        self.key, self.certificate = self.folder / "bench", self.folder / "bench-cert.pub"
        told = self._program("tctl", "-c", config, "users", "add", "bench", LOGIN)
        self._signup_path = re.search(r"/web/newuser/\S+", told)[0]  # type: ignore[index]
        self._program("tctl", "-c", config, "auth", "sign", "--user=bench", f"--out={self.key}", "--format=openssh")

    def _program(self, name: str, *arguments: str | Path, typed: str = "") -> str:
        """Run one of our programs; what it prints."""
        command = [str(BIN / name), *map(str, arguments)]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60, env=self.env, input=typed
        ).stdout

    def log_in(self) -> None:
        """``tsh signup`` and ``tsh login``, once."""
        if not (self.folder / "tsh").exists():
            web = f"127.0.0.1:{self.web_port}"
            typed = f"{_PASSWORD}\n{_PASSWORD}\n"
            self._program("tsh", "--insecure", "signup", f"https://{web}{self._signup_path}", typed=typed)
            proxy = f"--proxy={web},{self.jump_port}"
            self._program("tsh", "--insecure", proxy, "--user=bench", "login", typed=typed)

    def _wait_until_registered(self) -> None:
        for _ in range(50):
            try:
                self.run("via", "true")
            except subprocess.CalledProcessError as refused:
                last = refused.stderr
                time.sleep(0.2)
            else:
                return
        raise NotReady(f"the node cannot be reached through the proxy: {last}")
