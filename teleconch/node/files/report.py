"""The child's side of the record of moved files: a line of JSON for each, to the daemon.

``{"event": "sftp" | "scp", "path": ..., "action": "read" | "write", "size": bytes moved, "ok": ..., "error": ...}``.
Paths are absolute, as the client named them (symbolic links are not followed), cut to :data:`PATH_MAX` bytes; bytes
that are not UTF-8 are written ``\\xff``.
"""

from __future__ import annotations

import os
import re
import signal

try:
    from _json import encode_basestring_ascii as quoted
except ImportError:  # a Python without the accelerator
    from json.encoder import py_encode_basestring_ascii as quoted

PATH_MAX = 4096
ERROR_MAX = 200
DATAGRAM_MAX = 32 * 1024  # a path of PATH_MAX bytes, each escaped in six, and the rest
TOGETHER = 32  # records in one datagram
DELAY = 0.1  # seconds that a record waits for others
READ, WRITE = "read", "write"
_NOT_NORMAL = re.compile(rb"/(\.{0,2}/|\.{0,2}\Z)")  # which normpath changes


def readable(path: bytes) -> str:
    """Bytes as text that shows every one of them."""
    return path[:PATH_MAX].decode("utf-8", "backslashreplace")


def record(event: str, path: bytes, action: str, size: int, error: str | None) -> bytes:
    """One record; ``error`` is ``None`` for a file that was moved whole."""
    return (
        f'{{"event": {quoted(event)}, "path": {quoted(readable(path))}, "action": {quoted(action)}, "size": {size:d}, '
        f'"ok": {"true" if error is None else "false"}, '
        f'"error": {"null" if error is None else quoted(error[:ERROR_MAX])}}}'
    ).encode("ascii")


class Report:
    """Where records go: a socket that keeps datagrams apart, or nowhere (``fd`` is ``None``).

    Records wait for each other, since a datagram costs both sides as much as moving a small file does. They go as lines
    of one datagram: once there are enough of them, or after a moment (by SIGALRM, as the process may be waiting for its
    client). :meth:`send_many` is for a moment when no client waits for this process.
    """

    def __init__(self, event: str, fd: int | None) -> None:
        self._event = event
        self._fd = fd
        self._kept: list[bytes] = []
        self._sending = False
        if fd is not None:
            signal.signal(signal.SIGALRM, lambda number, frame: self.send())

    def moved(self, path: bytes, action: str, size: int, error: str | None = None) -> None:
        """Report one file, soon."""
        if self._fd is None:
            return
        if not path.startswith(b"/"):
            path = os.path.join(_cwd(), path)
        if _NOT_NORMAL.search(path):
            path = os.path.normpath(path)
        self._kept.append(record(self._event, path, action, size, error))
        if len(self._kept) == 1:
            signal.setitimer(signal.ITIMER_REAL, DELAY)
        elif len(self._kept) >= 2 * TOGETHER:
            self.send()

    def send_many(self) -> None:
        """Report all of them, if there are enough."""
        if len(self._kept) >= TOGETHER:
            self.send()

    def send(self) -> None:
        """Report all of them. Waits while the daemon has many to read; without a daemon nothing is reported."""
        if self._sending:
            return
        self._sending = True
        try:
            while self._kept and self._fd is not None:
                data, count = _datagram(self._kept)
                os.write(self._fd, data)
                del self._kept[:count]
        except OSError:
            self._fd = None  # the daemon is gone, and this session will be in a moment
        finally:
            self._sending = False


def _datagram(records: list[bytes]) -> tuple[bytes, int]:
    """As many of the first records as are allowed together, and how many those are."""
    count, size = 1, len(records[0])
    while count < len(records) and count < TOGETHER and size + 1 + len(records[count]) <= DATAGRAM_MAX:
        size += 1 + len(records[count])
        count += 1
    return b"\n".join(records[:count]), count


def _cwd() -> bytes:
    try:
        return os.getcwdb()
    except OSError:
        return b"/"
