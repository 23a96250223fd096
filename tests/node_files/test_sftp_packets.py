"""The packets of SFTP, and servers that are sent nonsense."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teleconch.sftp import packets as p
from teleconch.sftp.packets import Reader
from tests.worlds.raw_sftp import Peer, code, string, tree, uint32, uint64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("sftp") / "here")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([3, 4, 5, 6, 7, 8, 11, 12, 16, 17, 19, 99, 200, 255]), st.binary(max_size=60)))
)
def test_nonsense(folder: Path, requests: list[tuple[int, bytes]]) -> None:
    """Whatever bytes a request holds, it gets one answer and the server goes on."""
    peer = Peer.ours(folder)
    try:
        peer.begin()
        for type, body in requests:
            assert peer.ask(type, body)[0] in (101, 102, 103, 104, 105, 201)
        assert peer.ask(p.STAT, string(b"file"))[0] == p.ATTRS
    finally:
        assert peer.close() == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (struct.pack(">LBL", 5, 17, 1), 255),
        (b"\xff" * 9, 11),
        (struct.pack(">LB", 1, 1), 255),
        (struct.pack(">LBL", 256 * 1024 + 1, 1, 3), 11),
        (b"\0\0", 0),
    ],
)
def test_no_protocol(folder: Path, sent: bytes, status: int) -> None:
    """A peer that does not speak SFTP is left, with the exit status of OpenSSH's server."""
    peer = Peer.ours(folder)
    peer.send(sent)
    assert peer.close() == status


def test_many_requests_at_once(folder: Path) -> None:
    """A client that sends many requests before it reads gets all its answers, in order."""
    peer = Peer.ours(folder)
    peer.begin()
    handle = peer.open(b"file")
    ids = [peer.post(p.READ, handle, uint64(number), uint32(3)) for number in range(90)]
    for number, id in enumerate(ids):
        reply = peer.receive()
        assert reply[1:5] == uint32(id)
        assert reply[9:] == b"".join(b"%d" % (n % 10) for n in range(number, number + 3))
    peer.close()


def test_requests_in_pieces(folder: Path) -> None:
    """Packets that arrive byte by byte, or begin in one read and end in the next, are put together."""
    peer = Peer.ours(folder)
    peer.begin()
    handle = peer.open(b"pieces", 2 | 8)
    data = os.urandom(200_000)
    body = b"\x06" + uint32(5) + handle + uint64(0) + string(data)
    packet = uint32(len(body)) + body
    stat = b"\x11" + uint32(6) + string(b"pieces")
    stream = packet * 4 + (uint32(len(stat)) + stat) * 3
    for at in range(0, len(stream), 70_001):
        peer.send(stream[at : at + 70_001])
    for _ in range(4):
        assert code(peer.receive()[:1] + uint32(0)) == p.OK
    assert int.from_bytes(peer.receive()[9:17], "big") == len(data)
    peer.close()
    assert (folder / "pieces").read_bytes() == data


def test_handles_have_a_limit(folder: Path) -> None:
    """A client that opens without end is refused, and not the whole machine with it."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        peer = Peer.ours(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    peer.begin()
    limit = int.from_bytes(peer.extended("limits@openssh.com")[25:33], "big")
    assert limit == 59
    opened = 0
    while (reply := peer.ask(p.OPEN, string(b"file"), uint32(1), uint32(0)))[0] == p.HANDLE:
        opened += 1
    assert (code(reply), 50 <= opened <= limit) == (p.FAILURE, True)
    assert peer.ask(p.CLOSE, string(uint32(0)))[0] == p.STATUS
    assert peer.open(b"file")
    peer.close()


def test_failures_say_why(folder: Path) -> None:
    """What has no code of its own in SFTP is told in words: a full disk above all; what has one, in OpenSSH's."""
    peer = Peer.ours(folder)
    peer.begin()
    full = peer.ask(p.OPEN, string(b"/dev/full"), uint32(2), uint32(0))[1:]
    file = peer.open(b"file")
    told = [
        peer.ask(p.WRITE, full, uint64(0), string(b"x")),
        peer.ask(p.MKDIR, string(b"dir"), uint32(0)),
        peer.ask(p.OPEN, string(b"dir"), uint32(2), uint32(0)),
        peer.ask(p.RENAME, string(b"file"), string(b"dir")),
        peer.ask(p.READ, string(b"none"), uint64(0), uint32(1)),
        peer.extended("copy-data", file, uint64(0, 0), file, uint64(0)),
    ]
    assert {code(each) for each in told} == {p.FAILURE}
    assert [Reader(each, 5).string().decode() for each in told] == [
        *("No space left on device", "File exists", "Is a directory", "File exists", "There is no such handle"),
        "Source and target are one file",
    ]
    assert Reader(peer.ask(p.STAT, string(b"missing")), 5).string() == b"No such file"
    assert peer.close() == 0
