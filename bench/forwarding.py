"""Connections through OpenSSH's ``ssh -L`` to a small server beside the client."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from bench.figures import Figures, Wrong
from bench.peers import Peer
from bench.processes import cpu_seconds, free_port
from bench.workspace import MIB

PARALLEL = 200
PARALLEL_FORWARDS = f"-L, {PARALLEL} connections of 1 MiB"
_EACH = MIB  # bytes each of the parallel connections asks for
_MB = 1e6
_PIECE = memoryview(bytes(MIB))
_PATIENCE = 120


class Target:
    """Takes ``send N`` or ``take N``, and sends or takes so many bytes; ``done`` follows what was taken."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=PARALLEL)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rb", buffering=0) as lines:
        try:
            word, number = lines.readline().split()
            if word == b"send":
                send(connection, int(number))
            else:
                take(connection, int(number))
                connection.sendall(b"done")
        except OSError:  # the other side is gone, and says so itself
            return


def send(connection: socket.socket, size: int) -> None:
    while size:
        size -= connection.send(_PIECE[: min(size, len(_PIECE))])


def take(connection: socket.socket, size: int) -> None:
    """Wrong where fewer bytes come."""
    buffer = memoryview(bytearray(MIB))
    while size:
        got = connection.recv_into(buffer[: min(size, MIB)])
        if not got:
            raise Wrong(f"the connection ended {size} bytes early")
        size -= got


@contextmanager
def forwarded(peer: Peer) -> Iterator[int]:
    """The local end of an ``ssh -L`` that stands."""
    target, port = Target(), free_port()
    try:
        with peer.connected("target", peer.ciphers[0], forward=f"{port}:127.0.0.1:{target.port}"):
            yield port
    finally:
        target.close()


def _open(port: int, order: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    connection.sendall(order)
    return connection


def _rate(peer: Peer, way: str) -> tuple[float, float]:
    """MB/s, and MB for each second of the server's processor time."""
    size = peer.space.size
    with forwarded(peer) as port:
        cpu, begin = cpu_seconds(peer.target_pid), time.perf_counter()
        with _open(port, b"%s %d\n" % (b"send" if way == "down" else b"take", size)) as connection:
            if way == "down":
                take(connection, size)
            else:
                send(connection, size)
                take(connection, len(b"done"))
        took = time.perf_counter() - begin
        return size / _MB / took, size / _MB / max(0.01, cpu_seconds(peer.target_pid) - cpu)


def _parallel(peer: Peer) -> float:
    """Seconds until all connections, opened at once, have what they asked for."""
    with forwarded(peer) as port, selectors.DefaultSelector() as waiting, ThreadPoolExecutor(PARALLEL) as pool:
        begin = time.perf_counter()
        left = {}
        for connection in pool.map(lambda _: _open(port, b"send %d\n" % _EACH), range(PARALLEL)):
            left[connection] = _EACH
            waiting.register(connection, selectors.EVENT_READ, connection)
        buffer = bytearray(MIB)
        while left:
            ready = waiting.select(_PATIENCE)
            if not ready:
                raise Wrong(f"{len(left)} of {PARALLEL} connections stand still")
            for key, _ in ready:
                connection = key.data
                got = connection.recv_into(buffer)
                if not got and left[connection]:
                    raise Wrong(f"a connection ended {left[connection]} bytes early")
                left[connection] -= got
                if not left[connection]:
                    waiting.unregister(connection)
                    del left[connection]
                    connection.close()
        return time.perf_counter() - begin


def forward(peer: Peer, figures: Figures) -> None:
    """One connection flat out each way, and many at once."""
    if not peer.forwards:
        return
    for way in ("down", "up"):
        names = (f"-L {way}", f"-L {way}, per CPU s")
        figures.take(peer.name, partial(_rate, peer, way), "MB/s, MB", *names, more=True)
    figures.take(peer.name, lambda: _parallel(peer), "s", PARALLEL_FORWARDS)
