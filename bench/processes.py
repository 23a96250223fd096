"""What a server's processes have used: processor time, memory, connections, ports."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

_ESTABLISHED = "01"
_given: set[int] = set()  # ports that this process has handed out


class NotReady(Exception):
    """A server did not come up, or did not come to rest."""


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


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its living descendants and those that were waited for."""
    total = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return total / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> int:
    """Proportional set size of a process and its descendants, in bytes."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def connections_to(port: int) -> int:
    """How many connections to a local port are established."""
    end = f":{port:04X}"
    count = 0
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            count += fields[1].endswith(end) and fields[3] == _ESTABLISHED
    return count


def wait_until_idle(pid: int, seconds: float = 60) -> None:
    """Until a server has used no processor time for a second. NotReady."""
    deadline, last, still = time.monotonic() + seconds, cpu_seconds(pid), 0
    while still < 4:
        if time.monotonic() > deadline:
            raise NotReady(f"process {pid} is still busy after {seconds:.0f} s")
        time.sleep(0.25)
        now = cpu_seconds(pid)
        still, last = (still + 1 if now - last < 0.015 else 0), now


def free_port() -> int:
    """A port that nobody has, below the range from which the kernel takes outgoing ones."""
    while True:
        port = random.randrange(20000, 32000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
