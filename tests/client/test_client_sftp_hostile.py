"""What a hostile node may try in its answers to `tsh scp`."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from teleconch.client.copy.sftp import SftpChannel, SftpTree
from teleconch.client.copy.tree import CopyProblem
from teleconch.codec import string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.sftp.packets import Reader
from teleconch.ssh.problems import ProtocolProblem


class Node(SftpChannel):
    """Answers from a list, whatever is asked."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        super().__init__()
        self.answers = list(answers)

    def ask(self, kind: int, body: bytes) -> Deferred[Any]:
        number, fields = self.answers.pop(0)
        return succeed((number, Reader(fields)))


HANDLE = (102, string(b"h"))
EOF = (101, uint32(1) + string(b"") + string(b""))
OK = (101, uint32(0) + string(b"") + string(b""))


def listing(*names: bytes) -> tuple[int, bytes]:
    return (104, uint32(len(names)) + b"".join(string(name) + string(b"long") + uint32(0) for name in names))


@pytest.mark.parametrize("name", [b"../../.ssh/authorized_keys", b"a/b", b"/etc/passwd", b"", b"a\0b"])
@pytest_twisted.ensureDeferred
async def test_names_that_lead_elsewhere(name: bytes) -> None:
    """A node cannot have `tsh scp -r` write outside of the folder that the user gave."""
    with pytest.raises(CopyProblem, match="an impossible name"):
        await SftpTree(Node(HANDLE, listing(b"good", name), OK), "node").names(b"dir")


@pytest_twisted.ensureDeferred
async def test_names() -> None:
    """A folder's own names and its parent's are no files in it."""
    assert await SftpTree(Node(HANDLE, listing(b".", b"..", b"x"), EOF, OK), "node").names(b"dir") == [b"x"]


@pytest_twisted.ensureDeferred
async def test_wrong_answers() -> None:
    """More data than was asked for, an answer of another kind or a cut one end as a sentence."""
    file = await SftpTree(Node(HANDLE, (103, string(b"toolong"))), "node").open_source(b"x")
    with pytest.raises(CopyProblem, match="a different amount"):
        await file.read(0, 3)
    for answer in (HANDLE, (105, b"\0"), (103, string(b""))):
        with pytest.raises(ConnectionProblem, match="does not speak SFTP"):
            await SftpTree(Node(answer), "node").stat(b"x")


@given(st.integers(1, 255) | st.sampled_from((101, 102, 103, 104, 105)), st.binary(max_size=64))
def test_garbage(kind: int, fields: bytes) -> None:
    """Whatever a node answers, the copy goes on or ends with a sentence about it."""

    async def ask(name: str) -> None:
        try:
            await getattr(SftpTree(Node((kind, fields), OK, OK), "node"), name)(b"x")
        except (ConnectionProblem, CopyProblem):
            pass
        except IndexError:
            assert name == "names"  # it goes on to ask

    failures: list[Any] = []
    for name in ("stat", "is_link", "real", "names", "open_source"):
        Deferred.fromCoroutine(ask(name)).addErrback(failures.append)
    assert not failures


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\5\x65\0\0\0\7", b"\0\0\0\2\x65\0"])
def test_wrong_packets(data: bytes) -> None:
    """A packet that is too large, empty or an answer to nothing ends the connection."""
    with pytest.raises(ProtocolProblem):
        SftpChannel().dataReceived(data)
