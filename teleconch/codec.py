"""The data types of RFC 4251 section 5."""

from __future__ import annotations

from struct import Struct, error
from typing import ClassVar, Final

_U32: Final = Struct(">I")
uint32 = _U32.pack


def string(data: bytes) -> bytes:
    """``data`` preceded by its length (uint32)."""
    return _U32.pack(len(data)) + data


def boolean(value: object) -> bytes:
    return b"\1" if value else b"\0"


def mpint(magnitude: bytes) -> bytes:
    """The ``mpint`` of a number that is not negative, given as big-endian bytes."""
    magnitude = magnitude.lstrip(b"\0")
    if magnitude and magnitude[0] & 0x80:
        magnitude = b"\0" + magnitude
    return string(magnitude)


def name_list(names: tuple[bytes, ...]) -> bytes:
    return string(b",".join(names))


class Malformed(Exception):
    """Bytes do not follow their format."""


class Reader:
    """Reads fields in order; bytes that do not fit raise :attr:`problem`."""

    __slots__ = ("_at", "_data")

    problem: ClassVar[type[Exception]] = Malformed

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise self.problem("a message ends too early")
        value = self._data[self._at]
        self._at += 1
        return value

    def boolean(self) -> bool:
        return self.byte() != 0

    def uint32(self) -> int:
        try:
            (value,) = _U32.unpack_from(self._data, self._at)
        except error:
            raise self.problem("a message ends too early") from None
        self._at += 4
        return int(value)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise self.problem("a message ends too early")
        value = self._data[self._at : end]
        self._at = end
        return value

    def string(self) -> bytes:
        return self.take(self.uint32())

    def mpint(self) -> int:
        """A number that is not negative."""
        data = self.string()
        if data and data[0] & 0x80:
            raise self.problem("a number is negative")
        return int.from_bytes(data, "big")

    def name_list(self) -> tuple[bytes, ...]:
        data = self.string()
        return tuple(data.split(b",")) if data else ()

    def rest(self) -> bytes:
        value = self._data[self._at :]
        self._at = len(self._data)
        return value

    def end(self) -> None:
        """Raise unless everything has been read."""
        if self._at != len(self._data):
            raise self.problem("a message is longer than its fields")
