"""Milliseconds from a keystroke to its echo while another connection's stream runs flat out on the same server."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
import tty

from bench.figures import Figures, Wrong
from bench.peers import Peer

STROKES, WARM = 250, 20
_PAUSE = 0.008


def echo(peer: Peer, figures: Figures) -> None:
    """``cat`` at the other end echoes; ``cat /dev/zero`` floods the other connection."""
    figures.take(peer.name, lambda: _echo(peer), "ms", "keystroke echo p50", "keystroke echo p99")


def _echo(peer: Peer) -> tuple[float, float]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    flood = subprocess.Popen(
        peer.ssh("target", "cat /dev/zero", cipher=peer.ciphers[0]),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    client = subprocess.Popen(
        peer.ssh("target", "exec cat", cipher=peer.ciphers[0]), stdin=slave, stdout=slave, stderr=subprocess.DEVNULL
    )
    os.close(slave)
    try:
        for _ in range(WARM):  # until the login is over and the stream runs
            _stroke(master)
        times = sorted(_stroke(master) for _ in range(STROKES))
        if flood.poll() is not None:
            raise Wrong("the stream beside it ended")
    finally:
        for process in (client, flood):
            process.kill()
            process.wait()
        os.close(master)
    return times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000


def _stroke(master: int) -> float:
    begin = time.perf_counter()
    os.write(master, b"x")
    ready, _, _ = select.select([master], [], [], 15)
    if not ready:
        raise Wrong("no echo within 15 s")
    if os.read(master, 100) != b"x":
        raise Wrong("something else came back than was typed")
    took = time.perf_counter() - begin
    time.sleep(_PAUSE)
    return took
