"""Keys, data and processes of one run, in memory-backed files where the machine has them."""

from __future__ import annotations

import filecmp
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOGIN = getpass.getuser()
CLIENT_OPTIONS = """\
    User {login}
    IdentityFile {key}
    IdentitiesOnly yes
    IdentityAgent none
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    LogLevel ERROR
    ControlPath none
    BatchMode yes
    Compression no
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living children and those that it has waited for."""
    total = 0.0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def pss(pid: int) -> int:
    """Proportional set size of a process and its descendants, in bytes."""
    total = 0
    for each in tree(pid):
        try:
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


class Workspace:
    """A folder in memory, a client key, and files of random bytes that every transfer is compared with."""

    def __init__(self, size: int) -> None:
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(prefix="teleconch-bench-", dir=memory if memory.is_dir() else None))
        self.root.chmod(0o755)
        self.size = size
        self.key = self.root / "client"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.data = self.root / "data"
        with self.data.open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        self._daemons: list[subprocess.Popen[bytes]] = []

    def daemon(self, *arguments: str | Path, **how: object) -> int:
        """Start a server; gives its process number. Its output goes to a file beside the data."""
        log = (self.root / f"{Path(str(arguments[0])).name}-{len(self._daemons)}.log").open("wb")
        process = subprocess.Popen(
            [str(each) for each in arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True, **how,
        )  # fmt: skip
        self._daemons.append(process)
        return process.pid

    def same(self, other: Path) -> bool:
        return filecmp.cmp(self.data, other, shallow=False)

    def close(self) -> None:
        for process in self._daemons:
            process.send_signal(signal.SIGTERM)
        for process in self._daemons:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def workspace(size: int) -> Iterator[Workspace]:
    space = Workspace(size)
    try:
        yield space
    finally:
        space.close()


def wait_for_port(port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on port {port} after {seconds:.0f} s") from None
            time.sleep(0.05)
        else:
            return
