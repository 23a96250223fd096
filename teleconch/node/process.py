"""Processes of OS users, as the daemon sees them: started by the launcher, which tells of them by messages.

The protocol and the reasons for a process of its own are in :mod:`teleconch.node.launch.launcher`.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import teleconch
from teleconch.errors import LimitExceeded, TeleconchError, Unavailable
from teleconch.node.launch import oom
from teleconch.node.start import NO_RULES, IReactorNode, LoginRules, Reply, Request, Started, open_request
from teleconch.node.starting import Start, Starts
from teleconch.ssh.account import Account

EARLY_SIGNALS: Final = 16
END_LIMIT: Final = 3.0  # seconds that the launcher gets to end by itself; nothing holds it up
OWN_DESCRIPTORS: Final = 3  # of a start, beside the process's: what is asked, and both ends of the answer
NOT_STARTED: Final = 255 << 8  # as from wait()
AGAIN_AFTER: Final = 0.05  # seconds
COMMAND_MAX: Final = 128 * 1024 - 1  # Linux's MAX_ARG_STRLEN, less the final zero

# The system has no room for a message now. ETOOMANYREFS: more descriptors are under way than an ordinary user may have
# open (unix(7)); the launcher takes them out, and then there is room again.
_NO_ROOM: Final = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))

_CODE = "import sys; sys.path.append(sys.argv[1]); from teleconch.node.launched import main; main()"
_ROOT = str(Path(teleconch.__file__).resolve().parents[1])

log = Logger()


class Process:
    """One process of a user. ``started`` fires with :class:`Started` or fails with a :class:`TeleconchError`; ``ended``
    fires, once the process was reaped, with a status as from ``wait()``, or ``None`` when the launcher was lost."""

    def __init__(self, launcher: Launcher, id: int, login: str, start: bytes, held: Start) -> None:
        """``start`` is the message that asks for it."""
        self._launcher = launcher
        self._id = id
        self._login = login
        self._start = start
        self._held = held
        self._facts: Started | None = None
        self._early: list[int] = []  # signals for a process that is being started
        self.started: Deferred[Started] = Deferred()
        self.ended: Deferred[int | None] = Deferred()

    def signal(self, number: int) -> None:
        """Send a signal to the process group, with the user's rights. Nothing happens once it has ended."""
        if self._facts is not None:
            self._launcher.send(f"signal {self._id} {number} {self._facts.uid} {self._facts.pid}")
        elif len(self._early) < EARLY_SIGNALS:
            self._early.append(number)

    def hang_up(self) -> None:
        """The user is gone: SIGHUP, and SIGCONT for what is stopped. A start that the launcher does not know of yet
        never happens."""
        if self._launcher.withdraw(self._start):
            return
        self.signal(signal.SIGHUP)
        self.signal(signal.SIGCONT)

    def has_failed(self, error: TeleconchError) -> None:
        """The launcher's child could not become what was asked for."""
        self._held.over()
        self.started.errback(Failure(error))

    def kill_start(self) -> None:
        """The start is taking too long."""
        if not self._launcher.withdraw(self._start):
            self._launcher.send(f"kill {self._id}")

    def has_started(self, facts: Started) -> None:
        """The launcher's child is about to exec."""
        self._held.over()
        self._facts = facts
        self._launcher.uids[self._login] = facts.uid
        self.started.callback(facts)
        early, self._early = self._early, []
        for number in early:
            self.signal(number)


@frozen
class _Waiting:
    """A start that the launcher does not know of yet."""

    id: int
    descriptors: tuple[int, ...]  # one may be there several times
    held: Start

    def let_go(self) -> None:
        _close(self.descriptors)
        self.held.taken()


