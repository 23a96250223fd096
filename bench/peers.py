"""The systems that are measured: each starts a target and a jump host of its own kind, and an ssh_config to reach them.

Every ``Peer`` offers the ``ssh_config`` hosts ``target`` (direct) and ``via`` (through its own jump host or proxy).
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.processes import NotReady, free_port
from bench.workspace import Workspace

LOGIN = getpass.getuser()
GCM128, GCM256, CHACHA = "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"
CTR = "aes128-ctr"
_SFTP_SERVER = "/usr/lib/openssh/sftp-server"
# One key exchange and one MAC for all, so that only the servers differ.
CLIENT_OPTIONS = """\
    User {login}
    IdentityFile {key}
{certificate}    IdentitiesOnly yes
    IdentityAgent none
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    LogLevel ERROR
    ControlPath none
    BatchMode yes
    Compression no
    KexAlgorithms curve25519-sha256
    MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-256
"""


class Missing(Exception):
    """This peer cannot run here; the sentence says what it needs."""


class Peer:
    """``target_pid`` and ``jump_pid`` are the servers' processes; ``key`` and ``certificate`` log in to both."""

    name = short = ""
    ciphers: tuple[str, ...] = (GCM128, GCM256, CHACHA)
    certificate: Path | None = None
    jump_share = 1.0  # of the transfer size; less where it would take minutes
    serves_files = forwards = True
    remarks: tuple[str, ...] = ()  # what a reader of the table has to know
    target_pid = jump_pid = target_port = jump_port = 0

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.folder = space.root / self.name.replace(" ", "-").replace("/", "-").lower()
        self.folder.mkdir()
        self.config = self.folder / "ssh_config"
        self.key = space.key
        self.target_port, self.jump_port = free_port(), free_port()
        self.start()

    def start(self) -> None:
        """Start both servers and write the client's configuration. Missing."""
        raise NotImplementedError

    def start_target(self) -> None:
        """Start the target and wait for its port."""
        raise NotImplementedError

    def fresh_target(self) -> None:
        """A new process in the target's place: its memory has seen nothing yet."""
        self.space.end(self.target_pid)
        self.start_target()
        self.run("target", "true")

    def ssh(self, host: str, *arguments: str, cipher: str | None = None) -> list[str]:
        """The command line of OpenSSH's client."""
        extra = ["-c", cipher] if cipher else []
        return ["ssh", "-F", str(self.config), *extra, host, *arguments]

    @contextmanager
    def connected(self, host: str, cipher: str, number: int = 0, forward: str = "") -> Iterator[list[str]]:
        """A connection that stands: gives the command line, without the command, that runs one on it. NotReady.

        ``forward`` is the specification of a ``-L``.
        """
        control = self.folder / f"control-{number}"
        own = ["-o", f"ControlPath={control}"]
        command = self.ssh(host, cipher=cipher)
        own += ["-L", forward] if forward else []
        master = subprocess.Popen(
            [*command[:-1], "-M", "-N", *own, host],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            for _ in range(600):
                if control.exists():
                    break
                if master.poll() is not None:
                    raise NotReady(f"no connection: {master.communicate()[1].strip()}")
                time.sleep(0.05)
            yield [*command[:-1], *own[:2], host]
        finally:
            # With its ssh -W. On a busy machine OpenSSH's client may overlook a gentle signal, and -W its end of input.
            with suppress(ProcessLookupError):
                os.killpg(master.pid, signal.SIGKILL)
            master.communicate()
            control.unlink(missing_ok=True)

    def run(self, host: str, command: str) -> None:
        """Run a command that must succeed. CalledProcessError with the client's words."""
        subprocess.run(
            self.ssh(host, command), stdin=subprocess.DEVNULL, check=True, timeout=60, capture_output=True, text=True
        )

    def write_config(self, behind: str = "127.0.0.1") -> None:
        """``behind`` is the target's name as the jump host knows it."""
        certificate = f"    CertificateFile {self.certificate}\n" if self.certificate else ""
        options = CLIENT_OPTIONS.format(login=LOGIN, key=self.key, certificate=certificate)
        outside = f"    Ciphers {self.ciphers[0]}\n"  # ssh does not hand -c on to the connection with the jump host
        self.config.write_text(
            f"Host target\n    HostName 127.0.0.1\n    Port {self.target_port}\n{options}"
            f"Host jump\n    HostName 127.0.0.1\n    Port {self.jump_port}\n{outside}{options}"
            f"Host via\n    HostName {behind}\n    Port {self.target_port}\n    ProxyJump jump\n{options}"
        )


class OpenSSH(Peer):
    name, short = "OpenSSH sshd", "sshd"
    ciphers = (*Peer.ciphers, CTR)

    def start(self) -> None:
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if program is None:
            raise Missing("OpenSSH sshd: apt-get install openssh-server")
        self._program = program
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.jump_pid = self._daemon("jump", self.jump_port)
        self.start_target()
        self.write_config()

    def start_target(self) -> None:
        self.target_pid = self._daemon("target", self.target_port)

    def _daemon(self, role: str, port: int) -> int:
        key, config = self.folder / f"{role}_host", self.folder / f"{role}.conf"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {self.space.key}.pub\nPermitRootLogin yes\nPasswordAuthentication no\n"
            "UseDNS no\nMaxStartups 1000\nMaxSessions 1000\nPrintMotd no\nPrintLastLog no\n"
            f"Subsystem sftp {_SFTP_SERVER}\n"
        )
        return self.space.daemon(port, self._program, "-D", "-e", "-f", config)
