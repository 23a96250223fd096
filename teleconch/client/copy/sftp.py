"""Files of a node: a client of SFTP version 3 (draft-ietf-secsh-filexfer-02). Requests may overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from teleconch.client.copy.tree import CopyProblem, Status
from teleconch.codec import Malformed, string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.sftp import packets
from teleconch.sftp.attributes import NONE, Attributes
from teleconch.sftp.packets import Reader
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientConnection
from teleconch.ssh.problems import ChannelRefused, ProtocolProblem, RequestRefused

_SENTENCES: Final = {
    packets.END_OF_FILE: "End of file",
    packets.NO_SUCH_FILE: "No such file or directory",
    packets.PERMISSION_DENIED: "Permission denied",
    packets.OP_UNSUPPORTED: "The node does not support that",
}
_TO_WRITE: Final = packets.WRITABLE | packets.CREATE | packets.TRUNCATE
ANSWER_MAX: Final = packets.PACKET_MAX + 1024
ANSWER_MIN: Final = 5  # kind, and id or version
NAMES_MAX: Final = 1_000_000  # in one directory

T = TypeVar("T")


class _Refused(Exception):
    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


class SftpChannel(Channel):
    """A session that asks for ``sftp``. Answers fire the Deferreds of :meth:`ask`."""

    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self._data = bytearray()
        self._next = 0
        self._asked: dict[int, Deferred[tuple[int, Reader]]] = {}
        self.version: Deferred[int] = Deferred()
        self._gone = False

    def ask(self, kind: int, body: bytes) -> Deferred[tuple[int, Reader]]:
        """Fires with the answer's kind and its fields after the id."""
        answer: Deferred[tuple[int, Reader]] = Deferred()
        if self._gone:
            answer.errback(Failure(ConnectionLost()))
            return answer
        self._next = (self._next + 1) & 0xFFFFFFFF
        self._asked[self._next] = answer
        self.write(uint32(len(body) + 5) + bytes((kind,)) + uint32(self._next) + body)
        return answer

    def begin(self) -> None:
        self.write(uint32(5) + bytes((packets.INIT,)) + uint32(packets.VERSION_3))

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 4:
            size = int.from_bytes(self._data[:4], "big")
            if not ANSWER_MIN <= size <= ANSWER_MAX:
                raise ProtocolProblem("an SFTP packet has a wrong size")
            if len(self._data) < 4 + size:
                return
            packet = bytes(self._data[4 : 4 + size])
            del self._data[: 4 + size]
            self._packet(packet[0], Reader(packet, 1))

    def _packet(self, kind: int, reader: Reader) -> None:
        number = reader.uint32()
        if kind == packets.VERSION:
            if not self.version.called:
                self.version.callback(number)
            return
        answer = self._asked.pop(number, None)
        if answer is None:
            raise ProtocolProblem("an SFTP answer came to no question")
        answer.callback((kind, reader))

    def eofReceived(self) -> None:
        self.loseConnection()

    def closed(self) -> None:
        self._gone = True
        asked, self._asked = self._asked, {}
        for answer in (*asked.values(), *(() if self.version.called else (self.version,))):
            answer.errback(Failure(ConnectionLost()))


def _attributes(mode: int | None, times: tuple[int, int] | None) -> bytes:
    cut = None if times is None else (times[0] & 0xFFFFFFFF, times[1] & 0xFFFFFFFF)
    return Attributes(mode=mode, times=cut).packed()


def _status(reader: Reader) -> Status:
    found = Attributes.read(reader)
    return Status(found.size or 0, found.mode or 0, *(found.times or (0, 0)))


def _name(reader: Reader) -> bytes:
    """The first name in a NAME."""
    reader.uint32()
    return reader.string()


def _names(reader: Reader) -> list[bytes]:
    """All names in a NAME: uint32 count, and for each its name, its line for people, its attributes."""
    found = []
    for _ in range(reader.uint32()):
        found.append(reader.string())
        reader.string()
        Attributes.read(reader)
    return found


class SftpFile:
    """An open file of a node."""

    def __init__(self, tree: SftpTree, path: bytes, handle: bytes) -> None:
        self._tree = tree
        self._path = path
        self._handle = string(handle)

    async def read(self, offset: int, size: int) -> bytes:
        try:
            where = self._handle + packets.UINT64.pack(offset) + uint32(size)
            data = await self._tree.ask(packets.READ, where, packets.DATA, Reader.string)
        except _Refused as refused:
            if refused.code == packets.END_OF_FILE:
                return b""
            raise self._tree.problem(self._path, refused) from None
        if not data or len(data) > size:
            raise CopyProblem(f"{self._tree.shown(self._path)}: the node answered with a different amount of data.")
        return data

    async def write(self, offset: int, data: bytes) -> None:
        where = self._handle + packets.UINT64.pack(offset)
        await self._tree.do(self._path, packets.WRITE, where + string(data))

    async def set_status(self, mode: int | None, times: tuple[int, int] | None) -> None:
        await self._tree.do(self._path, packets.FSETSTAT, self._handle + _attributes(mode, times))

    async def close(self) -> None:
        await self._tree.do(self._path, packets.CLOSE, self._handle)


