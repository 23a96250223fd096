"""The words of a session, on a screen that the test makes: nothing of tsh's console is needed for one."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from teleconch.client.session import Session, SessionRequest, Terminal
from teleconch.client.session_channel import UNSHOWN_MAX, SessionChannel
from teleconch.codec import boolean, string, uint32
from teleconch.errors import AccessDenied, ConnectionProblem
from teleconch.ssh import limits
from tests.worlds.node import World, running_node
from tests.worlds.reactor import reactor


class Page:
    """A screen as one in a browser would be: it has a size, is typed at, and shows what comes when it gets to it."""

    def __init__(self, request: SessionRequest | None, interactive: bool = True) -> None:
        self.session = Session(request, self)
        self.size = (100, 30, 800, 600)
        self.interactive = interactive
        self.told: list[str] = []
        self.shown, self.errors = bytearray(), bytearray()
        self.prompt = True  # whether it shows what comes at once
        self.unshown = self.most = 0
        self.over: Deferred[None] = Deferred()
        self._wanted: tuple[bytes, Deferred[None]] | None = None

    def terminal(self) -> Terminal:
        return Terminal("xterm-256color", self.size)

    def terminal_given(self) -> None:
        self.told.append("terminal")

    def begun(self) -> None:
        self.told.append("begun")

    def output(self, data: bytes) -> None:
        self.shown += data
        self.unshown += len(data)
        self.most = max(self.most, self.unshown)
        if self.prompt:
            self.catch_up()
        if self._wanted is not None and self._wanted[0] in self.shown:
            wanted, self._wanted = self._wanted, None
            wanted[1].callback(None)

    def error(self, data: bytes) -> None:
        self.errors += data
        self.session.consumed(len(data))

    def catch_up(self) -> None:
        count, self.unshown = self.unshown, 0
        self.session.consumed(count)

    def warn(self, sentence: str) -> None:
        self.told.append(sentence)

    def ended(self) -> None:
        self.told.append("ended")
        self.over.callback(None)

    def until(self, text: bytes) -> Deferred[None]:
        self._wanted = (text, Deferred())
        deferred = self._wanted[1].addTimeout(20, reactor)
        self.output(b"")
        return deferred


class Wire:
    """A link that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def write_eof(self) -> None:
        self.sent.append("eof")

    def close(self) -> None:
        self.sent.append("close")

    def credit(self, count: int) -> None:
        self.sent.append(count)

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        self.sent.append((name, data, wants_answer))

    def rekey(self) -> None:
        self.sent.append("rekey")

    def ways(self) -> list[str]:
        return ["session"]


def begin(request: SessionRequest | None, *answers: bool, interactive: bool = True) -> tuple[Page, Wire]:
    page, wire = Page(request, interactive), Wire()
    page.session.opened(wire)
    for answer in answers:
        page.session.answered(answer)
    return page, wire


SIZE = struct.pack(">IIII", 100, 30, 800, 600)
PTY = (b"pty-req", string(b"xterm-256color") + SIZE + string(b"\0"), True)


@pytest.mark.parametrize(
    ("request_", "sent"),
    [
        (SessionRequest(None, True), [PTY, (b"shell", b"", True)]),
        (SessionRequest("ls ä", False), [(b"exec", string("ls ä".encode()), True)]),
        (SessionRequest("sftp", False, subsystem=True), [(b"subsystem", string(b"sftp"), True)]),
        (
            SessionRequest("x", True, environment=(("LANG", "C"),), agent=True),
            [
                (b"auth-agent-req@openssh.com", b"", True),
                (b"env", string(b"LANG") + string(b"C"), False),
                PTY,
                (b"exec", string(b"x"), True),
            ],
        ),
        (SessionRequest(None, False, place=("db", 5432)), []),
        (None, ["close"]),
    ],
)
def test_what_is_asked(request_: SessionRequest | None, sent: list[Any]) -> None:
    """The node is asked for the agent, the terminal and the program in this order, and for nothing else."""
    _page, wire = begin(request_)
    assert wire.sent == sent


def test_terminal() -> None:
    """Keys, sizes and breaks go to the node once the shell runs; no new size before there is one to change."""
    page, wire = begin(SessionRequest(None, True))
    page.session.resize()
    assert not page.session.takes_input
    page.session.answered(True)
    page.session.answered(True)
    assert page.told == ["terminal", "begun"]
    assert page.session.takes_input
    del wire.sent[:]
    page.size = (80, 24, 0, 0)
    page.session.resize()
    page.session.send(b"k")
    page.session.send_break()
    page.session.rekey()
    page.session.end_input()
    resized = (b"window-change", struct.pack(">IIII", 80, 24, 0, 0), False)
    assert wire.sent == [resized, b"k", (b"break", uint32(1000), False), "rekey", "eof"]
    assert not page.session.takes_input
    assert page.session.ways() == ["session"]


def test_nothing_is_credited_before_it_is_shown() -> None:
    """What a screen did not show yet keeps the node from sending."""
    page, wire = begin(SessionRequest("x", False), True)
    page.prompt = False
    page.session.data(b"12345")
    page.session.error_data(b"123")
    assert wire.sent[1:] == [3]
    page.catch_up()
    assert wire.sent[2:] == [5]


