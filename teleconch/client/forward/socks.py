"""The server's side of SOCKS 4, 4A and 5 (RFC 1928), as far as ``-D`` needs it: CONNECT without a password."""

from __future__ import annotations

import socket
import struct
from typing import Final

from attrs import frozen

from teleconch.client.forward.specs import Place

REQUEST_MAX: Final = 1024  # bytes of greeting and request


class NotSocks(Exception):
    """The client speaks something else, or asks for something that is not supported."""


@frozen
class Wanted:
    """Where a client wants to go, what to answer on success or failure, and what it sent after its request."""

    place: Place
    granted: bytes
    refused: bytes
    rest: bytes


class Socks:
    """Feed it what the client sends; ``answer`` is what to send back before the request."""

    def __init__(self) -> None:
        self._data = b""
        self._greeted = False

    def feed(self, data: bytes) -> tuple[bytes, Wanted | None]:
        """An answer to send now, and the request once it is complete. NotSocks."""
        self._data += data
        version = self._data[:1]
        if version == b"\4":
            return b"", self._four()
        if version == b"\5":
            answer = b""
            if not self._greeted:
                answer = self._greeting()
            return answer, self._five() if self._greeted else None
        if version:
            raise NotSocks
        return b"", None

    def _greeting(self) -> bytes:
        data = self._data
        if len(data) < 2 or len(data) < 2 + data[1]:
            return b""
        methods, self._data = data[2 : 2 + data[1]], data[2 + data[1] :]
        if 0 not in methods:
            raise NotSocks
        self._greeted = True
        return b"\5\0"

    def _five(self) -> Wanted | None:
        data = self._data
        if len(data) < 5:
            return None
        if data[1] != 1:
            raise NotSocks
        kind = data[3]
        start, length = (5, data[4]) if kind == 3 else (4, {1: 4, 4: 16}.get(kind, -1))
        if length < 0:
            raise NotSocks
        end = start + length + 2
        if len(data) < end:
            return None
        address = data[start : start + length]
        if kind == 3:
            host = address.decode("utf-8", "replace")
        else:
            host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, address)
        (port,) = struct.unpack(">H", data[end - 2 : end])
        nowhere = b"\0\1\0\0\0\0\0\0"
        return Wanted(Place(host, port), b"\5\0" + nowhere, b"\5\5" + nowhere, data[end:])

    def _four(self) -> Wanted | None:
        data = self._data
        if len(data) < 9:
            return None
        if data[1] != 1:
            raise NotSocks
        (port,), address = struct.unpack(">H", data[2:4]), data[4:8]
        named = address[:3] == b"\0\0\0" and address[3]  # 4A: a name follows the user
        texts = data[8:].split(b"\0", 2 if named else 1)
        if len(texts) < (3 if named else 2):
            if len(data) > REQUEST_MAX:
                raise NotSocks
            return None
        host = texts[1].decode("utf-8", "replace") if named else socket.inet_ntoa(address)
        return Wanted(Place(host, port), b"\0\x5a" + bytes(6), b"\0\x5b" + bytes(6), texts[-1])
