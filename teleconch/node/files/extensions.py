"""The extended requests (draft section 8) that OpenSSH's client knows, by name; see OpenSSH's PROTOCOL, section 4."""

from __future__ import annotations

import os
import stat
from struct import Struct

from teleconch.codec import Malformed, string
from teleconch.node.files import handles, names, operations
from teleconch.node.files.operations import OK, ClientState
from teleconch.sftp import packets
from teleconch.sftp.attributes import Attributes
from teleconch.sftp.packets import UINT32, UINT64, Reader, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STATVFS = Struct(">11Q")
_READ_ONLY, _NO_SETUID = 1, 2


def _extended_reply(body: bytes) -> bytes:
    return bytes((packets.EXTENDED_REPLY,)) + body


def posix_rename(client: ClientState, request: Reader) -> bytes:
    """string old, string new: what is at ``new`` is replaced."""
    old, new = request.path(), request.path()
    os.rename(old, new)
    return OK


def hard_link(client: ClientState, request: Reader) -> bytes:
    """string old, string new."""
    old, new = request.path(), request.path()
    os.link(old, new, follow_symlinks=False)
    return OK


def sync(client: ClientState, request: Reader) -> bytes:
    """string handle."""
    try:
        opened = client.handles.file(request.string())
    except Refused:
        raise Refused(packets.NO_SUCH_FILE) from None
    os.fsync(opened.fd)
    return OK


def _volume(info: os.statvfs_result) -> bytes:
    flags = (_READ_ONLY if info.f_flag & os.ST_RDONLY else 0) | (_NO_SETUID if info.f_flag & os.ST_NOSUID else 0)
    return _extended_reply(
        _STATVFS.pack(
            info.f_bsize,
            info.f_frsize,
            info.f_blocks,
            info.f_bfree,
            info.f_bavail,
            info.f_files,
            info.f_ffree,
            info.f_favail,
            info.f_fsid & 0xFFFFFFFFFFFFFFFF,
            flags,
            info.f_namemax,
        )
    )


def volume_of_path(client: ClientState, request: Reader) -> bytes:
    """string path: the file system's sizes."""
    return _volume(os.statvfs(request.path()))


def volume_of_handle(client: ClientState, request: Reader) -> bytes:
    """string handle."""
    return _volume(os.fstatvfs(client.handles.file(request.string()).fd))


def set_link(client: ClientState, request: Reader) -> bytes:
    """string path, attributes: of a link itself. A size makes no sense there; a mode cannot be set on Linux."""
    path = request.path()
    wanted = Attributes.read(request)
    if wanted.size is not None:
        raise Refused(packets.BAD_MESSAGE)
    failed: OSError | Refused | None = None
    for step in (_link_mode, _link_times, _link_owner):
        try:
            step(path, wanted)
        except (OSError, Refused) as error:
            failed = error
    if failed is not None:
        raise failed
    return OK


def _link_mode(path: bytes, wanted: Attributes) -> None:
    if wanted.mode is None:
        return
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise Refused(packets.FAILURE, b"A link has no mode of its own")
        os.chmod(b"/proc/self/fd/%d" % fd, wanted.mode & 0o7777)
    finally:
        os.close(fd)


def _link_times(path: bytes, wanted: Attributes) -> None:
    if wanted.times is not None:
        os.utime(path, wanted.times, follow_symlinks=False)


def _link_owner(path: bytes, wanted: Attributes) -> None:
    if wanted.owner is not None:
        uid, gid = operations.owner(wanted.owner)
        os.chown(path, uid, gid, follow_symlinks=False)


def limits(client: ClientState, request: Reader) -> bytes:
    """Nothing: the largest packet, read and write, and how many handles there may be."""
    numbers = (packets.PACKET_MAX, packets.DATA_MAX, packets.DATA_MAX, handles.limit())
    return _extended_reply(b"".join(map(UINT64.pack, numbers)))


def expand_path(client: ClientState, request: Reader) -> bytes:
    """string path, with ``~`` or ``~user`` in front: that is replaced, then as REALPATH."""
    path = names.expanded(request.path())
    if path is None:
        raise Refused(packets.NO_SUCH_FILE, b"no such user")
    body = string(names.resolved(path))
    return bytes((packets.NAME,)) + UINT32.pack(1) + body + body + UINT32.pack(0)


def home_directory(client: ClientState, request: Reader) -> bytes:
    """string user; empty: the caller, whatever ``$HOME`` says."""
    user = request.string()
    home = names.home_of(user) if user else names.entered_home()
    if home is None:
        raise Refused(packets.FAILURE, b"There is no such user")
    body = string(home)
    return bytes((packets.NAME,)) + UINT32.pack(1) + body + body + UINT32.pack(0)


def names_of_ids(client: ClientState, request: Reader) -> bytes:
    """string of uint32 uids, string of uint32 gids: their names, empty where there is none."""
    uids, gids = request.string(), request.string()
    if len(uids) % 4 or len(gids) % 4:
        raise Malformed("a list of ids is not of numbers")
    found = []
    for ids, name_of in ((uids, client.listing.user), (gids, client.listing.group)):
        named = [(id, name_of(id)) for (id,) in UINT32.iter_unpack(ids)]
        found.append(b"".join(string(b"" if name == b"%d" % id else name) for id, name in named))
    if sum(map(len, found)) > packets.DATA_MAX:
        raise Refused(packets.FAILURE, b"Too many names in one request")
    return _extended_reply(string(found[0]) + string(found[1]))


# in the order in which OpenSSH's server lists them, with the version of each
EXTENSIONS: dict[bytes, tuple[bytes, Callable[[ClientState, Reader], bytes]]] = {
    b"posix-rename@openssh.com": (b"1", posix_rename),
    b"statvfs@openssh.com": (b"2", volume_of_path),
    b"fstatvfs@openssh.com": (b"2", volume_of_handle),
    b"hardlink@openssh.com": (b"1", hard_link),
    b"fsync@openssh.com": (b"1", sync),
    b"lsetstat@openssh.com": (b"1", set_link),
    b"limits@openssh.com": (b"1", limits),
    b"expand-path@openssh.com": (b"1", expand_path),
    b"copy-data": (b"1", operations.copy_data),
    b"home-directory": (b"1", home_directory),
    b"users-groups-by-id@openssh.com": (b"1", names_of_ids),
}


def extended(client: ClientState, request: Reader) -> bytes:
    """EXTENDED: string name, and what that name asks for."""
    found = EXTENSIONS.get(request.string())
    if found is None:
        raise Refused(packets.OP_UNSUPPORTED)
    return found[1](client, request)
