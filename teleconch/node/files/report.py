"""The child's side of the record of moved files: one JSON object for each, one datagram each, to the daemon.

``{"event": "sftp" | "scp", "path": ..., "action": "read" | "write", "size": bytes moved, "ok": ..., "error": ...}``.
Paths are absolute, as the client named them (symbolic links are not followed), cut to :data:`PATH_MAX` bytes; bytes
that are no UTF-8 are written ``\\xff``.
"""

from __future__ import annotations

import os
import re

try:
    from _json import encode_basestring_ascii as quoted
except ImportError:  # a Python without the accelerator
    from json.encoder import py_encode_basestring_ascii as quoted

PATH_MAX = 4096
ERROR_MAX = 200
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
    """Where records go: a socket that keeps datagrams apart, or nowhere (``fd`` is ``None``)."""

    def __init__(self, event: str, fd: int | None) -> None:
        self._event = event
        self._fd = fd
        self._kept: list[bytes] = []

    def moved(self, path: bytes, action: str, size: int, error: str | None = None) -> None:
        """Tell of one file, with the next :meth:`send`."""
        if self._fd is None:
            return
        if not path.startswith(b"/"):
            path = os.path.join(_cwd(), path)
        if _NOT_NORMAL.search(path):
            path = os.path.normpath(path)
        self._kept.append(record(self._event, path, action, size, error))

    def send(self) -> None:
        """Waits while the daemon has many records to read; without a daemon nothing is told."""
        if not self._kept or self._fd is None:
            return
        try:
            for each in self._kept:
                os.write(self._fd, each)
        except OSError:
            self._fd = None  # the daemon is gone, and this session will be in a moment
        self._kept.clear()


def _cwd() -> bytes:
    try:
        return os.getcwdb()
    except OSError:
        return b"/"
