"""Programs to forward to and from, on threads of their own, so that they run as blocking programs do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.worlds.node import ME, Client, World
from tests.worlds.waiting import until

T = TypeVar("T")
Address = tuple[str, int] | str


def address_family(address: Address) -> int:
    return socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def upper(sock: socket.socket) -> None:
    """Answers, behind the end of what it was sent, with the same in capitals."""
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    sock.sendall(data.upper())


def checksum(sock: socket.socket) -> None:
    """Answers, behind the end of what it was sent, with its SHA-256, and sends it back reversed by pieces."""
    digest = hashlib.sha256()
    while piece := sock.recv(1 << 16):
        digest.update(piece)
    sock.sendall(digest.hexdigest().encode())


@contextlib.contextmanager
def program(act: Callable[[socket.socket], None], address: Address = ("127.0.0.1", 0)) -> Iterator[socket.socket]:
    """A program that listens, and does ``act`` for each connection on a thread of its own."""
    listening = socket.socket(address_family(address))
    listening.bind(address)
    listening.listen(256)
    threads: list[threading.Thread] = []
    accepted: list[socket.socket] = []

    def one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            act(sock)

    def serve() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            accepted.append(sock)
            thread = threading.Thread(target=one, args=(sock,))
            threads.append(thread)
            thread.start()

    main = threading.Thread(target=serve)
    main.start()
    try:
        yield listening
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        main.join()
        listening.close()
        for sock in accepted:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def ssh_agent(path: Path) -> Iterator[dict[str, str]]:
    """A real ssh-agent with its socket at ``path``; the variables that lead to it."""
    with subprocess.Popen(["ssh-agent", "-s", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        try:
            # It says so after it listens. The socket is there before, and refuses until then.
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"SSH_AUTH_SOCK=")
            yield {"SSH_AUTH_SOCK": str(path)}
        finally:
            process.terminate()


def talk(address: Address, data: bytes, timeout: float = 20) -> bytes:
    """Connect, send ``data`` and its end, and give all that comes back."""
    with socket.socket(address_family(address)) as sock:
        sock.settimeout(timeout)
        sock.connect(address)
        sock.sendall(data)
        with contextlib.suppress(OSError):  # the other side may have closed already
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
    return answer


def ask(address: Address, data: bytes) -> Deferred[bytes]:
    """:func:`talk` beside the reactor."""
    return deferToThread(talk, address, data)


def free_port() -> int:
    """A port that is free on each address of the machine: others may use more than 127.0.0.1."""
    for _ in range(20):
        with socket.socket() as four:
            four.bind(("0.0.0.0", 0))
            port = int(four.getsockname()[1])
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as six:
                six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                six.bind(("::", port))
                return port
    raise AssertionError("no port is free")


def listens(address: Address) -> bool:
    with socket.socket(address_family(address)) as sock:
        return sock.connect_ex(address) == 0


def listeners(port: int) -> set[str]:
    """The addresses on which something of this machine listens."""
    found = set()
    for kind, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                words = struct.unpack(f">{len(address) // 8}I", bytes.fromhex(address))
                found.add(socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)))
    return found


def children(world: World) -> list[int]:
    """The processes that the node's launcher has started and that still are."""
    pid = world.node.parts.launcher.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def agent_folders() -> set[str]:
    return {name for name in os.listdir("/tmp") if name.startswith("ssh-")}


@define
class Master:
    """An ssh that stays (ControlMaster), so that forwardings can be asked for and cancelled."""

    world: World
    client: Client
    path: str
    login: str = ME
    results: list[Any] = field(factory=list)

    async def control(self, command: str, *options: str) -> Any:
        """``ssh -O command``."""
        result = await self.world.start(options=("-S", self.path, "-O", command, *options), login=self.login).done
        self.results.append(result)
        return result

    async def end(self) -> None:
        await self.control("exit")
        await self.client.done


async def master(world: World, *options: str, login: str = ME, env: dict[str, str] | None = None) -> Master:
    path = str(world.path / "control")
    client = world.start(
        options=("-M", "-S", path, "-N", "-o", "ExitOnForwardFailure=yes", *options), login=login, stdin=None, env=env
    )
    await until(lambda: client.done.called or os.path.exists(path))
    assert not client.done.called, client.err
    return Master(world, client, path, login)
