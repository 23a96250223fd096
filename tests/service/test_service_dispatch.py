"""The loop that calls what is ready, beside Twisted's own."""

from __future__ import annotations

import hashlib
import inspect
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer

import twisted
from teleconch.service.dispatch import KNOWN, straighten

# What the loop of teleconch.service.dispatch is instead of, or relies on.
REPLACED = (
    EPollReactor.doPoll,
    EPollReactor._doReadOrWrite,
    EPollReactor._disconnectSelectable,
    EPollReactor.callFromThread,
    EPollReactor.callLater,
    EPollReactor.mainLoop,
    EPollReactor.runUntilCurrent,
    EPollReactor.stop,
    EPollReactor.timeout,
)
READ = "1a37565e338707f41eb4fc42903df1b6147cb071a593d75f9c996393c0e5575a"


@implementer(IReadDescriptor)
class Reader:
    """One end of a pair, at which a byte waits."""

    def __init__(self, read: Callable[[], Any]) -> None:
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
    straighten(made)
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
    straighten(made)
    waits: list[float] = []

    class Poller:
        def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
            waits.append(timeout)
            return []

    made._poller = Poller()
    made.doIteration(None)
    made.doIteration(0.5)
    assert waits == [-1, 0.5]


def test_what_is_gone_does_not_live_on(running: EPollReactor) -> None:
    """A connection that broke is forgotten at once, with all that its error knows, though nothing else happens."""

    def broken() -> None:
        raise ZeroDivisionError

    reader = Reader(broken)
    running.addReader(reader)
    gone, seen = weakref.ref(reader), []
    del reader

    def look() -> None:
        seen.append(gone())
        running.callFromThread(running.stop)

    timer = threading.Timer(0.1, look)
    timer.start()
    with capturedLogs():
        run(running)
    assert seen == [None]


def test_other_reactors_are_left_alone() -> None:
    """A process with a poll or select reactor runs as before."""
    from twisted.internet.pollreactor import PollReactor

    made = PollReactor()
    before = made.doIteration
    straighten(made)
    assert made.doIteration == before


def test_the_twisted_here_is_known() -> None:
    """Whoever takes a new Twisted reads anew what its loop does: this fails until they have, and name its version."""
    assert twisted.__version__ in KNOWN
    text = "".join(inspect.getsource(each) for each in REPLACED)
    assert hashlib.sha256(text.encode()).hexdigest() == READ


@pytest.mark.parametrize("version", ["25.5.0", "27.1.0"])
def test_a_twisted_that_nobody_has_read_keeps_its_loop(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another Twisted, a daemon runs on that one's own loop, and its log says so."""
    monkeypatch.setattr(twisted, "__version__", version)
    made = EPollReactor()
    before = made.doIteration
    with capturedLogs() as events:
        straighten(made)
    assert made.doIteration == before
    assert [event["version"] for event in events] == [version]


ENOUGH = 20_000  # reads: a loop that never looks up from its descriptors gets there


class Busy(Reader):
    """A descriptor at which something always waits; ``read(n)`` is called each time."""

    def __init__(self, reactor: EPollReactor, read: Callable[[int], object]) -> None:
        self.count = 0

        def count() -> None:
            self.count += 1
            read(self.count)
            if self.count > ENOUGH:
                reactor.crash()

        super().__init__(count)
        reactor.addReader(self)


@pytest.fixture
def running() -> Iterator[EPollReactor]:
    """A reactor for ``run``. Whatever happens, it ends."""
    made = EPollReactor()
    straighten(made)
    made.callLater(20, made.crash)
    yield made
    for reader in made.removeAll():
        if hasattr(reader, "close"):
            reader.close()


def run(reactor: EPollReactor) -> None:
    """Run to its end; it must be stopped, and not crash."""
    reactor.run(installSignalHandlers=False)
    assert reactor._stopped


def test_timed_calls_come_in_time(running: EPollReactor) -> None:
    """A connection that always has something to read keeps no timed call waiting: neither an old one, nor one
    that is planned as it is read, which is not to wait for the old one."""
    called: list[tuple[str, int]] = []
    busy = Busy(running, lambda count: running.callLater(0, call, "new") if count == 5 else None)

    def call(name: str) -> None:
        called.append((name, busy.count))

    running.seconds = lambda: busy.count / 1000  # on any machine a read lasts a millisecond
    running.callLater(0.1, call, "old")
    running.callLater(0.2, running.stop)
    run(running)
    assert [name for name, _ in called] == ["new", "old"]
    assert called[0][1] < 10
    assert busy.count < 300


def test_a_timed_call_wakes_the_loop(running: EPollReactor) -> None:
    """With nothing to read, the loop sleeps until the next timed call; one that was put off comes when it is to."""
    called: list[str] = []
    late = running.callLater(0.01, called.append, "late")
    late.delay(0.1)
    running.callLater(0.05, called.append, "soon")
    running.callLater(0.2, running.stop)
    run(running)
    assert called == ["soon", "late"]


def test_calls_from_threads_are_heard(running: EPollReactor) -> None:
    """What a thread wants done is done at once, also beside a connection that always has something to read."""
    called: list[str] = []
    threads: list[threading.Thread] = []

    def done() -> None:
        called.append("heard")
        running.stop()

    def start(count: int) -> None:
        if count == 5:
            threads.append(threading.Thread(target=running.callFromThread, args=(done,)))
            threads[0].start()
            threads[0].join()

    busy = Busy(running, start)
    run(running)
    assert called == ["heard"]
    assert busy.count < 10


def test_stopped_by_what_was_read(running: EPollReactor) -> None:
    """A connection may stop the process, and nothing more is read then."""
    busy = Busy(running, lambda count: running.stop() if count == 3 else None)
    run(running)
    assert busy.count < 10


def test_a_far_timed_call() -> None:
    """A call in a hundred years is more than epoll can wait for, and does no harm."""
    made = EPollReactor()
    straighten(made)
    made.callLater(100 * 365 * 24 * 3600.0, lambda: None)
    busy = Busy(made, lambda count: made.stop() if count == 3 else None)
    with capturedLogs() as events:
        run(made)
    assert not [event for event in events if "log_failure" in event]
    busy.close()
