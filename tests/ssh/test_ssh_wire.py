"""The end of a connection: what was sent is delivered, however slowly the peer takes it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from teleconch.ssh.wire import SocketWire, StreamWire
from tests.worlds.reactor import port_of, reactor

SIZE = 8 << 20


class Sender(Protocol):
    """Sends everything and closes at once; its patience is short."""

    wire: SocketWire
    lost: Deferred[None]

    def connectionMade(self) -> None:
        self.lost = Deferred()
        self.wire = SocketWire(self, self.transport)  # type: ignore[arg-type]
        self.wire.send([bytes(SIZE)], SIZE)
        self.wire.close(0.4)

    def drained(self) -> None:
        pass

    def connectionLost(self, reason: Any = None) -> None:
        self.wire.gone()
        self.lost.callback(None)


async def _connected() -> tuple[Any, socket.socket, Sender]:
    factory = Factory.forProtocol(Sender)
    made: list[Sender] = []
    factory.buildProtocol = lambda addr: made.append(Sender()) or made[-1]
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    client = socket.create_connection(("127.0.0.1", port_of(port)))
    client.setblocking(False)
    while not made:
        await deferLater(reactor, 0.01)
    return port, client, made[0]


@pytest_twisted.ensureDeferred
async def test_a_slow_peer_gets_the_last_byte() -> None:
    """Who takes the rest slowly, longer than the patience in all, loses no byte of it."""
    port, client, sender = await _connected()
    got = 0
    while got < SIZE:
        await deferLater(reactor, 0.04)
        try:
            taken = len(client.recv(256 * 1024))
        except BlockingIOError:
            continue
        assert taken, f"the connection ended after {got} bytes"
        got += taken
    await sender.lost
    client.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_takes_nothing_is_let_go() -> None:
    """Who takes nothing at all does not hold a socket for ever."""
    port, client, sender = await _connected()
    await sender.lost
    client.close()
    await port.stopListening()


class HalfSender(Protocol):
    """Sends everything and its end, on a transport that is no TCP socket, and goes on listening."""

    heard = b""

    def connectionMade(self) -> None:
        self.wire = StreamWire(self, self.transport)
        self.wire.send([bytes(SIZE)], SIZE)
        self.wire.half_close()

    def choked(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def received(self, data: memoryview, end: int) -> int:
        self.heard += bytes(data[:end])
        return end

    def dataReceived(self, data: bytes) -> None:
        self.wire.data_received(data)


@pytest_twisted.ensureDeferred
async def test_half_of_a_unix_socket_ends(tmp_path: Path) -> None:
    """A program behind a forwarded Unix socket reads the end of what was sent, though it took its time, and answers."""
    made: list[HalfSender] = []
    factory = Factory()
    factory.buildProtocol = lambda addr: made.append(HalfSender()) or made[-1]
    port = await UNIXServerEndpoint(reactor, str(tmp_path / "socket")).listen(factory)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
        client.setblocking(False)
        got = 0
        for _ in range(1000):
            await deferLater(reactor, 0.005)
            try:
                taken = len(client.recv(256 * 1024))
            except BlockingIOError:
                continue
            if not taken:
                break
            got += taken
        else:
            raise AssertionError("no end came")
        assert got == SIZE
        client.send(b"answer")
        while not made[0].heard:
            await deferLater(reactor, 0.005)
        assert made[0].heard == b"answer"
    await port.stopListening()
