"""The record of moved files: what a child says, and what the log makes of it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import task

from teleconch.audit import events as audit
from teleconch.errors import BadParameter
from teleconch.node.files.report import DATAGRAM_MAX, PATH_MAX, TOGETHER, _datagram, record
from teleconch.node.files.transfers import Transfer, Transfers, parse
from teleconch.service.events import LogEmitter
from teleconch.sftp import packets as p
from tests.worlds.logs import add_observer, remove_observer
from tests.worlds.raw_sftp import Peer, string, tree, uint32, uint64
from tests.worlds.reactor import reactor


@given(
    st.sampled_from(["sftp", "scp"]),
    st.binary(max_size=PATH_MAX + 10),
    st.sampled_from(["read", "write"]),
    st.integers(0, 2**63 - 1),
    st.none() | st.text(max_size=300),
)
def test_records(event: str, path: bytes, action: str, size: int, error: str | None) -> None:
    """Whatever a file is called, its record is one line of ASCII, bounded, and its path in the log one line of text."""
    data = record(event, path, action, size, error)
    assert b"\n" not in data
    assert len(data) < DATAGRAM_MAX
    found = parse(data)
    assert (found.event, found.action, found.size, found.ok) == (event, action, size, error is None)
    assert found.path.isprintable()


def test_readable_paths() -> None:
    """A path in the log is as people write it; bytes that are no text, and those that would move the cursor, show."""
    path = "/tmp/grün und\n".encode() + b"\xff\x1b[1m"
    assert parse(record("scp", path, "read", 5, None)) == Transfer(
        "scp", "/tmp/grün und\\n\\xff\\x1b[1m", "read", 5, None
    )


GOOD = {"event": "sftp", "path": "/x", "action": "read", "size": 1, "ok": True, "error": None}


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"[" * 10_000,
        *(
            json.dumps(GOOD | change).encode()
            for change in (
                {"event": "session.start"},
                {"action": "delete"},
                {"size": -1},
                {"size": True},
                {"size": 1e300},
                {"size": 2**70},
                {"path": None},
                {"error": 5},
            )
        ),
        json.dumps({key: value for key, value in GOOD.items() if key != "path"}).encode(),
    ],
)
def test_lies(lie: bytes) -> None:
    """A user who writes nonsense to the socket makes no events of other kinds, and breaks nothing."""
    with pytest.raises(BadParameter):
        parse(lie)


@pytest_twisted.ensureDeferred
async def test_log() -> None:
    """Each record becomes an event with the session's fields, which a record cannot change; nonsense is told once."""
    events: list[dict[str, object]] = []
    transfers = Transfers(reactor, LogEmitter(), audit.Peer(user="alice"), "5")
    fd = transfers.take_child_end()
    add_observer(events.append)
    try:
        os.write(fd, b"nonsense")
        os.write(fd, b"nonsense")
        os.write(fd, json.dumps(GOOD | {"user": "bob", "sid": "6", "path": "a\nb"}).encode())
        await task.deferLater(reactor, 0.05)
        os.write(fd, json.dumps(GOOD | {"error": "cut off"}).encode())
        os.close(fd)
        transfers.close()
        transfers.close()
    finally:
        remove_observer(events.append)
    warnings = [each for each in events if "reported no file" in str(each.get("log_format"))]
    moved = [each for each in events if each.get("event") == "sftp"]
    assert len(warnings) == 1
    assert [(each["path"], each["user"], each["sid"], each["success"]) for each in moved] == [
        ("a\\nb", "alice", "5", True),
        ("/x", "alice", "5", False),
    ]


def test_reports_of_sftp(tmp_path: Path) -> None:
    """Each file is told when it is closed, with what was moved and what went wrong; one left open was cut off."""
    here = tree(tmp_path / "here")
    reading, writing = os.pipe()
    peer = Peer.ours(here, writing)
    os.close(writing)
    peer.begin()
    handle = peer.open(b"dir/../file")
    peer.ask(p.READ, handle, uint64(0), uint32(10))
    peer.ask(p.READ, handle, uint64(10), uint32(1000))
    peer.ask(p.CLOSE, handle)
    handle = peer.open(b"made", 1 | 2 | 8)
    peer.ask(p.WRITE, handle, uint64(0), string(b"hello"))
    peer.ask(p.CLOSE, handle)
    handle = peer.open(b"full", 2)
    peer.ask(p.WRITE, handle, uint64(0), string(b"hello"))
    peer.ask(p.CLOSE, handle)
    peer.ask(p.OPEN, string(b"nope"), uint32(1), uint32(0))
    handle = peer.open(b"empty", 2)
    peer.ask(p.WRITE, handle, uint64(0), string(b"hi"))
    peer.close()
    with open(reading, "rb") as file:
        said = file.read().replace(b"}{", b"}\n{").splitlines()
    found = [parse(each) for each in said]
    assert [(os.path.basename(each.path), each.action, each.size, each.ok) for each in found] == [
        ("file", "read", 100, True),
        ("made", "write", 5, True),
        ("full", "write", 0, False),
        ("nope", "read", 0, False),
        ("empty", "write", 2, False),
    ]
    assert found[0].path == str(here / "file")


def test_many_reports(tmp_path: Path) -> None:
    """A thousand small files cost some dozens of datagrams; none of them is lost, and none waits for long."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = tree(tmp_path / "here")
    peer = Peer.ours(here, theirs.fileno())
    theirs.close()
    peer.begin()

    def move(count: int) -> None:
        for _ in range(count):
            peer.ask(p.CLOSE, peer.open(b"file"))

    datagrams: list[bytes] = []
    move(1)
    ours.settimeout(10)
    datagrams.append(ours.recv(DATAGRAM_MAX))  # alone, after a moment, while the client does nothing
    for _ in range(10):
        move(100)
        ours.setblocking(False)
        while True:
            try:
                datagrams.append(ours.recv(DATAGRAM_MAX))
            except BlockingIOError:
                break
    peer.close()
    ours.setblocking(True)
    while data := ours.recv(DATAGRAM_MAX):
        datagrams.append(data)
    ours.close()
    assert datagrams[0].count(b"\n") == 0
    assert sum(1 + each.count(b"\n") for each in datagrams) == 1001
    assert len(datagrams) < 200


@given(st.lists(st.integers(1, DATAGRAM_MAX), min_size=1, max_size=100))
def test_datagrams(sizes: list[int]) -> None:
    """However long the paths are, a datagram is never longer than what is read at once."""
    records = [b"x" * size for size in sizes]
    told: list[bytes] = []
    while records:
        data, count = _datagram(records)
        assert len(data) <= DATAGRAM_MAX
        assert data.count(b"\n") == count - 1 < TOGETHER
        told += data.split(b"\n")
        del records[:count]
    assert list(map(len, told)) == sizes


@pytest_twisted.ensureDeferred
async def test_too_many_lines() -> None:
    """A datagram with more lines than ours have costs no more time than one of ours."""
    events: list[dict[str, object]] = []
    transfers = Transfers(reactor, LogEmitter(), audit.Peer(), "5")
    fd = transfers.take_child_end()
    add_observer(events.append)
    try:
        os.write(fd, b"\n".join([json.dumps(GOOD).encode()] * 300))
        os.close(fd)
        transfers.close()
    finally:
        remove_observer(events.append)
    assert len([each for each in events if each.get("event") == "sftp"]) == TOGETHER
