"""New connections: what one costs the server, and how long a person waits for one."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from bench.figures import Figures, Wrong
from bench.peer_teleconch import BIN, NODE, Teleconch
from bench.peers import LOGIN, Peer
from bench.processes import cpu_seconds, wait_until_idle

ABREAST = 4
TSH_RUNS = 20


def connections(peer: Peer, figures: Figures, seconds: float = 2.5) -> None:
    """Logins by several OpenSSH clients at a time.

    A client costs 15 to 30 ms of processor time, which is more than a light server does: on two cores, clients and
    server together, the rate says more about the client. What a server could do is told by its processor time per
    login (its children's too): ``logins per CPU second`` is what one core serves if it does nothing else.
    """
    # Logged in, a client kills itself from LocalCommand: its end by this signal proves that the login was one.
    command = [
        *peer.ssh("target")[:-1], "-N", "-o", "PermitLocalCommand=yes", "-o", "LocalCommand=kill -KILL $PPID", "target",
    ]  # fmt: skip
    env = {**os.environ, "SHELL": "/bin/sh"}

    def connect(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False, env=env
            )
            if ended.returncode != -signal.SIGKILL:
                raise Wrong(f"a login failed: {ended.stderr.decode(errors='replace').strip()}")
            done += 1
        return done

    def rates() -> tuple[float, float]:
        cpu, begin = cpu_seconds(peer.target_pid), time.perf_counter()
        with ThreadPoolExecutor(ABREAST) as pool:
            done = sum(pool.map(connect, [begin + seconds] * ABREAST))
        wall = time.perf_counter() - begin
        wait_until_idle(peer.target_pid)  # the last ones are buried
        return done / wall, done / max(0.01, cpu_seconds(peer.target_pid) - cpu)

    figures.take(peer.name, rates, "/s", f"logins, {ABREAST} ssh at a time", "logins per CPU second", more=True)


def _median_ms(peer: Peer, host: str, count: int) -> float:
    took = []
    for _ in range(count):
        begin = time.perf_counter()
        peer.run(host, "true")
        took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1000


def run_true(peer: Peer, figures: Figures, count: int = 8) -> None:
    """``ssh HOST true``, median of some runs, direct and through the jump host."""
    figures.take(peer.name, lambda: _median_ms(peer, "target", count), "ms", "ssh HOST true")
    figures.take(peer.name, lambda: _median_ms(peer, "via", count), "ms", "ssh -J JUMP HOST true")


def tsh(peer: Peer, figures: Figures) -> None:
    """``tsh ssh NODE true`` beside ``ssh -J`` to the same node, in turn, medians."""
    if not isinstance(peer, Teleconch):
        return
    command = [str(BIN / "tsh"), "ssh", f"{LOGIN}@{NODE}", "true"]

    def medians() -> tuple[float, float, float]:
        peer.log_in()
        times: dict[bool, list[float]] = {True: [], False: []}
        for number in range(2 * TSH_RUNS + 2):
            ours = number % 2 == 0
            begin = time.perf_counter()
            subprocess.run(
                command if ours else peer.ssh("via", "true"), env=peer.env,
                stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60,
            )  # fmt: skip
            if number > 1:  # the first of each warms the caches
                times[ours].append(time.perf_counter() - begin)
        theirs, own = statistics.median(times[False]) * 1000, statistics.median(times[True]) * 1000
        return own, theirs, own / theirs

    figures.take(peer.name, medians, "ms, ms, ratio", "tsh ssh NODE true", "ssh -J to that node", "tsh ÷ ssh -J")
