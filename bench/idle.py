"""Memory of idle connections: PSS of the server and its children, in a process that has served nothing else."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Figures, Wrong
from bench.peer_teleconch import Teleconch
from bench.peers import Peer
from bench.processes import connections_to, pss, wait_until_idle

FEW, MANY = 100, 5000
_LOGINS = 7


def idle(peer: Peer, figures: Figures) -> None:
    """Of 100 connections of OpenSSH's client."""

    def each() -> float:
        peer.fresh_target()
        wait_until_idle(peer.target_pid)
        before = pss(peer.target_pid)
        command = [*peer.ssh("target")[:-1], "-N", "target"]
        clients = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(FEW)]
        try:
            deadline = time.monotonic() + 60
            while connections_to(peer.target_port) < FEW:
                if time.monotonic() > deadline:
                    raise Wrong(f"{connections_to(peer.target_port)} of {FEW} connections stand after 60 s")
                time.sleep(0.2)
            wait_until_idle(peer.target_pid)  # all are logged in
            if (stand := connections_to(peer.target_port)) != FEW:
                raise Wrong(f"{stand} of {FEW} connections stand")
            return (pss(peer.target_pid) - before) / 1024 / FEW
        finally:
            for client in clients:
                client.kill()
            for client in clients:
                client.wait()

    figures.take(peer.name, each, "KiB", f"idle connection, of {FEW}")


def many(peer: Peer, figures: Figures, count: int = MANY) -> None:
    """Of 5,000 connections of a light client of ours in another process; and ``ssh HOST true`` beside them."""
    if not isinstance(peer, Teleconch):
        return

    def each() -> tuple[float, float, float]:
        peer.fresh_target()
        wait_until_idle(peer.target_pid)
        before = pss(peer.target_pid)
        client = subprocess.Popen(
            [
                sys.executable, "-m", "bench.light_client",
                str(peer.target_port), peer.key, peer.certificate or "", str(count),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        try:
            assert client.stdout is not None
            assert client.stderr is not None
            if client.stdout.readline() != "all\n":
                raise Wrong(f"the light client ended: {client.stderr.read()[-500:]}")
            wait_until_idle(peer.target_pid)
            if (stand := connections_to(peer.target_port)) != count:
                raise Wrong(f"{stand} of {count} connections stand")
            size = (pss(peer.target_pid) - before) / 1024 / count
            took = []
            for _ in range(_LOGINS):
                begin = time.perf_counter()
                peer.run("target", "true")
                took.append((time.perf_counter() - begin) * 1000)
            return size, statistics.median(took), max(took)
        finally:
            client.kill()
            client.communicate()

    beside = f"ssh HOST true beside {count}"
    figures.take(peer.name, each, "KiB, ms, ms", f"idle connection, of {count}", beside, f"{beside}, slowest")
