"""Processes of OS users, as the daemon sees them: started by the launcher, told about by messages.

The protocol and the reasons for a process of its own stand in :mod:`teleconch.node.launcher`.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import teleconch
from teleconch.errors import LimitExceeded, TeleconchError, Unavailable
from teleconch.node import oom
from teleconch.node.start import NO_RULES, IReactorNode, LoginRules, Reply, Request, Started, open_request

EARLY_SIGNALS: Final = 16
END_LIMIT: Final = 3.0  # seconds that the launcher gets to end by itself; it waits for nothing
COMMAND_MAX: Final = 128 * 1024 - 1  # Linux's MAX_ARG_STRLEN, less the final zero

_CODE = "import sys; sys.path.append(sys.argv[1]); from teleconch.node.launcher import main; main()"
_ROOT = str(Path(teleconch.__file__).resolve().parents[1])

log = Logger()


class Process:
    """One process of a user. ``started`` fires with :class:`Started` or fails with a :class:`TeleconchError`;
    ``ended`` fires, once it was reaped, with a status as from ``wait()``, or ``None`` when the launcher was lost."""

    def __init__(self, launcher: Launcher, id: int) -> None:
        self._launcher = launcher
        self._id = id
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
        """The user is gone: SIGHUP, and SIGCONT for what is stopped."""
        self.signal(signal.SIGHUP)
        self.signal(signal.SIGCONT)

    def has_failed(self, error: TeleconchError) -> None:
        """The launcher's child could not become what was asked for."""
        self.started.errback(Failure(error))

    def kill_start(self) -> None:
        """The start takes too long."""
        self._launcher.send(f"kill {self._id}")

    def has_started(self, facts: Started) -> None:
        """The launcher's child is about to exec."""
        self._facts = facts
        self.started.callback(facts)
        early, self._early = self._early, []
        for number in early:
            self.signal(number)


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
        self._outgoing: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._signals: set[bytes] = set()  # among them
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """The launcher's process, ``None`` while there is none."""
        return None if self._popen is None else self._popen.pid

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the launcher's process. OSError where that is not possible."""
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
        """End the launcher, which hangs up every session. Fires when it is gone, after a while in whatever way."""
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
        if why is not None:
            log.critical("the launcher of user processes was lost: {error}", error=why)
            if self._popen is not None:
                deferToThread(_see_end, self._popen).addErrback(_log_failure)
        self._popen = None
        for _, descriptors in self._outgoing:
            _close(descriptors)
        self._outgoing.clear()
        self._signals.clear()
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.ended.callback(None)

    # --- use ---------------------------------------------------------------------------------------------------------

    def spawn(self, request: Request, stdin: int, stdout: int, stderr: int, report: int | None = None) -> Process:
        """Start a process. The descriptors are the process's ends (``report``: of moved files); they are closed here,
        whatever happens.

        LimitExceeded for a command too long; Unavailable where the machine has no means left.
        """
        ends = (stdin, stdout, stderr) if report is None else (stdin, stdout, stderr, report)
        descriptors = tuple(dict.fromkeys(ends))
        try:
            if request.command is not None and len(request.command) > COMMAND_MAX:
                raise LimitExceeded(f"The command is longer than {COMMAND_MAX} bytes; send it as a script on stdin.")
            if self._control is None:
                self.start()
            file, reading, writing = open_request(request, self._rules)
        except OSError as error:
            _close(descriptors)
            raise Unavailable(f"This node cannot start a process now ({error.strerror}); try again later.") from error
        except BaseException:
            _close(descriptors)
            raise
        self._last_id += 1
        process = self._processes[self._last_id] = Process(self, self._last_id)
        Reply(self._reactor, reading, process.has_started, process.has_failed, process.kill_start)
        kinds = {"login": request.terminal, "attended": self._rules.pam_service is not None}
        words = ["start", str(self._last_id), *(kind for kind in kinds if kinds[kind])]
        self._outgoing.append((" ".join(words).encode(), (file, writing, *ends)))
        self._flush()
        return process

    def send(self, message: str) -> None:
        """Queue a signal. One that waits already does not wait twice, as in the kernel: so that a client who sends
        them without end has a few for each running process in the queue, and no more."""
        signal = message.encode()
        if self._control is not None and signal not in self._signals:
            self._signals.add(signal)
            self._outgoing.append((signal, ()))
            self._flush()

    # --- the socket --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._outgoing and self._control is not None:
            message, descriptors = self._outgoing[0]
            try:
                socket.send_fds(self._control, [message], descriptors, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except OSError as error:
                self._drop(str(error))
                return
            self._outgoing.popleft()
            self._signals.discard(message)
            _close(tuple(dict.fromkeys(descriptors)))
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
            _, id, status = message.split()
            process = self._processes.pop(int(id), None)
            if process is not None:
                process.ended.callback(int(status))

    def doWrite(self) -> None:
        self._flush()

    def connectionLost(self, reason: Failure) -> None:
        self._drop(reason.getErrorMessage())


def _see_end(popen: subprocess.Popen[bytes]) -> None:
    """In a thread, for which the daemon's own end waits: so for some seconds only."""
    try:
        popen.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        popen.kill()
        try:
            popen.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            log.critical("the launcher of user processes ({pid}) cannot be killed", pid=popen.pid)


def _close(descriptors: tuple[int, ...]) -> None:
    for fd in descriptors:
        os.close(fd)


def _log_failure(failure: Failure) -> None:
    log.failure("waiting for the launcher's end failed", failure)
