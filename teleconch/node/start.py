"""The start of one process: what the daemon asks, and what the launcher's child says before it execs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.errors import TeleconchError, Unavailable, from_code
from teleconch.node.launch.launcher import text

START_DEADLINE: Final = 60.0  # seconds for account look-up, home directory and exec
REPLY_MAX: Final = 16 * 1024

log = Logger()


class IReactorNode(IReactorFDSet, IReactorTime):
    """What the node asks of a reactor: descriptors and time."""


@frozen
class LoginRules:
    """What holds for every process of a node: the PAM service (``None``: no PAM), and whether ``~/.tsh/environment``
    is read."""

    pam_service: str | None = None
    user_environment: bool = False


NO_RULES: Final = LoginRules()


@frozen
class Request:
    """What is to run: as whom, a command (``None``: a login shell), with which variables, on a terminal or pipes.

    ``serve`` names what the launcher's child does instead, without an exec (``node.launched``). ``programs`` is the
    folder of ``files.programs``, where files may be moved. ``rc`` is ``rc.SYSTEM`` or ``USER`` for a session of
    the user's, and ``cookie`` is X11's, for that script.
    """

    login: str
    command: bytes | None
    environment: dict[bytes, bytes]
    terminal: bool
    serve: str | None = None
    programs: str | None = None
    rc: str | None = None
    cookie: bytes = b""

    def encode(self, rules: LoginRules = NO_RULES) -> bytes:
        """The form that the launcher's child reads."""
        return json.dumps(
            {
                "login": self.login,
                "command": None if self.command is None else text(self.command),
                "environment": {text(name): text(value) for name, value in self.environment.items()},
                "terminal": self.terminal,
                "serve": self.serve,
                "programs": self.programs,
                "rc": self.rc,
                "cookie": text(self.cookie),
                "pam": rules.pam_service,
                "user_environment": rules.user_environment,
            }
        ).encode()


@frozen
class Started:
    """A process that was started: its id, its user's id, and what the passwd entry says."""

    pid: int
    uid: int
    home: str
    shell: str


def open_request(asked: bytes) -> tuple[int, int, int]:
    """An encoded request as a readable file, and the reply pipe's reading (non-blocking) and writing end. OSError."""
    file = os.memfd_create("session", os.MFD_CLOEXEC)
    try:
        os.write(file, asked)
        os.lseek(file, 0, os.SEEK_SET)
        reading, writing = os.pipe2(os.O_CLOEXEC)
    except OSError:
        os.close(file)
        raise
    os.set_blocking(reading, False)
    return file, reading, writing


@implementer(IReadDescriptor)
class Reply:
    """Reads what the child says between fork and exec, until exec closes the pipe; then calls ``started`` or
    ``failed``. At the deadline it calls ``too_slow`` and no longer waits, whatever holds the pipe."""

    def __init__(
        self,
        reactor: IReactorNode,
        fd: int,
        started: Callable[[Started], None],
        failed: Callable[[TeleconchError], None],
        too_slow: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._fd = fd
        self._started = started
        self._failed = failed
        self._too_slow = too_slow
        self._heard = b""
        self._deadline = reactor.callLater(START_DEADLINE, self._pass_deadline)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "start"

    def doRead(self) -> None:
        try:
            data = os.read(self._fd, REPLY_MAX)
        except BlockingIOError:
            return
        self._heard += data
        if not data or len(self._heard) > REPLY_MAX:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        self._end()

    def _pass_deadline(self) -> None:
        self._too_slow()
        self._end()

    def _end(self) -> None:
        if self._fd < 0:
            return
        self._reactor.removeReader(self)
        os.close(self._fd)
        self._fd = -1
        if self._deadline.active():
            self._deadline.cancel()
        try:
            facts = understand(self._heard)
        except TeleconchError as error:
            self._failed(error)
        else:
            self._started(facts)


def understand(heard: bytes) -> Started:
    """What the child said, as facts or as the error that it met. Unavailable if it said nothing complete."""
    try:
        lines = [json.loads(line) for line in heard.splitlines()]
        for line in lines:
            if "error" in line:
                if "detail" in line:
                    log.error("the start of a session failed: {detail}", detail=line["detail"])
                raise from_code(line["code"], line["error"])
        return Started(**lines[0])
    except (ValueError, LookupError, TypeError):
        raise Unavailable("This node could not start the session in time; try again later.") from None
