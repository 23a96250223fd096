"""The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02): numbers, reading, writing. No I/O.

A packet is ``uint32 length``, ``byte type``, and for all but INIT and VERSION ``uint32 request-id``. Paths are bytes:
the protocol has no character set, and a file's name may be any bytes but ``/`` and zero.
"""

from __future__ import annotations

import errno
import struct
from struct import Struct

from teleconch.codec import Malformed, string

VERSION_3 = 3
PACKET_MAX = 256 * 1024  # type and all that follows; OpenSSH's limit
DATA_MAX = PACKET_MAX - 1024  # bytes in one READ or WRITE

INIT, VERSION = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

READABLE, WRITABLE, APPEND, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32  # how to OPEN

OK, END_OF_FILE, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = 0, 1, 2, 3, 4
BAD_MESSAGE, OP_UNSUPPORTED = 5, 8

# What OpenSSH's client prints after the path, so the same words as from OpenSSH's server.
SENTENCES = {
    OK: b"Success",
    END_OF_FILE: b"End of file",
    NO_SUCH_FILE: b"No such file",
    PERMISSION_DENIED: b"Permission denied",
    FAILURE: b"Failure",
    BAD_MESSAGE: b"Bad message",
    OP_UNSUPPORTED: b"Operation unsupported",
}

_CODES = {
    errno.ENOENT: NO_SUCH_FILE,
    errno.ENOTDIR: NO_SUCH_FILE,
    errno.EBADF: NO_SUCH_FILE,
    errno.ELOOP: NO_SUCH_FILE,
    errno.EPERM: PERMISSION_DENIED,
    errno.EACCES: PERMISSION_DENIED,
    errno.EFAULT: PERMISSION_DENIED,
    errno.ENAMETOOLONG: BAD_MESSAGE,
    errno.EINVAL: BAD_MESSAGE,
    errno.ENOSYS: OP_UNSUPPORTED,
}

UINT32 = Struct(">L")
UINT64 = Struct(">Q")
_ANSWER = Struct(">LBL")  # length, type, id
_uint32_at, _uint64_at = UINT32.unpack_from, UINT64.unpack_from


class Refused(Exception):
    """A request that is answered with just ``code``; ``sentence`` if the usual one says too little."""

    def __init__(self, code: int, sentence: bytes | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.sentence = SENTENCES[code] if sentence is None else sentence


class Reader:
    """Takes a packet apart from ``at``, field by field. Malformed if it ends early."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview | bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def uint32(self) -> int:
        try:
            number: int = _uint32_at(self._data, self._at)[0]
        except struct.error:
            raise Malformed("a packet ends too early") from None
        self._at += 4
        return number

    def uint64(self) -> int:
        try:
            number: int = _uint64_at(self._data, self._at)[0]
        except struct.error:
            raise Malformed("a packet ends too early") from None
        self._at += 8
        return number

    def string(self) -> bytes:
        """Any bytes."""
        size = self.uint32()
        at = self._at
        self._at = end = at + size
        if end > len(self._data):
            raise Malformed("a packet ends too early")
        return bytes(self._data[at:end])

    def path(self) -> bytes:
        """A file's name: any bytes but zero."""
        name = self.string()
        if 0 in name:
            raise Malformed("a path has a zero byte")
        return name

    def rest(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at


def status(code: int, sentence: bytes | None = None) -> bytes:
    """A STATUS, without length and id: type, code, sentence, no language."""
    words = SENTENCES[code] if sentence is None else sentence
    return bytes((STATUS,)) + UINT32.pack(code) + string(words) + string(b"")


def problem(error: OSError) -> bytes:
    """A STATUS for an error of the system: the code to which OpenSSH's server maps it, and why, if the code says only
    "Failure". OpenSSH's client prints words of its own for each code, and others show ours."""
    code = _CODES.get(error.errno or 0, FAILURE)
    return status(code, error.strerror.encode() if code == FAILURE and error.strerror else None)


def answer(id: int, reply: bytes) -> bytes:
    """The whole packet of ``reply``, which is a type byte and what follows the id."""
    return _ANSWER.pack(len(reply) + 4, reply[0], id) + reply[1:]
