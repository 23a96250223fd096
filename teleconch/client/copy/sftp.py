"""Files of a node: a client of SFTP version 3 (draft-ietf-secsh-filexfer-02). Requests may overlap."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from teleconch.client.copy.tree import CopyProblem, Status
from teleconch.codec import string, uint32
from teleconch.errors import ConnectionProblem
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientConnection
from teleconch.ssh.problems import ChannelRefused, ProtocolProblem, RequestRefused
from teleconch.ssh.reader import Reader

INIT, VERSION, OPEN, CLOSE, READ, WRITE = 1, 2, 3, 4, 5, 6
LSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, MKDIR, REALPATH, STAT = 7, 9, 10, 11, 12, 14, 16, 17
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED = 101, 102, 103, 104, 105, 200
_OK, _EOF, _NO_SUCH_FILE = 0, 1, 2
_SENTENCES: Final = {
    1: "End of file",
    2: "No such file or directory",
    3: "Permission denied",
    8: "The node does not support that",
}
_READ_FLAG, _WRITE_FLAGS = 1, 2 | 8 | 16  # write, make, empty
_SIZE, _IDS, _MODE, _TIMES, _MORE = 1, 2, 4, 8, 0x80000000
PACKET_MAX: Final = 256 * 1024 + 1024
NAMES_MAX: Final = 1_000_000  # in one directory


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
        """Fires with the answer's kind and its fields behind the id."""
        answer: Deferred[tuple[int, Reader]] = Deferred()
        if self._gone:
            answer.errback(Failure(ConnectionLost()))
            return answer
        self._next = (self._next + 1) & 0xFFFFFFFF
        self._asked[self._next] = answer
        self.write(uint32(len(body) + 5) + bytes((kind,)) + uint32(self._next) + body)
        return answer

    def begin(self) -> None:
        self.write(uint32(5) + bytes((INIT,)) + uint32(3))

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 4:
            size = int.from_bytes(self._data[:4], "big")
            if not 1 <= size <= PACKET_MAX:
                raise ProtocolProblem("an SFTP packet has a wrong size")
            if len(self._data) < 4 + size:
                return
            packet = bytes(self._data[4 : 4 + size])
            del self._data[: 4 + size]
            self._packet(packet[0], Reader(packet, 1))

    def _packet(self, kind: int, reader: Reader) -> None:
        number = reader.uint32()
        if kind == VERSION:
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
    flags, body = 0, b""
    if mode is not None:
        flags, body = flags | _MODE, body + uint32(mode)
    if times is not None:
        flags, body = flags | _TIMES, body + uint32(times[0] & 0xFFFFFFFF) + uint32(times[1] & 0xFFFFFFFF)
    return uint32(flags) + body


def _status(reader: Reader) -> Status:
    flags = reader.uint32()
    size = mode = atime = mtime = 0
    if flags & _SIZE:
        size = int.from_bytes(reader.take(8), "big")
    if flags & _IDS:
        reader.take(8)
    if flags & _MODE:
        mode = reader.uint32()
    if flags & _TIMES:
        atime, mtime = reader.uint32(), reader.uint32()
    if flags & _MORE:
        for _ in range(reader.uint32()):
            reader.string()
            reader.string()
    return Status(size, mode, atime, mtime)


