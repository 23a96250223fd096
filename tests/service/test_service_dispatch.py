"""The loop that calls what is ready, beside Twisted's own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.service.dispatch import without_log_context


@implementer(IReadDescriptor)
class Reader:
    """One end of a pair, at which a byte waits."""

    def __init__(self, read: Callable[[], object]) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.send(b"x")
        self.doRead = read
        self.lost: Failure | None = None

    def fileno(self) -> int:
        return self.ours.fileno()

    def logPrefix(self) -> str:
        raise AssertionError("nobody asks for the log's prefix")

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        self.close()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    made = EPollReactor()
    without_log_context(made)
    yield made
    for reader in made.removeAll():
        if hasattr(reader, "close"):
            reader.close()


def test_what_is_ready_reads(reactor: EPollReactor) -> None:
    """A connection's bytes are read, and the log's context is not made for it."""
    heard: list[bytes] = []
    reader = Reader(lambda: heard.append(reader.ours.recv(9)))
    reactor.addReader(reader)
    reactor.iterate(1)
    assert heard == [b"x"]


def test_what_was_closed_meanwhile_is_left_alone(reactor: EPollReactor) -> None:
    """Two connections are ready, and the first closes the second: nothing reads from a closed one."""
    heard: list[int] = []
    readers: list[Reader] = []

    def read(number: int) -> None:
        heard.append(number)
        for each in readers:
            reactor.removeReader(each)

    readers += [Reader(lambda number=number: read(number)) for number in range(2)]  # type: ignore[misc]
    for each in readers:
        reactor.addReader(each)
    reactor.iterate(1)
    assert len(heard) == 1
    for each in readers:
        each.close()


def test_one_that_breaks_is_lost_alone(reactor: EPollReactor) -> None:
    """A fault in one connection ends that connection, and the others go on."""
    heard: list[bytes] = []

    def broken() -> None:
        raise ZeroDivisionError

    bad, good = Reader(broken), Reader(lambda: heard.append(good.ours.recv(9)))
    reactor.addReader(bad)
    reactor.addReader(good)
    reactor.iterate(1)
    reactor.iterate(0)
    assert bad.lost is not None
    assert bad.lost.check(ZeroDivisionError)
    assert heard == [b"x"]


def test_a_timeout_of_none_waits() -> None:
    """With nothing planned, the process sleeps until something is ready, instead of spinning."""
    made = EPollReactor()
    without_log_context(made)
    waits: list[float] = []

    class Poller:
        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            waits.append(timeout)
            return []

    made._poller = Poller()
    made.doIteration(None)
    made.doIteration(0.5)
    assert waits == [-1, 0.5]


def test_other_reactors_are_left_alone() -> None:
    """A process with a poll or select reactor runs as before."""
    from twisted.internet.pollreactor import PollReactor

    made = PollReactor()
    before = made.doIteration
    without_log_context(made)
    assert made.doIteration == before
