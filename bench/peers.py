"""The systems that are measured: each starts a target and a jump host of its own kind, and an ssh_config to reach them.

Every ``Peer`` offers the ``ssh_config`` hosts ``target`` (direct) and ``via`` (through its own jump host).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.workspace import CLIENT_OPTIONS, LOGIN, Workspace, free_port, wait_for_port

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


class Missing(Exception):
    """This peer cannot run here; the sentence says what it needs."""


class Peer:
    """``target_pid`` and ``jump_pid`` are the servers' processes."""

    name = ""
    ciphers: tuple[str, ...] = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
    target_pid = jump_pid = 0

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.folder = space.root / self.name.replace(" ", "-").lower()
        self.folder.mkdir()
        self.config = self.folder / "ssh_config"
        self.start()

    def start(self) -> None:
        raise NotImplementedError

    def ssh(self, host: str, *arguments: str, cipher: str | None = None) -> list[str]:
        """The command line of OpenSSH's client."""
        extra = ["-c", cipher] if cipher else []
        return ["ssh", "-F", str(self.config), *extra, host, *arguments]

    def write_config(self, target_port: int, jump_port: int, extra: str = "", target: str = "127.0.0.1") -> None:
        options = CLIENT_OPTIONS.format(login=LOGIN, key=self.space.key)
        self.config.write_text(
            f"Host target\n    HostName 127.0.0.1\n    Port {target_port}\n{options}{extra}"
            f"Host jump\n    HostName 127.0.0.1\n    Port {jump_port}\n{options}{extra}"
            f"Host via\n    HostName {target}\n    Port {target_port}\n    ProxyJump jump\n{options}{extra}"
        )


class OpenSSH(Peer):
    name = "OpenSSH sshd"

    def start(self) -> None:
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if program is None:
            raise Missing("sshd: apt-get install openssh-server")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        ports = []
        for role in ("target", "jump"):
            key, port = self.folder / f"{role}_host", free_port()
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            config = self.folder / f"{role}.conf"
            config.write_text(
                f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nUsePAM no\nStrictModes no\n"
                f"AuthorizedKeysFile {self.space.key}.pub\nPermitRootLogin yes\nPasswordAuthentication no\n"
                "UseDNS no\nMaxStartups 1000\nMaxSessions 1000\nPrintMotd no\nPrintLastLog no\n"
            )
            setattr(self, f"{role}_pid", self.space.daemon(program, "-D", "-e", "-f", config))
            ports.append(port)
        for port in ports:
            wait_for_port(port)
        self.write_config(*ports)


class Teleconch(Peer):
    name = "teleconch"

    def start(self) -> None:
        auth, node, proxy, web = (free_port() for _ in range(4))
        common = "teleport:\n  nodename: {name}\n  data_dir: {data}\n  log: {{output: stderr, severity: WARN}}\n"
        off = "{name}_service: {{enabled: no}}\n"
        join = f"  auth_servers: ['127.0.0.1:{auth}']\n  auth_token: bench-token-bench-token-bench-token\n"
        files = {
            "auth": "auth_service:\n  enabled: yes\n  cluster_name: bench\n"
            f"  listen_addr: 127.0.0.1:{auth}\n  tokens: ['node,proxy:bench-token-bench-token-bench-token']\n"
            "  authentication: {type: local, second_factor: 'off'}\n"
            + off.format(name="ssh") + off.format(name="proxy"),
            "node": join + f"ssh_service:\n  enabled: yes\n  listen_addr: 127.0.0.1:{node}\n"
            + off.format(name="auth") + off.format(name="proxy"),
            "proxy": join + f"proxy_service:\n  enabled: yes\n  listen_addr: 127.0.0.1:{proxy}\n"
            f"  web_listen_addr: 127.0.0.1:{web}\n" + off.format(name="auth") + off.format(name="ssh"),
        }  # fmt: skip
        for name, text in files.items():
            path = self.folder / f"{name}.yaml"
            nodename = "target" if name == "node" else f"the-{name}"
            path.write_text(common.format(name=nodename, data=self.folder / name) + text)
            path.chmod(0o600)
            pid = self.space.daemon(BIN / "teleport", "start", "-c", path)
            wait_for_port({"auth": auth, "node": node, "proxy": proxy}[name])
            if name == "auth":
                self._sign(path)
            else:
                setattr(self, "target_pid" if name == "node" else "jump_pid", pid)
        self.write_config(node, proxy, f"    CertificateFile {self.folder}/bench-cert.pub\n", target="target")
        self._wait_until_registered()

    def _sign(self, config: Path) -> None:
        """The bench key pair of this peer is the one that ``tctl auth sign`` makes."""
        tctl = [str(BIN / "tctl"), "-c", str(config)]
        subprocess.run([*tctl, "users", "add", "bench", LOGIN], check=True, capture_output=True)
        out = self.folder / "bench"
        subprocess.run(
            [*tctl, "auth", "sign", "--user=bench", f"--out={out}", "--format=openssh"], check=True, capture_output=True
        )

    def write_config(self, target_port: int, jump_port: int, extra: str = "", target: str = "127.0.0.1") -> None:
        super().write_config(target_port, jump_port, extra, target)
        text = self.config.read_text().replace(f"IdentityFile {self.space.key}", f"IdentityFile {self.folder}/bench")
        self.config.write_text(text)

    def _wait_until_registered(self) -> None:
        for _ in range(100):
            if subprocess.run(self.ssh("via", "true"), capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(subprocess.run(self.ssh("via", "true"), capture_output=True, text=True, check=False).stderr)


class Script(Peer):
    """A small server of ours on somebody's library: ``PROGRAM PORT HOST_KEY AUTHORIZED_KEYS``."""

    def program(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        program, ports = self.program(), []
        for role in ("target", "jump"):
            key, port = self.folder / f"{role}_host", free_port()
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            pid = self.space.daemon(*program, str(port), key, f"{self.space.key}.pub")
            setattr(self, f"{role}_pid", pid)
            ports.append(port)
        for port in ports:
            wait_for_port(port)
        self.write_config(*ports)


class StockConch(Script):
    name = "stock Conch"
    ciphers = ("aes128-ctr",)  # it has no AEAD

    def program(self) -> list[str]:
        return [sys.executable, str(HERE / "servers" / "conch_server.py")]


class AsyncSSH(Script):
    name = "AsyncSSH"

    def program(self) -> list[str]:
        try:
            import asyncssh  # noqa: F401
        except ImportError:
            raise Missing("AsyncSSH: pip install asyncssh") from None
        return [sys.executable, str(HERE / "servers" / "asyncssh_server.py")]


class Go(Script):
    name = "Go x/crypto/ssh"

    def program(self) -> list[str]:
        go, library = shutil.which("go"), Path("/usr/share/gocode/src/golang.org/x/crypto/ssh")
        if go is None or not library.is_dir():
            raise Missing("Go: apt-get install golang-go golang-golang-x-crypto-dev")
        binary = self.folder / "server"
        env = {
            **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(self.folder / "cache"),
            "GOFLAGS": "", "GOTOOLCHAIN": "local",
        }  # fmt: skip
        subprocess.run([go, "build", "-o", binary, HERE / "servers" / "server.go"], check=True, env=env)
        return [str(binary)]


PEERS: tuple[type[Peer], ...] = (Teleconch, OpenSSH, StockConch, AsyncSSH, Go)