class SftpFile:
    """An open file of a node."""

    def __init__(self, tree: SftpTree, path: bytes, handle: bytes) -> None:
        self._tree = tree
        self._path = path
        self._handle = string(handle)

    async def read(self, offset: int, size: int) -> bytes:
        try:
            answer = await self._tree.ask(READ, self._handle + offset.to_bytes(8, "big") + uint32(size), DATA)
        except _Refused as refused:
            if refused.code == _EOF:
                return b""
            raise self._tree.problem(self._path, refused) from None
        data = answer.string()
        if not data or len(data) > size:
            raise CopyProblem(f"{self._tree.shown(self._path)}: the node answered with another amount of data.")
        return data

    async def write(self, offset: int, data: bytes) -> None:
        await self._tree.do(self._path, WRITE, self._handle + offset.to_bytes(8, "big") + string(data))

    async def set_status(self, mode: int | None, times: tuple[int, int] | None) -> None:
        await self._tree.do(self._path, FSETSTAT, self._handle + _attributes(mode, times))

    async def close(self) -> None:
        await self._tree.do(self._path, CLOSE, self._handle)


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

    async def ask(self, kind: int, body: bytes, wanted: int) -> Reader:
        """The fields of an answer of the kind ``wanted``. _Refused, ConnectionProblem."""
        try:
            given, reader = await self._channel.ask(kind, body)
            if given == STATUS:
                code = reader.uint32()
                text = reader.string()[:1024].decode("utf-8", "replace") if code else ""
                if code or wanted != STATUS:
                    raise _Refused(code, text)
        except ConnectionLost as lost:
            raise ConnectionProblem(f"The connection to {self._node} was lost.") from lost
        except ProtocolProblem as problem:
            raise ConnectionProblem(f"{self._node} does not speak SFTP: {problem}.") from None
        if given != wanted:
            raise ConnectionProblem(f"{self._node} does not speak SFTP as it should.")
        return reader

    async def do(self, path: bytes, kind: int, body: bytes, wanted: int = STATUS) -> Reader:
        """The same; a refusal is a CopyProblem about ``path``."""
        try:
            return await self.ask(kind, body, wanted)
        except _Refused as refused:
            raise self.problem(path, refused) from None

    async def stat(self, path: bytes) -> Status | None:
        try:
            return _status(await self.ask(STAT, string(path), ATTRS))
        except _Refused as refused:
            if refused.code == _NO_SUCH_FILE:
                return None
            raise self.problem(path, refused) from None

    async def is_link(self, path: bytes) -> bool:
        return _status(await self.do(path, LSTAT, string(path), ATTRS)).is_link

    async def real(self, path: bytes) -> bytes:
        answer = await self.do(path, REALPATH, string(path), NAME)
        answer.uint32()
        return answer.string()

    async def names(self, path: bytes) -> list[bytes]:
        handle = string((await self.do(path, OPENDIR, string(path), HANDLE)).string())
        found: list[bytes] = []
        try:
            while True:
                answer = await self.ask(READDIR, handle, NAME)
                for _ in range(answer.uint32()):
                    name = answer.string()
                    answer.string()
                    _status(answer)
                    if name in (b".", b".."):
                        continue
                    if not name or b"/" in name or b"\0" in name or len(found) >= NAMES_MAX:
                        raise CopyProblem(
                            f"{self.shown(path)}: the node lists a name that cannot be: it is not copied."
                        )
                    found.append(name)
        except _Refused as refused:
            if refused.code != _EOF:
                raise self.problem(path, refused) from None
        finally:
            await self.do(path, CLOSE, handle)
        return sorted(found)

    async def make_directory(self, path: bytes, mode: int) -> None:
        await self.do(path, MKDIR, string(path) + _attributes(mode, None))

    async def set_status(self, path: bytes, mode: int | None, times: tuple[int, int] | None) -> None:
        await self.do(path, SETSTAT, string(path) + _attributes(mode, times))

    async def open_source(self, path: bytes) -> SftpFile:
        return await self._open(path, _READ_FLAG, _attributes(None, None))

    async def open_target(self, path: bytes, mode: int) -> SftpFile:
        return await self._open(path, _WRITE_FLAGS, _attributes(mode, None))

    async def _open(self, path: bytes, flags: int, attributes: bytes) -> SftpFile:
        answer = await self.do(path, OPEN, string(path) + uint32(flags) + attributes, HANDLE)
        return SftpFile(self, path, answer.string())

    async def expand(self, path: bytes) -> bytes:
        if not path.startswith(b"~"):
            return path or b"."
        if path in (b"~", b"~/"):
            return b"."
        if path.startswith(b"~/"):
            return path[2:].lstrip(b"/") or b"."
        answer = await self.do(path, EXTENDED, string(b"expand-path@openssh.com") + string(path), NAME)
        answer.uint32()
        return answer.string()