@implementer(IReadWriteDescriptor)
class Launcher:
    """The daemon's end. :meth:`start` it once, then :meth:`spawn`; :meth:`stop` hangs up what still runs."""

    def __init__(self, reactor: IReactorNode, rules: LoginRules = NO_RULES) -> None:
        self._reactor = reactor
        self._rules = rules
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)  # before the daemon raises its own
        self._control: socket.socket | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._processes: dict[int, Process] = {}
        self._starts = Starts()
        self._outgoing: OrderedDict[bytes, _Waiting | None] = OrderedDict()  # messages, and what goes with them
        self._again: IDelayedCall | None = None  # while the system has no room for a message
        self._last_id = 0
        self.uids: dict[str, int] = {}  # of logins that have had a process
        self.held: Callable[[str, int], None] = lambda user, seconds: None  # see held_up

    @property
    def pid(self) -> int | None:
        """The launcher's process, or ``None``."""
        return None if self._popen is None else self._popen.pid

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the launcher's process. OSError if that is not possible."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        score = [] if oom.before() is None else [str(oom.before())]
        with theirs:
            try:
                self._popen = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _CODE, _ROOT, *score],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env={"LC_ALL": "C.UTF-8"},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        # One that is started again must not give sessions the daemon's limit: programs with select() break beyond 1024.
        resource.prlimit(self._popen.pid, resource.RLIMIT_NOFILE, self._files)
        ours.setblocking(False)
        self._control = ours
        self._reactor.addReader(self)

    async def stop(self) -> None:
        """End the launcher, which hangs up every session. Returns when it is gone, or after a while in any case."""
        popen = self._popen
        self._drop(None)
        if popen is not None:
            await deferToThread(_see_end, popen)

    def _drop(self, why: str | None) -> None:
        if self._control is None:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._control.close()
        self._control = None
        if self._again is not None and self._again.active():
            self._again.cancel()
        if why is not None:
            log.critical("the launcher of user processes was lost: {error}", error=why)
            if self._popen is not None:
                deferToThread(_see_end, self._popen).addErrback(_log_failure)
        self._popen = None
        for waiting in self._outgoing.values():
            if waiting is not None:
                waiting.let_go()
        self._outgoing.clear()
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.ended.callback(None)

    # --- use ---------------------------------------------------------------------------------------------------------

    def spawn(
        self, request: Request, stdin: int, stdout: int, stderr: int, report: int | None = None, *, owner: Account
    ) -> Process:
        """Start a process. The descriptors are the process's ends (``report``: of moved files); they are closed here,
        whatever happens. ``owner`` is the account of the asking connection.

        LimitExceeded for a command too long, or too many starts at once; Unavailable if the machine has no means left.
        """
        ends = (stdin, stdout, stderr) if report is None else (stdin, stdout, stderr, report)
        held = None
        try:
            if request.command is not None and len(request.command) > COMMAND_MAX:
                raise LimitExceeded(f"The command is longer than {COMMAND_MAX} bytes; send it as a script on stdin.")
            asked = request.encode(self._rules)
            held = self._starts.begin(owner, len(asked), len(set(ends)) + OWN_DESCRIPTORS)
            if self._control is None:
                self.start()
            file, reading, writing = open_request(asked)
        except BaseException as error:
            _close(ends)
            if held is not None:
                held.over()
            if not isinstance(error, OSError):
                raise
            raise Unavailable(f"This node cannot start a process now ({error.strerror}); try again later.") from error
        self._last_id += 1
        kinds = {"login": request.terminal, "attended": self._rules.pam_service is not None}
        words = ["start", str(self._last_id), *(kind for kind in kinds if kinds[kind])]
        message = " ".join(words).encode()
        process = self._processes[self._last_id] = Process(self, self._last_id, request.login, message, held)
        Reply(self._reactor, reading, process.has_started, process.has_failed, process.kill_start)
        self._outgoing[message] = _Waiting(self._last_id, (file, writing, *ends), held)
        self._flush()
        return process

    def send(self, message: str) -> None:
        """Queue a signal. One that waits already does not wait twice, as in the kernel: a client that sends them
        without end has only a few for each running process in the queue."""
        signal = message.encode()
        if self._control is not None and signal not in self._outgoing:
            self._outgoing[signal] = None
            self._flush()

    def withdraw(self, start: bytes) -> bool:
        """Whether the launcher does not know of this start yet; then it never will, and its process has ended."""
        waiting = self._outgoing.pop(start, None)
        if waiting is None:
            return False
        waiting.let_go()
        self._processes.pop(waiting.id).ended.callback(NOT_STARTED)
        return True

    def rest(self) -> None:
        """Until the next start, the daemon holds nothing of any user's."""
        self.send("rest")

    # --- the socket --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._again is not None and self._again.active():
            return
        while self._outgoing and self._control is not None:
            message, waiting = next(iter(self._outgoing.items()))
            descriptors = () if waiting is None else waiting.descriptors
            try:
                socket.send_fds(self._control, [message], descriptors, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._reactor.removeWriter(self)
                    self._again = self._reactor.callLater(AGAIN_AFTER, self._flush)
                else:
                    self._drop(str(error))
                return
            del self._outgoing[message]
            if waiting is not None:
                waiting.let_go()
        if self._control is not None:
            self._reactor.removeWriter(self)

    def fileno(self) -> int:
        return -1 if self._control is None else self._control.fileno()

    def logPrefix(self) -> str:
        return "launcher"

    def doRead(self) -> None:
        for _ in range(64):
            if self._control is None:
                return
            try:
                message = self._control.recv(256)
            except BlockingIOError:
                return
            except OSError as error:
                self._drop(str(error))
                return
            if not message:
                self._drop("its process ended")
                return
            verb, number, value = message.split(b" ", 2)
            if verb == b"held":
                self.held(value.decode("utf-8", "replace"), int(number))
                continue
            process = self._processes.pop(int(number), None)
            if process is not None:
                process.ended.callback(int(value))

    def doWrite(self) -> None:
        self._flush()

    def connectionLost(self, reason: Failure) -> None:
        self._drop(reason.getErrorMessage())


def _see_end(popen: subprocess.Popen[bytes]) -> None:
    """In a thread that the daemon's own end waits for: so for some seconds only."""
    try:
        popen.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        popen.kill()
        try:
            popen.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            log.critical("the launcher of user processes ({pid}) cannot be killed", pid=popen.pid)


def _close(descriptors: tuple[int, ...]) -> None:
    for fd in dict.fromkeys(descriptors):
        os.close(fd)


def _log_failure(failure: Failure) -> None:
    log.failure("waiting for the launcher's end failed", failure)