@pytest.mark.parametrize(
    ("request_", "answers", "problem", "warned"),
    [
        (SessionRequest("x", False), [False], "refused to start the command", None),
        (SessionRequest(None, False), [False], "refused to start a shell", None),
        (SessionRequest("s", False, subsystem=True), [False], "refused to start the subsystem s", None),
        (SessionRequest("x", True, forced=True), [False, True], "gives you no terminal", None),
        (SessionRequest("x", True), [False, True], None, "Going on without"),
        (SessionRequest("x", False, agent=True), [False, True], None, "does not forward your ssh-agent"),
    ],
)
def test_refusals(request_: SessionRequest, answers: list[bool], problem: str | None, warned: str | None) -> None:
    """A refusal is told; the session ends where there is nothing left of it."""
    page, wire = begin(request_, *answers)
    assert [sentence for sentence in page.told if "ode " in sentence] == [
        sentence for sentence in page.told if warned and warned in sentence
    ]
    assert bool(warned) == any("ode " in sentence for sentence in page.told)
    if problem is None:
        assert page.session.takes_input
        return
    assert "close" in wire.sent
    page.session.closed()
    with pytest.raises(AccessDenied, match=problem):
        page.session.result()


@pytest.mark.parametrize(
    ("requests", "interactive", "result"),
    [
        ([(b"exit-status", uint32(7))], True, 7),
        ([(b"exit-status", uint32(263))], True, 7),
        ([(b"exit-status", b"\0\0")], True, "connection to the node was lost"),
        ([], True, "connection to the node was lost"),
        ([(b"exit-signal", string(b"KILL") + boolean(False) + string(b"") * 2)], True, "by the signal KILL"),
        ([(b"exit-signal", string(b"INT") + boolean(False) + string(b"") * 2)], True, 255),
        ([(b"exit-signal", string(b"INT") + boolean(False) + string(b"") * 2)], False, "by the signal INT"),
        ([(b"exit-signal", string(b"K" * 99))], True, "by the signal " + "K" * 32 + r"\."),
        ([(b"exit-signal", uint32(99) + b"KILL")], True, "connection to the node was lost"),
        ([(b"hello", b""), (b"exit-status", uint32(0))], True, 0),
    ],
)
def test_how_it_ends(requests: list[tuple[bytes, bytes]], interactive: bool, result: int | str) -> None:
    """The status is the command's; a signal is told, and what the node garbles is as if it had not been said."""
    page, _wire = begin(SessionRequest("x", True), True, True, interactive=interactive)
    for name, data in requests:
        page.session.request(name, data)
    page.session.closed()
    page.session.closed()
    assert page.told.count("ended") == 1
    if isinstance(result, int):
        assert page.session.result() == result
    else:
        with pytest.raises(ConnectionProblem, match=result):
            page.session.result()


def test_other_ends() -> None:
    """A person may leave at any time; a channel that is not opened, a way through and a screen that breaks end too."""
    page, _wire = begin(SessionRequest(None, True), True, True)
    page.session.leave()
    page.session.closed()
    assert (page.session.result(), page.told[-1], page.told.count("ended")) == (255, "ended", 1)
    page, _wire = begin(None)
    page.session.closed()
    assert page.session.result() == 0
    page = Page(SessionRequest(None, True))
    page.session.refused("Not today.")
    with pytest.raises(AccessDenied, match=r"Not today\."):
        page.session.result()
    page, wire = begin(SessionRequest(None, False, place=("db", 5432)))
    assert page.told == ["begun"]
    page.session.eof()
    assert wire.sent == ["close"]
    assert not page.session.takes_input
    page.session.closed()
    assert page.session.result() == 0
    page, wire = begin(SessionRequest("x", False), True)
    page.session.fail(OSError(28, "No space left on device"))
    page.session.closed()
    assert wire.sent[-1] == "close"
    with pytest.raises(OSError, match="No space"):
        page.session.result()


# -- on a node


@pytest_twisted.async_yield_fixture
async def node(tmp_path: Path) -> AsyncIterator[World]:
    world = await running_node(tmp_path)
    yield world
    await world.close()


async def show(node: World, page: Page) -> Any:
    connection = await node.connect()
    await connection.open(SessionChannel(page.session))
    return connection


@pytest_twisted.ensureDeferred
async def test_second_screen(node: World) -> None:
    """A shell in a page: typed at, resized, ended, with its status."""
    page = Page(SessionRequest(None, True, environment=(("LANG", "C.UTF-8"),)))
    connection = await show(node, page)
    page.session.send(b"PS1=; stty size; echo $TERM.$LANG\n")
    await page.until(b"30 100\r\nxterm-256color.C.UTF-8")
    page.size = (132, 43, 0, 0)
    page.session.resize()
    page.session.send(b"stty size\n")
    await page.until(b"43 132")
    page.session.send(b"echo err >&2; exit 7\n")
    await page.over
    assert page.session.result() == 7
    assert page.errors == b""  # a terminal has one stream
    connection.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_slow_screen(node: World) -> None:
    """A page that shows nothing for a while holds the command, and loses nothing."""
    page = Page(SessionRequest("head -c 8000000 /dev/zero; echo err >&2", False))
    page.prompt = False
    connection = await show(node, page)
    while not page.session.over or page.unshown:
        before = page.unshown
        await deferLater(reactor, 0.01, lambda: None)
        if page.unshown == before:
            page.catch_up()
    assert (len(page.shown), bytes(page.errors), page.session.result()) == (8_000_000, b"err\n", 0)
    assert page.most <= UNSHOWN_MAX + limits.CHANNEL_WINDOW  # at the end the rest comes at once
    connection.transport.loseConnection()
