"""Megabytes (10⁶ bytes) a second of files through OpenSSH's client, each compared byte by byte with what was sent.

The connection stands before the clock starts: a login takes as long as a hundred megabytes and has its own figures.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.figures import Figures, Wrong
from bench.peers import Peer
from bench.processes import cpu_seconds
from bench.workspace import MIB

_MB = 1e6
_SLOWEST = 1.5 * MIB  # bytes a second; slower is given up
Move = Callable[[Peer, list[str], int, int], float]


def _check(peer: Peer, path: Path, size: int) -> None:
    arrived = path.stat().st_size if path.exists() else 0
    same = arrived == size and peer.space.same(path, size)
    path.unlink(missing_ok=True)
    if not same:
        raise Wrong(f"of {size} bytes {arrived} arrived" if arrived != size else "other bytes arrived than were sent")


def down(peer: Peer, ssh: list[str], size: int, number: int) -> float:
    """Seconds for a file from the server to the client. Wrong, SubprocessError."""
    out, data = peer.folder / f"down-{number}", peer.space.data(size)
    begin = time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(
            [*ssh, f"cat {data}"],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, check=True, timeout=30 + size / _SLOWEST,
        )  # fmt: skip
    took = time.perf_counter() - begin
    _check(peer, out, size)
    return took


def up(peer: Peer, ssh: list[str], size: int, number: int) -> float:
    """Seconds for a file from the client to the server. Wrong, SubprocessError."""
    out, data = peer.folder / f"up-{number}", peer.space.data(size)
    begin = time.perf_counter()
    with data.open("rb") as file:
        subprocess.run(
            [*ssh, f"cat > {out}"],
            stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=30 + size / _SLOWEST,
        )  # fmt: skip
    took = time.perf_counter() - begin
    _check(peer, out, size)
    return took


_WAYS: tuple[tuple[str, Move], ...] = (("down", down), ("up", up))


def _rate(peer: Peer, host: str, pid: int, cipher: str, size: int, move: Move) -> tuple[float, float]:
    """MB/s, and MB for each second of processor time of a server's process, its children among them."""
    peer.space.data(size)
    with peer.connected(host, cipher) as ssh:
        cpu = cpu_seconds(pid)
        took = move(peer, ssh, size, 0)
        cpu = max(0.01, cpu_seconds(pid) - cpu)
        return size / _MB / took, size / _MB / cpu


def one_stream(peer: Peer, figures: Figures) -> None:
    """One stream each way, with each cipher that the peer has."""
    for cipher in peer.ciphers:
        short = cipher.split("@")[0].removesuffix("-poly1305")
        for way, move in _WAYS:
            rate = partial(_rate, peer, "target", peer.target_pid, cipher, peer.space.size, move)
            names = (f"{way} {short}", f"{way} {short}, per CPU s")
            figures.take(peer.name, rate, "MB/s, MB", *names, more=True)


def _four(peer: Peer, size: int, move: Move) -> float:
    peer.space.data(size)
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        lines = [stack.enter_context(peer.connected("target", peer.ciphers[0], number)) for number in range(4)]
        return 4 * size / _MB / max(pool.map(lambda number: move(peer, lines[number], size, number), range(4)))


def four_streams(peer: Peer, figures: Figures) -> None:
    """Four streams at once, each half the size on a connection of its own; all together, until the slowest ends."""
    size = max(MIB, peer.space.size // 2)
    for way, move in _WAYS:
        figures.take(peer.name, partial(_four, peer, size, move), "MB/s", f"four streams {way}", more=True)


def jump(peer: Peer, figures: Figures) -> None:
    """One stream through the peer's own jump host or proxy; the same cipher inside and outside."""
    size = max(MIB, int(peer.space.size * peer.jump_share))
    for way, move in _WAYS:
        rate = partial(_rate, peer, "via", peer.jump_pid, peer.ciphers[0], size, move)
        figures.take(peer.name, rate, "MB/s, MB", f"jump {way}", f"jump {way}, per jump's CPU s", more=True)
