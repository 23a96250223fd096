"""The requests of SFTP version 3 except READ and WRITE, one function each: takes the fields, returns a reply.

A reply is a type byte and what follows the id. Errors: OSError, and Refused where the answer is not a system error;
Malformed for a packet that ends early. The behaviour in each situation is that of OpenSSH's sftp-server, as measured.
"""

from __future__ import annotations

import errno
import os
import stat

from teleconch.codec import string
from teleconch.node.files import names, report
from teleconch.node.files.handles import Handles, OpenDirectory, OpenFile
from teleconch.node.files.listing import Listing
from teleconch.sftp import attributes, packets
from teleconch.sftp.attributes import Attributes
from teleconch.sftp.packets import UINT32, Reader, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES_ROOM = 32 * 1024 - 1024  # of one NAME packet: every client takes 34,000 bytes (draft section 3)
_CHUNK = 1024 * 1024
SIGNED_MAX = (1 << 63) - 1  # the system's off_t
_NOBODY = 0xFFFFFFFF  # chown's -1: leave it
_NO_LINKS = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EPERM)  # a file system without hard links

OK = packets.status(packets.OK)


class ClientState:
    """What the operations of one client share."""

    def __init__(self, to: report.Report) -> None:
        self.report = to
        self.handles = Handles(to)
        self.listing = Listing()


def position(offset: int) -> int:
    """An offset or size that the system can take. OSError for any other, as the system would raise it."""
    if offset > SIGNED_MAX:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return offset


def _reply(type: int, body: bytes) -> bytes:
    return bytes((type,)) + body


def _attributes(info: os.stat_result) -> bytes:
    return _reply(packets.ATTRS, attributes.packed(info))


def _one_name(name: bytes) -> bytes:
    return _reply(packets.NAME, UINT32.pack(1) + string(name) + string(name) + attributes.NONE)


# --- files -----------------------------------------------------------------------------------------------------------


def open_file(client: ClientState, request: Reader) -> bytes:
    """OPEN: string path, uint32 flags, attributes. A refusal is reported too."""
    path = request.path()
    asked = request.uint32()
    wanted = Attributes.read(request)
    flags = (os.O_RDWR if asked & packets.READABLE else os.O_WRONLY) if asked & packets.WRITABLE else os.O_RDONLY
    for bit, flag in (
        (packets.APPEND, os.O_APPEND),
        (packets.CREATE, os.O_CREAT),
        (packets.TRUNCATE, os.O_TRUNC),
        (packets.EXCLUSIVE, os.O_EXCL),
    ):
        if asked & bit:
            flags |= flag
    mode = 0o666 if wanted.mode is None else wanted.mode & 0o7777
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError as error:
        client.report.moved(path, report.WRITE if asked & packets.WRITABLE else report.READ, 0, error.strerror)
        raise
    try:
        handle = client.handles.add(OpenFile(fd, path, flags))
    except Refused:
        os.close(fd)
        raise
    return _reply(packets.HANDLE, string(handle))


def close(client: ClientState, request: Reader) -> bytes:
    """CLOSE: string handle."""
    if not client.handles.close(request.string()):
        raise Refused(packets.NO_SUCH_FILE)
    return OK


def stat_path(client: ClientState, request: Reader) -> bytes:
    """STAT: string path; links are followed."""
    return _attributes(os.stat(request.path()))


def lstat_path(client: ClientState, request: Reader) -> bytes:
    """LSTAT: string path; links are not followed."""
    return _attributes(os.lstat(request.path()))


def stat_handle(client: ClientState, request: Reader) -> bytes:
    """FSTAT: string handle."""
    return _attributes(os.fstat(client.handles.file(request.string()).fd))


def set_path(client: ClientState, request: Reader) -> bytes:
    """SETSTAT: string path, attributes."""
    path = request.path()
    return set_attributes(path, Attributes.read(request))


def set_handle(client: ClientState, request: Reader) -> bytes:
    """FSETSTAT: string handle, attributes."""
    handle = request.string()
    wanted = Attributes.read(request)
    return set_attributes(client.handles.file(handle).fd, wanted)


def set_attributes(where: bytes | int, wanted: Attributes) -> bytes:
    """Set each attribute that is asked for, whatever becomes of the others; the last failure is the answer."""
    steps: list[Callable[[], None]] = []
    if wanted.size is not None:
        size = wanted.size
        steps.append(lambda: os.truncate(where, position(size)))
    if wanted.mode is not None:
        mode = wanted.mode & 0o7777
        steps.append(lambda: os.chmod(where, mode))
    if wanted.times is not None:
        times = wanted.times
        steps.append(lambda: os.utime(where, times))
    if wanted.owner is not None:
        uid, gid = owner(wanted.owner)
        steps.append(lambda: os.chown(where, uid, gid))
    return _all_of(steps)


def owner(pair: tuple[int, int]) -> tuple[int, int]:
    """uid and gid as Python's chown takes them."""
    uid, gid = (-1 if number == _NOBODY else number for number in pair)
    return uid, gid


