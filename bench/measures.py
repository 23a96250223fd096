"""What is measured. Each function runs one round of one measure on one peer and gives its figures by name."""

from __future__ import annotations

import os
import pty
import select
import statistics
import subprocess
import time
import tty
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.peers import Peer
from bench.workspace import cpu_seconds, pss

Figures = dict[str, float]
MB = 1e6


class Wrong(Exception):
    """A transfer did not deliver what was sent, or nothing came back."""


def _check(peer: Peer, path: Path) -> None:
    same, size = peer.space.same(path), path.stat().st_size
    path.unlink()
    if not same:
        raise Wrong(f"{peer.name}: of {peer.space.size} bytes {size} arrived, or others than were sent")


def _down(peer: Peer, host: str, cipher: str, number: int = 0) -> float:
    """Seconds for the data file from the server to the client."""
    out = peer.folder / f"down-{number}"
    begin = time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(
            peer.ssh(host, f"cat {peer.space.data}", cipher=cipher), stdout=file, stdin=subprocess.DEVNULL, check=True
        )
    took = time.perf_counter() - begin
    _check(peer, out)
    return took


def _up(peer: Peer, host: str, cipher: str, number: int = 0) -> float:
    out = peer.folder / f"up-{number}"
    begin = time.perf_counter()
    with peer.space.data.open("rb") as file:
        subprocess.run(peer.ssh(host, f"cat > {out}", cipher=cipher), stdin=file, check=True)
    took = time.perf_counter() - begin
    _check(peer, out)
    return took


def one_stream(peer: Peer) -> Figures:
    """MB/s of one stream each way, per cipher."""
    figures = {}
    for cipher in peer.ciphers:
        short = cipher.split("@")[0]
        figures[f"down {short}"] = peer.space.size / MB / _down(peer, "target", cipher)
        figures[f"up {short}"] = peer.space.size / MB / _up(peer, "target", cipher)
    return figures


def four_streams(peer: Peer) -> Figures:
    """MB/s of four streams at once, each on its own connection, together."""
    cipher = peer.ciphers[0]
    figures = {}
    with ThreadPoolExecutor(4) as pool:
        for name, one in (("4 down", _down), ("4 up", _up)):
            begin = time.perf_counter()
            list(pool.map(lambda number, one=one: one(peer, "target", cipher, number), range(4)))
            figures[name] = 4 * peer.space.size / MB / (time.perf_counter() - begin)
    return figures


def jump(peer: Peer) -> Figures:
    """MB/s of one stream through the peer's own jump host or proxy."""
    cipher = peer.ciphers[0]
    return {
        "jump down": peer.space.size / MB / _down(peer, "via", cipher),
        "jump up": peer.space.size / MB / _up(peer, "via", cipher),
    }


def connections(peer: Peer, count: int = 40, abreast: int = 4) -> Figures:
    """New connections: as many a second as OpenSSH clients on the same machine make, and what one costs the server.

    The clients are heavier than a light server, so ``per server CPU second`` is the figure that compares servers.
    """
    quick = ["-o", "PermitLocalCommand=yes", "-o", "LocalCommand=kill $PPID", "-N"]
    command = [*peer.ssh("target")[:-1], *quick, "target"]

    def connect(_: int) -> None:
        subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    connect(0)
    cpu, begin = cpu_seconds(peer.target_pid), time.perf_counter()
    with ThreadPoolExecutor(abreast) as pool:
        list(pool.map(connect, range(count)))
    wall = time.perf_counter() - begin
    time.sleep(0.3)  # the server reaps its children
    cpu = cpu_seconds(peer.target_pid) - cpu
    return {"connections/s": count / wall, "connections per server CPU s": count / max(cpu, 0.01)}


def run_true(peer: Peer, count: int = 10) -> Figures:
    """Milliseconds of ``ssh HOST true``, median, direct and through the jump host."""
    figures = {}
    for host, name in (("target", "true ms"), ("via", "true via jump ms")):
        took = []
        for _ in range(count):
            begin = time.perf_counter()
            subprocess.run(peer.ssh(host, "true"), stdin=subprocess.DEVNULL, check=True)
            took.append(time.perf_counter() - begin)
        figures[name] = statistics.median(took) * 1000
    return figures


def idle(peer: Peer, count: int = 100) -> Figures:
    """KiB of server memory (PSS, children too) per idle connection."""
    before = pss(peer.target_pid)
    clients = [
        subprocess.Popen([*peer.ssh("target")[:-1], "-N", "target"], stdin=subprocess.DEVNULL) for _ in range(count)
    ]
    try:
        _settle(lambda: pss(peer.target_pid))
        return {"idle KiB": (pss(peer.target_pid) - before) / 1024 / count}
    finally:
        for client in clients:
            client.terminate()
        for client in clients:
            client.wait()


def _settle(read: Callable[[], int], seconds: float = 30) -> None:
    """Wait until a figure has stopped to move."""
    last, still, deadline = read(), 0, time.monotonic() + seconds
    while still < 4 and time.monotonic() < deadline:
        time.sleep(0.5)
        now = read()
        still = still + 1 if abs(now - last) < 65536 else 0
        last = now


def echo(peer: Peer, count: int = 400) -> Figures:
    """Milliseconds from a keystroke to its echo while another connection's stream runs flat out."""
    flood = subprocess.Popen(
        peer.ssh("target", "cat /dev/zero", cipher=peer.ciphers[0]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    master, slave = pty.openpty()
    tty.setraw(slave)
    client = subprocess.Popen(
        peer.ssh("target", "exec cat", cipher=peer.ciphers[0]), stdin=slave, stdout=slave, stderr=subprocess.DEVNULL
    )
    os.close(slave)
    took = []
    try:
        for number in range(count + 20):
            begin = time.perf_counter()
            os.write(master, b"x")
            ready, _, _ = select.select([master], [], [], 10)
            if not ready:
                raise Wrong(f"{peer.name}: no echo within 10 s")
            os.read(master, 100)
            if number >= 20:
                took.append(time.perf_counter() - begin)
            time.sleep(0.01)
    finally:
        for process in (client, flood):
            process.terminate()
            process.wait()
        os.close(master)
    took.sort()
    return {"echo p50 ms": took[len(took) // 2] * 1000, "echo p99 ms": took[int(len(took) * 0.99)] * 1000}


MEASURES: dict[str, Callable[[Peer], Figures]] = {
    "stream": one_stream,
    "four": four_streams,
    "jump": jump,
    "connections": connections,
    "true": run_true,
    "idle": idle,
    "echo": echo,
}
