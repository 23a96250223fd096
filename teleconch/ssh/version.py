"""The version exchange (RFC 4253 section 4.2), as both sides read it."""

from __future__ import annotations

import re
from typing import Final

from teleconch.ssh import limits, messages
from teleconch.ssh.problems import ProtocolProblem, SSHProblem

_NO_VERSION: Final = "Invalid SSH identification string."  # sshd's words: monitoring looks for them
_VERSION: Final = re.compile(rb"SSH-(\d{1,3})\.(\d{1,3})-.")


class PeerVersion:
    """``line`` is the peer's, without its end, once it has come. ``lines_before`` others may come first, from a
    server."""

    line = b""

    def __init__(self, lines_before: int = 0) -> None:
        self._lines_before = lines_before

    def read(self, data: bytes) -> int:
        """Use what comes first; returns how much that was. The rest comes again, with more after it. SSHProblem."""
        at = 0
        while True:
            end = data.find(b"\n", at, at + limits.VERSION_LINE)
            line = data[at : end if end >= 0 else at + limits.VERSION_LINE]
            if b"\0" in line or b"\r" in line.rstrip(b"\r") or len(line) == limits.VERSION_LINE:
                raise ProtocolProblem(_NO_VERSION)
            if end < 0:
                return at
            at = end + 1
            if line.startswith(b"SSH-"):
                break
            self._lines_before -= 1
            if self._lines_before < 0:
                raise ProtocolProblem(_NO_VERSION)
        line = line.rstrip(b"\r")
        found = _VERSION.match(line)
        if found is None:
            raise ProtocolProblem(_NO_VERSION)
        if found[1] != b"2" and found.groups() != (b"1", b"99"):
            raise SSHProblem("Protocol major versions differ.", messages.DISCONNECT_VERSION_NOT_SUPPORTED)
        self.line = line
        return at
