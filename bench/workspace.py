"""Keys, data and processes of one run, in memory-backed files where the machine has them."""

from __future__ import annotations

import ctypes
import filecmp
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import NotReady, listens

MIB = 1 << 20
_START_SECONDS = 30
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_the_benchmark() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Workspace:
    """A folder in memory, a client key, and files of random bytes that every transfer is compared with."""

    def __init__(self, size: int) -> None:
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(prefix="teleconch-bench-", dir=memory if memory.is_dir() else None))
        self.root.chmod(0o755)
        self.size = size
        self.key = self.root / "client"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}
        self._number = 0

    def data(self, size: int) -> Path:
        """A file of so many random bytes; the same one each time."""
        path = self.root / f"data-{size}"
        if not path.exists():
            with path.open("wb") as file:
                for at in range(0, size, MIB):
                    file.write(os.urandom(min(MIB, size - at)))
        return path

    def same(self, path: Path, size: int) -> bool:
        return filecmp.cmp(self.data(size), path, shallow=False)

    def daemon(self, port: int, *arguments: str | Path, env: dict[str, str] | None = None) -> int:
        """Start a server and wait until it listens; gives its process number. NotReady with what it said last."""
        self._number += 1
        log = self.root / f"{self._number}-{Path(str(arguments[0])).name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(each) for each in arguments], stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=_die_with_the_benchmark, env=env,
            )  # fmt: skip
        self._daemons[process.pid] = process
        deadline = time.monotonic() + _START_SECONDS
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                name, said = Path(str(arguments[0])).name, log.read_text(errors="replace").strip()[-500:]
                raise NotReady(f"{name} does not listen on port {port}: {said or 'it says nothing'}")
            time.sleep(0.05)
        return process.pid

    def end(self, pid: int) -> None:
        """End one server."""
        process = self._daemons.pop(pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        for process in self._daemons.values():
            process.send_signal(signal.SIGTERM)
        for pid in list(self._daemons):
            self.end(pid)
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def workspace(size: int) -> Iterator[Workspace]:
    """``size`` of the largest transfer, in bytes. Cleans up at SIGTERM, too."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for servers with thousands of connections
    before = signal.signal(signal.SIGTERM, lambda *_: exit(143))
    space = Workspace(size)
    try:
        yield space
    finally:
        space.close()
        signal.signal(signal.SIGTERM, before)
