"""The daemon's side of the record of moved files: what the child reports becomes events ``sftp`` and ``scp``.

The child runs with the user's rights, so nothing in a record is trusted: it is cut, its types are checked, control
characters are escaped. Users who tamper with the socket can only lie about themselves.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Final, NamedTuple

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.audit.emitter import Emitter
from teleconch.audit.events import Peer, Scp, Sftp
from teleconch.errors import BadParameter
from teleconch.node.files.report import DATAGRAM_MAX, ERROR_MAX, PATH_MAX, READ, TOGETHER, WRITE
from teleconch.text import shown

TEXT_MAX: Final = 4 * PATH_MAX  # characters: a byte that is not text takes four
BURST: Final = 64  # datagrams read before anything else is done
ROUNDS: Final = 16  # bursts at the end, when the process has stopped: more than a socket holds
_EVENTS: Final = {"sftp": Sftp, "scp": Scp}
_ACTIONS: Final = {READ: "download", WRITE: "upload"}
SIZE_MAX: Final = 1 << 63

log = Logger()


class Transfer(NamedTuple):
    """One file that was moved, or should have been."""

    event: str
    path: str
    action: str
    size: int
    error: str | None

    @property
    def ok(self) -> bool:
        """Whether it was moved whole."""
        return self.error is None


def parse(record: bytes) -> Transfer:
    """One record. BadParameter for anything else."""
    try:
        found = json.loads(record)
        event, path, action, size, error = (found[key] for key in ("event", "path", "action", "size", "error"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadParameter("This is not a record of a moved file.") from None
    if (
        event not in ("sftp", "scp")
        or action not in (READ, WRITE)
        or not isinstance(path, str)
        or type(size) is not int
        or not 0 <= size < SIZE_MAX
        or not isinstance(error, str | None)
    ):
        raise BadParameter("This is not a record of a moved file.")
    return Transfer(
        event, shown(path, longest=TEXT_MAX), action, size, None if error is None else shown(error, longest=ERROR_MAX)
    )


@implementer(IReadDescriptor)
class Transfers:
    """Reads the records of the session ``sid`` of ``who``, and makes events of them.

    :meth:`take_child_end` is for the process; :meth:`close` reads what is still there once the process has ended.
    """

    def __init__(self, reactor: IReactorFDSet, emitter: Emitter, who: Peer, sid: str) -> None:
        """OSError if the machine has no descriptor left."""
        self._reactor = reactor
        self._emitter = emitter
        self._who = who
        self._sid = sid
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket: socket.socket | None = ours
        self._child_end = theirs.detach()
        self._strange = False
        reactor.addReader(self)

    def take_child_end(self) -> int:
        """The process's descriptor; whoever takes it closes it."""
        fd, self._child_end = self._child_end, -1
        return fd

    def close(self) -> None:
        """Emit what was reported, and let go. Idempotent."""
        for _ in range(ROUNDS):
            if not self._read(BURST):
                break
        self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None
        if self._child_end >= 0:
            os.close(self._child_end)
            self._child_end = -1

    def _read(self, most: int) -> bool:
        """Read up to ``most`` datagrams; returns whether there may be more."""
        for _ in range(most):
            if self._socket is None:
                return False
            try:
                data = self._socket.recv(DATAGRAM_MAX)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            if not data:
                self._drop()
                return False
            self._log(data)
        return True

    def _log(self, datagram: bytes) -> None:
        try:
            records = datagram.split(b"\n", TOGETHER)[:TOGETHER]
            for moved in map(parse, records):
                self._emitter.emit(
                    _EVENTS[moved.event](
                        peer=self._who,
                        sid=self._sid,
                        path=moved.path,
                        action=_ACTIONS[moved.action],
                        size=moved.size,
                        error="" if moved.error is None else moved.error or "it failed",
                    )
                )
        except BadParameter as error:
            if not self._strange:  # once: a user could fill the log with it
                self._strange = True
                log.warn("session {sid} reported no file: {error}", sid=self._sid, error=str(error))

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "transfers"

    def doRead(self) -> None:
        self._read(1)  # there is seldom a second one, and asking for it costs as much as reading it

    def connectionLost(self, reason: Failure) -> None:
        self._read(BURST)
        self._drop()
