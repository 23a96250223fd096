"""The unencrypted beginning of what an SSH client sends: its version line, then packets up to NEWKEYS (RFC 4253)."""

from __future__ import annotations

from teleconch.ssh.limits import PACKET_MAX_EARLY, VERSION_LINE
from teleconch.ssh.messages import NEWKEYS

_HEAD = 6  # packet length, padding length, message number
_NEWKEYS_MAX = 1 + 1 + 255  # padding length, message number, padding


class Beginning:
    """``speaks`` is set once a version line has come, ``has_keys`` once NEWKEYS has. Keeps at most one line."""

    def __init__(self) -> None:
        self.speaks = self.has_keys = False
        self._kept = b""
        self._skip = 0  # bytes of the current packet that are still to come
        self._astray = False  # this is not SSH; the node will say so

    def heard(self, data: bytes) -> None:
        """Take ``data``, which comes next."""
        if self._astray or self.has_keys:
            return
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data, self._skip = self._kept + data[self._skip :], 0
        at = 0
        if not self.speaks:
            at = data.find(b"\n", 0, VERSION_LINE) + 1
            if not data.startswith(b"SSH-"[: len(data)]) or (not at and len(data) >= VERSION_LINE):
                self._astray = True
            if self._astray or not at:
                self._kept = b"" if self._astray else data
                return
            self.speaks = True
        while len(data) - at >= _HEAD:
            length = int.from_bytes(data[at : at + 4], "big")
            if not 2 <= length <= PACKET_MAX_EARLY:
                self._astray = True
                return
            if data[at + 5] == NEWKEYS:  # counts once it is complete: until then, the other side waits for the rest
                self._astray = length > _NEWKEYS_MAX
                if self._astray or len(data) - at < 4 + length:
                    break
                self.has_keys = True
                return
            at += 4 + length
        self._skip = max(0, at - len(data))
        self._kept = b"" if self._astray else data[at:]
