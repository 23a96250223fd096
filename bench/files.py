"""Files through OpenSSH's ``sftp``: a large one each way, and a thousand small ones; compared with what was sent.

The connection stands before the clock starts but for small files, which are moved with and without the login; the SFTP
server's start is within.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.figures import Figures, Wrong
from bench.peers import Peer
from bench.processes import cpu_seconds

SMALL_FILES, SMALL_SIZE = 1000, 4096
_LARGE = 4  # times the size of the other transfers: 1 GiB unless told otherwise
_MB = 1e6
_TIMEOUT = 600


def _sftp(ssh: list[str], batch: str) -> None:
    """Run a batch on the connection that ``ssh`` names. CalledProcessError."""
    *options, host = ssh[1:]
    command = ["sftp", "-q", *options, "-b", "-", host]
    subprocess.run(
        command, input=batch, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=_TIMEOUT
    )


def _large(peer: Peer, way: str) -> tuple[float, float]:
    """MB/s, and MB for each second of processor time of the server and its children."""
    size = _LARGE * peer.space.size
    data, out = peer.space.data(size), peer.folder / "large"
    with peer.connected("target", peer.ciphers[0]) as ssh:
        cpu, begin = cpu_seconds(peer.target_pid), time.perf_counter()
        _sftp(ssh, f"{way} {data} {out}\n")
        took = time.perf_counter() - begin
        cpu = max(0.01, cpu_seconds(peer.target_pid) - cpu)
    same = peer.space.same(out, size)
    out.unlink()
    if not same:
        raise Wrong("other bytes arrived than were sent")
    return size / _MB / took, size / _MB / cpu


def large(peer: Peer, figures: Figures) -> None:
    """One large file each way, with the peer's first cipher."""
    if peer.serves_files:
        for way in ("get", "put"):
            names = (f"sftp {way}", f"sftp {way}, per CPU s")
            figures.take(peer.name, partial(_large, peer, way), "MB/s, MB", *names, more=True)


def _tree(peer: Peer) -> Path:
    """A folder with the small files; the same each time."""
    folder = peer.space.root / "small"
    if not folder.exists():
        folder.mkdir()
        for number in range(SMALL_FILES):
            (folder / f"{number:04}").write_bytes(os.urandom(SMALL_SIZE))
    return folder


def _small(peer: Peer, way: str, connected: bool) -> float:
    """Files a second."""
    folder, out = _tree(peer), peer.folder / "small"
    shutil.rmtree(out, ignore_errors=True)
    with ExitStack() as stack:
        ssh = peer.ssh("target", cipher=peer.ciphers[0])
        if connected:
            ssh = stack.enter_context(peer.connected("target", peer.ciphers[0]))
        begin = time.perf_counter()
        _sftp(ssh, f"{way} -r {folder} {out}\n")
        took = time.perf_counter() - begin
    names = sorted(os.listdir(folder))
    same, wrong, missing = filecmp.cmpfiles(folder, out, names, shallow=False)
    shutil.rmtree(out)
    if len(same) != SMALL_FILES:
        raise Wrong(f"of {SMALL_FILES} files {len(wrong)} arrived changed and {len(missing)} not at all")
    return SMALL_FILES / took


def small(peer: Peer, figures: Figures) -> None:
    """Small files each way, where the time goes into round trips: as a person runs ``sftp``, and without the login."""
    if peer.serves_files:
        for way in ("get", "put"):
            for connected in (False, True):
                name = f"small files {way}" + (", connected" if connected else "")
                figures.take(peer.name, partial(_small, peer, way, connected), "files/s", name, more=True)