def _all_of(steps: list[Callable[[], None]]) -> bytes:
    failed: OSError | None = None
    for step in steps:
        try:
            step()
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    return OK


def remove(client: ClientState, request: Reader) -> bytes:
    """REMOVE: string path, of a file."""
    os.unlink(request.path())
    return OK


def rename(client: ClientState, request: Reader) -> bytes:
    """RENAME: string old, string new. A file at ``new`` is never replaced (``posix-rename`` does that)."""
    old, new = request.path(), request.path()
    if stat.S_ISREG(os.lstat(old).st_mode):
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            try:
                os.unlink(old)
            except OSError:
                os.unlink(new)
                raise
            return OK
    try:
        os.stat(new)
    except OSError:
        os.rename(old, new)
        return OK
    raise Refused(packets.FAILURE, b"File exists")


# --- links -----------------------------------------------------------------------------------------------------------


def read_link(client: ClientState, request: Reader) -> bytes:
    """READLINK: string path."""
    return _one_name(os.readlink(request.path()))


def make_link(client: ClientState, request: Reader) -> bytes:
    """SYMLINK: string target, string path of the link. The draft has them the other way round; OpenSSH does not, and
    clients follow it, some of them only if the version line has its name."""
    target, path = request.path(), request.path()
    os.symlink(target, path)
    return OK


def real_path(client: ClientState, request: Reader) -> bytes:
    """REALPATH: string path."""
    return _one_name(names.resolved(request.path()))


# --- directories -----------------------------------------------------------------------------------------------------


def make_directory(client: ClientState, request: Reader) -> bytes:
    """MKDIR: string path, attributes."""
    path = request.path()
    wanted = Attributes.read(request)
    os.mkdir(path, 0o777 if wanted.mode is None else wanted.mode & 0o7777)
    return OK


def remove_directory(client: ClientState, request: Reader) -> bytes:
    """RMDIR: string path."""
    os.rmdir(request.path())
    return OK


def open_directory(client: ClientState, request: Reader) -> bytes:
    """OPENDIR: string path."""
    path = request.path()
    if not path:
        raise Refused(packets.NO_SUCH_FILE)
    entries = os.scandir(path)
    try:
        handle = client.handles.add(OpenDirectory(path, entries))
    except Refused:
        entries.close()
        raise
    return _reply(packets.HANDLE, string(handle))


def read_directory(client: ClientState, request: Reader) -> bytes:
    """READDIR: string handle. As many entries as every client takes in one packet; then END_OF_FILE."""
    directory = client.handles.directory(request.string())
    found: list[bytes] = []
    size = 0
    while size < _NAMES_ROOM:
        if directory.left:
            name = directory.left.pop()
        else:
            entry = next(directory.entries, None)
            if entry is None:
                break
            name = entry.name
        try:
            info = os.lstat(b"%s/%s" % (directory.path, name))
        except OSError:
            continue  # it has gone since
        line = string(name) + string(client.listing.line(name, info)) + attributes.packed(info)
        if found and size + len(line) > _NAMES_ROOM:
            directory.left.append(name)
            break
        found.append(line)
        size += len(line)
    if not found:
        raise Refused(packets.END_OF_FILE)
    return _reply(packets.NAME, UINT32.pack(len(found)) + b"".join(found))


# --- copying inside this machine -------------------------------------------------------------------------------------


def copy_data(client: ClientState, request: Reader) -> bytes:
    """Extension ``copy-data``: string from, uint64 offset, uint64 length (0: to the end), string to, uint64 offset."""
    source_handle, source_at, length = request.string(), request.uint64(), request.uint64()
    target_handle, target_at = request.string(), request.uint64()
    source, target = client.handles.file(source_handle), client.handles.file(target_handle)
    if source is target or source.path == target.path:
        raise Refused(packets.FAILURE, b"Source and target are one file")
    position(source_at), position(target_at)
    left = length or SIGNED_MAX
    while left:
        data = os.pread(source.fd, min(left, _CHUNK), source_at)
        if not data:
            break
        source_at += len(data)
        left -= len(data)
        source.read += len(data)
        view = memoryview(data)
        while view:
            written = os.write(target.fd, view) if target.appending else os.pwrite(target.fd, view, target_at)
            target_at += written
            target.written += written
            view = view[written:]
    if length and left:
        raise Refused(packets.END_OF_FILE)
    return OK


OPERATIONS: dict[int, Callable[[ClientState, Reader], bytes]] = {
    packets.OPEN: open_file,
    packets.CLOSE: close,
    packets.LSTAT: lstat_path,
    packets.FSTAT: stat_handle,
    packets.SETSTAT: set_path,
    packets.FSETSTAT: set_handle,
    packets.OPENDIR: open_directory,
    packets.READDIR: read_directory,
    packets.REMOVE: remove,
    packets.MKDIR: make_directory,
    packets.RMDIR: remove_directory,
    packets.REALPATH: real_path,
    packets.STAT: stat_path,
    packets.RENAME: rename,
    packets.READLINK: read_link,
    packets.SYMLINK: make_link,
}
