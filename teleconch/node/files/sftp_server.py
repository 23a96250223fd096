"""The SFTP server's loop: large reads of as many requests as are there, and their answers in as few writes.

There is one buffer for what comes and one for what goes. Data of WRITE goes from the first to the file, data of READ
from the file into the second, with no copy in between. It blocks on everything: a client that does not read its answers
is not read from.

Ends with 0 when the client is gone, with 11 after a packet that is too long, with 255 if the client does not begin with
INIT or sends a packet without an id (the statuses of OpenSSH's server).
"""

from __future__ import annotations

import os
from struct import Struct

from teleconch.codec import Malformed, string
from teleconch.node.files import extensions, hung_up
from teleconch.node.files.handles import HANDLE_SIZE, OpenFile
from teleconch.node.files.hung_up import HungUp
from teleconch.node.files.operations import OK, OPERATIONS, ClientState, position
from teleconch.node.files.report import Report
from teleconch.sftp import packets
from teleconch.sftp.packets import DATA_MAX, PACKET_MAX, Reader, Refused

_IN = 2 * (PACKET_MAX + 4)
_OUT = PACKET_MAX + 64 * 1024
_FULL = 128 * 1024  # write as soon as this much waits

_LENGTH = Struct(">L")
_HEAD = Struct(">BL")  # type, id
_DATA_HEAD = Struct(">LBLL")  # length, type, id, data's length
_MOVE = Struct(">BLL4sQL")  # READ and WRITE: type, id, handle's length and bytes, offset, data's length
_TOO_LONG, _UNREADABLE = 11, 255
_END_OF_FILE = packets.status(packets.END_OF_FILE)


class _Ended(Exception):
    """The server ends, with ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Server:
    """Serves one client on two descriptors."""

    def __init__(self, stdin: int, stdout: int, to: Report) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._client = ClientState(to)
        self._report = to
        self._begun = False
        self._out = memoryview(bytearray(_OUT))
        self._out_end = 0
        self._operations = {
            **OPERATIONS,
            packets.EXTENDED: extensions.extended,
        }

    def run(self) -> int:
        """Serve until the client is gone or breaks the protocol; returns the exit status."""
        try:
            self._serve()
            status = 0
        except _Ended as end:
            status = end.status
        except (BrokenPipeError, HungUp):
            status = 0
        self._client.handles.close_all("the connection ended before the file was closed")
        self._report.send()
        return status

    def _serve(self) -> None:
        buffer = memoryview(bytearray(_IN))
        stdin, size_at, packet = self._stdin, _LENGTH.unpack_from, self._packet
        start = end = 0
        while True:
            count = os.readv(stdin, (buffer[end:],))
            if not count:
                return
            end += count
            while end - start >= 4:
                (size,) = size_at(buffer, start)
                if size > PACKET_MAX:
                    raise _Ended(_TOO_LONG)
                after = start + 4 + size
                if after > end:
                    break
                packet(buffer[start + 4 : after])
                start = after
            if self._out_end:
                self._flush()
                self._report.send_many()
            if start == end:
                start = end = 0
            elif start + PACKET_MAX + 4 > _IN:  # the packet that has begun might not fit after it
                left = end - start
                buffer[:left] = bytes(buffer[start:end])
                start, end = 0, left

    # --- packets -----------------------------------------------------------------------------------------------------

    def _packet(self, data: memoryview) -> None:
        if len(data) < 5:
            raise _Ended(_UNREADABLE)
        type, id = _HEAD.unpack_from(data)
        if type == packets.INIT:
            self._begin()
            return
        if not self._begun:
            raise _Ended(_UNREADABLE)
        try:
            if type == packets.READ:
                self._read(id, data)
                return
            reply = self._write(data) if type == packets.WRITE else self._operate(type, data)
        except OSError as error:
            reply = packets.problem(error)
        except Refused as refused:
            reply = packets.status(refused.code, refused.sentence)
        except Malformed:
            reply = packets.status(packets.BAD_MESSAGE)
        self._send(packets.answer(id, reply))

    def _begin(self) -> None:
        body = packets.UINT32.pack(packets.VERSION_3) + b"".join(
            string(name) + string(version) for name, (version, _) in extensions.EXTENSIONS.items()
        )
        self._send(_LENGTH.pack(len(body) + 1) + bytes((packets.VERSION,)) + body)
        self._begun = True

    def _operate(self, type: int, data: memoryview) -> bytes:
        operation = self._operations.get(type)
        if operation is None:
            raise Refused(packets.OP_UNSUPPORTED)
        return operation(self._client, Reader(data, 5))

    def _read(self, id: int, data: memoryview) -> None:
        """READ: string handle, uint64 offset, uint32 length. The file's bytes go where the answer is being made."""
        opened, offset, length = self._moved(data)
        offset, length = position(offset), min(length, DATA_MAX)
        if self._out_end + 13 + length > _OUT:
            self._flush()
        at = self._out_end
        if length:
            try:
                count = os.preadv(opened.fd, (self._out[at + 13 : at + 13 + length],), offset)
            except OSError as error:
                opened.error = opened.error or error.strerror
                raise
            if not count:
                self._send(packets.answer(id, _END_OF_FILE))
                return
        else:
            count = 0
        opened.read += count
        _DATA_HEAD.pack_into(self._out, at, 9 + count, packets.DATA, id, count)
        self._out_end = at + 13 + count
        if self._out_end > _FULL:
            self._flush()

    def _write(self, data: memoryview) -> bytes:
        """WRITE: string handle, uint64 offset, string data. All of it is written, or the answer is an error."""
        opened, offset, length = self._moved(data)
        piece = data[_MOVE.size : _MOVE.size + length]
        if len(piece) != length:
            raise Malformed("a packet ends too early")
        written = self._put(opened, piece, offset)
        if written != length:  # the disk is full, or a limit is reached: a second write tells which
            written += self._put(opened, piece[written:], offset + written)
            if written != length:
                opened.error = opened.error or "only a part could be written"
                raise Refused(packets.FAILURE, b"Only a part could be written")
        return OK

    def _put(self, opened: OpenFile, piece: memoryview, offset: int) -> int:
        try:
            written = os.write(opened.fd, piece) if opened.appending else os.pwrite(opened.fd, piece, position(offset))
        except OSError as error:
            opened.error = opened.error or error.strerror
            raise
        opened.written += written
        return written

    def _moved(self, data: memoryview) -> tuple[OpenFile, int, int]:
        """The fields that READ and WRITE share: the file, the offset, and how many bytes."""
        if len(data) >= _MOVE.size:
            _, _, size, handle, offset, length = _MOVE.unpack_from(data)
            if size == HANDLE_SIZE:
                return self._client.handles.file(handle), offset, length
        request = Reader(data, 5)
        return self._client.handles.file(request.string()), request.uint64(), request.uint32()

    # --- what goes out -----------------------------------------------------------------------------------------------

    def _send(self, packet: bytes) -> None:
        end = self._out_end + len(packet)
        if end > _OUT:
            self._flush()
            end = len(packet)
        self._out[self._out_end : end] = packet
        self._out_end = end

    def _flush(self) -> None:
        waiting = self._out[: self._out_end]
        self._out_end = 0
        while waiting:
            waiting = waiting[os.write(self._stdout, waiting) :]


def main(report_fd: int | None = None) -> int:
    """Serve on stdin and stdout; returns the exit status."""
    hung_up.catch()
    return Server(0, 1, Report("sftp", report_fd)).run()
