"""Sockets that listen, made with the user's rights: TCP, Unix sockets, the agent's, an X11 display's.

Runs in the user's child: standard library only. Every failure is an OSError.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Final

BACKLOG: Final = 128
BIND_MASK: Final = 0o177  # sshd's StreamLocalBindMask: nobody but the owner connects
PRIVILEGED: Final = 1024  # ports below are root's, whatever the kernel was told
SAME_PORT_TRIES: Final = 5
X11_PORT: Final = 6000
X11_OFFSET: Final = 10  # sshd's X11DisplayOffset
X11_DISPLAYS: Final = 1000
LOOPBACK: Final = ("::1", "127.0.0.1")

_NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EINVAL)  # this machine has no such address


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close each."""
    for sock in sockets:
        sock.close()


def _bound(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _addresses(hosts: Sequence[str], port: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for host in hosts:
        for family, _, _, _, address in socket.getaddrinfo(host.encode("latin-1"), port, type=socket.SOCK_STREAM):
            found.append((family, str(address[0])))
    return found


def listen_tcp(hosts: Sequence[str], port: int) -> tuple[list[socket.socket], int]:
    """One socket for each address of ``hosts`` that can be bound, and the port, which all share.

    As with sshd, one address is enough. For port 0 the kernel chooses; another port is tried if it is not free on every
    address.
    """
    if 0 < port < PRIVILEGED and os.geteuid() != 0:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    addresses = _addresses(hosts, port)
    for tries_left in range(SAME_PORT_TRIES, -1, -1):
        sockets: list[socket.socket] = []
        chosen, taken = port, False
        problem = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for family, host in addresses:
            try:
                sock = _bound(family, host, chosen)
            except OSError as error:
                problem = error
                taken = taken or error.errno == errno.EADDRINUSE
                continue
            sockets.append(sock)
            chosen = sock.getsockname()[1]
        if not sockets:
            raise problem
        if not (taken and port == 0 and tries_left):
            return sockets, chosen
        close_all(sockets)
    raise AssertionError("the last try returns or raises")


def listen_unix(path: bytes) -> socket.socket:
    """A socket at ``path``, for the owner alone. What is there already stays (StreamLocalBindUnlink no)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    old = os.umask(BIND_MASK)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(old)
    return sock


def agent_folder() -> str:
    """A new folder that only the user can enter."""
    while True:
        path = "/tmp/ssh-" + base64.b32encode(os.urandom(7)).decode("ascii")[:10]  # noqa: S108 - made here, for us alone
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        return path


def listen_display() -> tuple[list[socket.socket], int]:
    """The sockets of the first free X11 display, on loopback only, and its number."""
    for number in range(X11_OFFSET, X11_DISPLAYS):
        sockets: list[socket.socket] = []
        for host in LOOPBACK:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                sockets.append(_bound(family, host, X11_PORT + number))
            except OSError as error:
                if error.errno in _NOT_HERE:
                    continue
                close_all(sockets)
                sockets = []
                if error.errno != errno.EADDRINUSE:
                    raise
                break
        if sockets:
            return sockets, number
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
