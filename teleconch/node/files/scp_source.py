"""scp's source (``scp -f``): sends files, and with ``-r`` directories, to a client that reads them."""

from __future__ import annotations

import os
import stat

from teleconch.node.files import report, scp_wire
from teleconch.node.files.hung_up import HungUp
from teleconch.node.files.scp_wire import Wire

_CHUNK = 256 * 1024


class Source:
    """Sends each path that it is given. What cannot be sent is told to the client, and the next is tried."""

    def __init__(self, wire: Wire, to: report.Report, *, recursive: bool, preserve: bool) -> None:
        self._wire = wire
        self._report = to
        self._recursive = recursive
        self._preserve = preserve
        self._sent = 0  # of the file that is being sent
        self._chunk = memoryview(bytearray(_CHUNK))

    def run(self, paths: list[bytes]) -> None:
        """Wait for the client to begin, then send all. Lost."""
        self._wire.accepted()
        for path in paths:
            self.send(path)

    def send(self, path: bytes) -> None:
        """One file or directory."""
        path = path.rstrip(b"/") or path[:1]
        try:
            # Not blocking: a FIFO without a writer is refused below, not waited for.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            self._report.moved(path, report.READ, 0, error.strerror)
            self._complain(path, error)
            return
        try:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode):
                os.set_blocking(fd, True)
                self._send_file(path, fd, info)
        finally:
            os.close(fd)  # of a directory too: a deep tree needs no descriptor for each level
        if stat.S_ISDIR(info.st_mode) and self._recursive:
            self._send_directory(path, info)
        elif not stat.S_ISREG(info.st_mode):
            self._wire.error(_shown(path) + b": not a regular file")

    def _send_file(self, path: bytes, fd: int, info: os.stat_result) -> None:
        if not self._announce(b"C", path, info, info.st_size):
            return
        self._sent = 0
        failed: str | None = None
        try:
            failed = self._send_data(fd, info.st_size)
            if failed is None:
                self._wire.ok()
            else:
                self._wire.error(_shown(path) + b": " + os.fsencode(failed))
            if not self._wire.accepted():
                failed = failed or "the other side failed"
        except (scp_wire.Lost, HungUp):
            failed = failed or "the connection ended"
            raise
        finally:
            self._report.moved(path, report.READ, self._sent, failed)
            self._report.send_many()

    def _send_data(self, fd: int, size: int) -> str | None:
        """Send ``size`` bytes, whatever happens to the file; returns what went wrong."""
        failed: str | None = None
        left = size
        while left:
            chunk = self._chunk[: min(left, _CHUNK)]
            count = 0
            if failed is None:
                try:
                    count = os.readv(fd, (chunk,))
                except OSError as error:
                    failed = error.strerror
                else:
                    if not count:
                        failed = "Broken pipe"  # it became shorter; OpenSSH's word for that
            if failed is not None:  # the client counts: send zeros in place of what is missing
                chunk[:] = bytes(len(chunk))
                self._wire.send(chunk)
                left -= len(chunk)
                continue
            self._wire.send(chunk[:count])
            self._sent += count
            left -= count
        return failed

    def _send_directory(self, path: bytes, info: os.stat_result) -> None:
        try:
            names = os.listdir(path)
        except OSError as error:
            self._complain(path, error)
            return
        if not self._announce(b"D", path, info, 0):
            return
        for name in names:
            self.send(b"%s/%s" % (path, name))
        self._wire.send(b"E\n")
        self._wire.accepted()

    def _announce(self, kind: bytes, path: bytes, info: os.stat_result, size: int) -> bool:
        """Send the times if asked for, then the entry; returns whether the client wants it."""
        if self._preserve:
            self._wire.send(scp_wire.times_line(int(info.st_mtime), int(info.st_atime)))
            if not self._wire.accepted():
                return False
        name = _shown(path.rpartition(b"/")[2] or path)
        self._wire.send(scp_wire.entry_line(kind, info.st_mode, size, name))
        return self._wire.accepted()

    def _complain(self, path: bytes, error: OSError) -> None:
        self._wire.error(_shown(path) + b": " + os.fsencode(error.strerror or str(error)))


def _shown(path: bytes) -> bytes:
    """A path as it goes into a line. One with a newline is written in the way of vis(3), as OpenSSH's scp sends it."""
    return b"".join(map(_visible, path)) if b"\n" in path else path


def _visible(char: int) -> bytes:
    if char == 0x5C:
        return b"\\\\"
    if char == 0x09 or 0x20 <= char < 0x7F:
        return bytes((char,))
    if char & 0x7F == 0x20:
        return b"\\%03o" % char
    meta, low = (b"\\M", char & 0x7F) if char & 0x80 else (b"\\", char)
    if low == 0x7F:
        return meta + b"^?"
    return meta + (b"^%c" % (low + 0x40) if low < 0x20 else b"-%c" % low)