class SftpTree:
    """The files of one node, which is called ``node`` in sentences."""

    def __init__(self, channel: SftpChannel, node: str) -> None:
        self._channel = channel
        self._node = node

    @classmethod
    async def begin(cls, connection: ClientConnection, node: str) -> SftpTree:
        """Start ``sftp`` on a node. ConnectionProblem."""
        channel = SftpChannel()
        try:
            await connection.open(channel)
            answer = connection.sendRequest(channel, b"subsystem", string(b"sftp"), wantReply=1)
            assert answer is not None
            await answer
            channel.begin()
            await channel.version
        except (ChannelRefused, RequestRefused) as refused:
            raise ConnectionProblem(
                f"{node} does not start sftp for this login; its administrator sees why."
            ) from refused
        except ConnectionLost as lost:
            raise ConnectionProblem(f"{node} ended sftp at once; its administrator sees why.") from lost
        return cls(channel, node)

    def shown(self, path: bytes) -> str:
        """A path as people write it."""
        return f"{self._node}:{path.decode('utf-8', 'replace')}"

    def problem(self, path: bytes, refused: _Refused) -> CopyProblem:
        sentence = _SENTENCES.get(refused.code) or refused.sentence or "Failure"
        return CopyProblem(f"{self.shown(path)}: {sentence}")

    async def ask(self, kind: int, body: bytes, wanted: int, read: Callable[[Reader], T]) -> T:
        """What ``read`` finds in an answer of the kind ``wanted``. _Refused, ConnectionProblem."""
        try:
            given, reader = await self._channel.ask(kind, body)
            if given == packets.STATUS:
                code = reader.uint32()
                text = reader.string()[:1024].decode("utf-8", "replace") if code else ""
                if code or wanted != packets.STATUS:
                    raise _Refused(code, text)
            if given == wanted:
                return read(reader)
        except ConnectionLost as lost:
            raise ConnectionProblem(f"The connection to {self._node} was lost.") from lost
        except Malformed as problem:
            raise ConnectionProblem(f"{self._node} does not speak SFTP: {problem}.") from None
        raise ConnectionProblem(f"{self._node} does not speak SFTP as it should.")

    async def get(self, path: bytes, kind: int, body: bytes, wanted: int, read: Callable[[Reader], T]) -> T:
        """The same; a refusal is a CopyProblem about ``path``."""
        try:
            return await self.ask(kind, body, wanted, read)
        except _Refused as refused:
            raise self.problem(path, refused) from None

    async def do(self, path: bytes, kind: int, body: bytes) -> None:
        """The same, if there is nothing to read."""
        await self.get(path, kind, body, packets.STATUS, lambda _: None)

    async def stat(self, path: bytes) -> Status | None:
        try:
            return await self.ask(packets.STAT, string(path), packets.ATTRS, _status)
        except _Refused as refused:
            if refused.code == packets.NO_SUCH_FILE:
                return None
            raise self.problem(path, refused) from None

    async def is_link(self, path: bytes) -> bool:
        return (await self.get(path, packets.LSTAT, string(path), packets.ATTRS, _status)).is_link

    async def real(self, path: bytes) -> bytes:
        return await self.get(path, packets.REALPATH, string(path), packets.NAME, _name)

    async def names(self, path: bytes) -> list[bytes]:
        handle = string(await self.get(path, packets.OPENDIR, string(path), packets.HANDLE, Reader.string))
        found: list[bytes] = []
        try:
            while True:
                for name in await self.ask(packets.READDIR, handle, packets.NAME, _names):
                    if name in (b".", b".."):
                        continue
                    if not name or b"/" in name or b"\0" in name or len(found) >= NAMES_MAX:
                        raise CopyProblem(f"{self.shown(path)}: the node lists an impossible name: it is not copied.")
                    found.append(name)
        except _Refused as refused:
            if refused.code != packets.END_OF_FILE:
                raise self.problem(path, refused) from None
        finally:
            await self.do(path, packets.CLOSE, handle)
        return sorted(found)

    async def make_directory(self, path: bytes, mode: int) -> None:
        await self.do(path, packets.MKDIR, string(path) + _attributes(mode, None))

    async def set_status(self, path: bytes, mode: int | None, times: tuple[int, int] | None) -> None:
        await self.do(path, packets.SETSTAT, string(path) + _attributes(mode, times))

    async def open_source(self, path: bytes) -> SftpFile:
        return await self._open(path, packets.READABLE, NONE)

    async def open_target(self, path: bytes, mode: int) -> SftpFile:
        return await self._open(path, _TO_WRITE, _attributes(mode, None))

    async def _open(self, path: bytes, flags: int, attributes: bytes) -> SftpFile:
        wanted = string(path) + uint32(flags) + attributes
        return SftpFile(self, path, await self.get(path, packets.OPEN, wanted, packets.HANDLE, Reader.string))

    async def expand(self, path: bytes) -> bytes:
        if not path.startswith(b"~"):
            return path or b"."
        if path in (b"~", b"~/"):
            return b"."
        if path.startswith(b"~/"):
            return path[2:].lstrip(b"/") or b"."
        wanted = string(b"expand-path@openssh.com") + string(path)
        return await self.get(path, packets.EXTENDED, wanted, packets.NAME, _name)
