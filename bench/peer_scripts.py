"""Libraries that have no server program: each gets a small one, in ``servers/``: ``PORT HOST_KEY AUTHORIZED_KEYS``."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from bench.peers import CTR, Missing, Peer

_SERVERS = Path(__file__).parent / "servers"


class Script(Peer):
    serves_files = forwards = False

    def program(self) -> list[str]:
        """The server's command line without its arguments. Missing."""
        raise NotImplementedError

    def start(self) -> None:
        self._program = self.program()
        self.jump_pid = self._daemon("jump", self.jump_port)
        self.start_target()
        self.write_config()

    def start_target(self) -> None:
        self.target_pid = self._daemon("target", self.target_port)

    def _daemon(self, role: str, port: int) -> int:
        key = self.folder / f"{role}_host"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        # The commands' shell, and what makes bash read its start-up file, as with servers that log users in.
        env = {**os.environ, "SHELL": pwd.getpwuid(os.getuid()).pw_shell, "SSH_CLIENT": "127.0.0.1 0 0"}
        env.pop("SHLVL", None)
        return self.space.daemon(port, *self._program, str(port), key, f"{self.space.key}.pub", env=env)


class StockConch(Script):
    name, short = "stock Conch", "Conch"
    ciphers = (CTR,)  # it has no AEAD
    jump_share = 1 / 16
    remarks = (
        "stock Conch sends EOF ahead of data that waits for the window, and the client drops what follows: bytes are "
        "lost where the client is the slower one. That is Conch's SSHSessionProcessProtocol; the script here leaves "
        "that EOF out, so that transfers are whole.",
        "stock Conch keeps without a bound what the next end does not take, and copies all of it for each read: its "
        "jump figures are of a sixteenth of the size, and get worse with it.",
    )

    def program(self) -> list[str]:
        return [sys.executable, str(_SERVERS / "conch_server.py")]


class AsyncSSH(Script):
    name = short = "AsyncSSH"

    def program(self) -> list[str]:
        if importlib.util.find_spec("asyncssh") is None:
            raise Missing("AsyncSSH: pip install asyncssh")
        return [sys.executable, str(_SERVERS / "asyncssh_server.py")]


class Go(Script):
    name, short = "Go x/crypto/ssh", "Go"

    def program(self) -> list[str]:
        go, library = shutil.which("go"), Path("/usr/share/gocode/src/golang.org/x/crypto/ssh")
        if go is None or not library.is_dir():
            raise Missing("Go x/crypto/ssh: apt-get install golang-go golang-golang-x-crypto-dev")
        binary = self.folder / "go_server"
        env = {
            **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(self.folder / "cache"),
            "GOFLAGS": "", "GOTOOLCHAIN": "local",
        }  # fmt: skip
        subprocess.run([go, "build", "-o", binary, _SERVERS / "server.go"], check=True, env=env)
        return [str(binary)]

    def start(self) -> None:
        super().start()
        self.ciphers = tuple(cipher for cipher in self.ciphers if self._speaks(cipher))  # old ones have no aes256-gcm

    def _speaks(self, cipher: str) -> bool:
        command = self.ssh("target", "true", cipher=cipher)
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
