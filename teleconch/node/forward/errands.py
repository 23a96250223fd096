"""The daemon's end of the user's child: errands are asked for, sockets come back.

There is one child for each connection, started with the first errand; the protocol is in
:mod:`teleconch.node.forward.child`. Whatever users do to the child (it runs with their rights), they harm only their
own connection: errands time out, and their number is bounded.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from teleconch.errors import BadParameter, ConnectionProblem, LimitExceeded, TeleconchError, Unavailable
from teleconch.node.forward.child import MESSAGE_MAX
from teleconch.node.forward.listening import close_all
from teleconch.node.launch.launcher import text
from teleconch.node.process import Launcher, Process
from teleconch.node.start import IReactorNode, Request, Started
from teleconch.ssh.account import Account

ERRANDS_MAX: Final = 1000  # that wait for an answer
DEADLINE: Final = 40.0  # seconds; a dial gives up earlier
SOCKETS_MAX: Final = 8  # in one answer
NO_ANSWER: Final = 0  # the id of an errand without an answer

log = Logger()


class NoMeans(Unavailable):
    """The machine has no descriptors or memory left for this; trying again can help."""


@frozen
class Answer:
    """Facts, and sockets that are ours to close."""

    facts: dict[str, Any]
    sockets: list[socket.socket]

    def only(self) -> socket.socket:
        """The one socket. ConnectionProblem for another number of them."""
        if len(self.sockets) != 1:
            raise self._odd()
        return self.sockets[0]

    def number(self, name: str) -> int:
        """One of the facts, a port or a display. ConnectionProblem if it is neither."""
        number = self.facts.get(name)
        if type(number) is not int or not 0 <= number <= 0xFFFF:
            raise self._odd()
        return number

    def _odd(self) -> ConnectionProblem:
        close_all(self.sockets)
        return ConnectionProblem("The forwarding process gave an invalid answer.")


def understand(message: bytes, descriptors: Sequence[int]) -> Answer:
    """An answer as it came, with an ``id`` and stream sockets only. BadParameter, and everything is closed."""
    left = list(descriptors)
    sockets: list[socket.socket] = []
    try:
        while left:
            sockets.append(socket.socket(fileno=left[0]))  # OSError for anything but a socket
            del left[0]
        facts = json.loads(message)
        if type(facts) is dict and type(facts.get("id")) is int and all(s.type == socket.SOCK_STREAM for s in sockets):
            return Answer(facts, sockets)
    except (OSError, ValueError, RecursionError):
        pass
    close_all(sockets)
    for fd in left:
        os.close(fd)
    raise BadParameter("it sent something that is not an answer")


@implementer(IReadWriteDescriptor)
class Errands:
    """What ``login``'s child does for one connection. Failures are a :class:`TeleconchError` whose text is the reason
    in the system's words (``Connection refused``), as sshd gives it."""

    def __init__(self, reactor: IReactorNode, launcher: Launcher, login: str, account: Callable[[], Account]) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._login = login
        self._account = account
        self._control: socket.socket | None = None
        self._process: Process | None = None
        self._waiting: dict[int, Deferred[Answer]] = {}
        self._outgoing: deque[bytes] = deque()
        self._last_id = 0
        self._closed = False
        self._broken: str | None = None  # why the child was lost before it was known to have started
        self.uid: int | None = None  # known once the child has started

    # --- errands -----------------------------------------------------------------------------------------------------

    async def dial(self, host: bytes, port: int) -> socket.socket:
        """A connection to the first address of ``host`` that answers."""
        return (await self._ask("dial", host=text(host), port=port)).only()

    async def dial_unix(self, path: bytes) -> socket.socket:
        """A connection to the socket at ``path``."""
        return (await self._ask("dial-unix", path=text(path))).only()

    async def listen(self, hosts: Sequence[str], port: int) -> tuple[list[socket.socket], int]:
        """Listening sockets, and the port that they have."""
        answer = await self._ask("listen", hosts=list(hosts), port=port)
        return answer.sockets, answer.number("port")

    async def listen_unix(self, path: bytes) -> list[socket.socket]:
        """A socket at ``path``."""
        return (await self._ask("listen-unix", path=text(path))).sockets

    async def agent(self) -> tuple[list[socket.socket], str]:
        """A socket in a folder of its own, and its path."""
        answer = await self._ask("agent")
        return answer.sockets, str(answer.facts.get("path"))

    async def display(self) -> tuple[list[socket.socket], int]:
        """The sockets of a free X11 display, and its number."""
        answer = await self._ask("display")
        return answer.sockets, answer.number("number")

    def remove(self, path: bytes) -> None:
        """Take away a socket that was made at ``path``."""
        if self._control is not None:
            self._send(id=NO_ANSWER, do="remove", path=text(path))

    async def _ask(self, do: str, **fields: Any) -> Answer:
        if self._closed:
            raise ConnectionProblem("The connection is closed.")
        if len(self._waiting) >= ERRANDS_MAX:
            raise LimitExceeded("Too many forwarded connections are being opened; try again later.")
        if self._control is None:
            self._start()
        self._last_id += 1
        deferred = self._waiting[self._last_id] = Deferred()
        self._send(id=self._last_id, do=do, **fields)
        deferred.addTimeout(DEADLINE, self._reactor)
        id = self._last_id
        try:
            return await deferred
        except DeferredTimeout:
            if self._outgoing:  # its user has stopped it, and requests to it would pile up here
                self._lost("it does not answer")
            raise ConnectionProblem("Connection timed out") from None
        finally:
            self._waiting.pop(id, None)

    # --- the child ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            process = self._launcher.spawn(
                Request(self._login, None, {}, False, serve="forward"),
                *(theirs.detach(), null, null),
                owner=self._account(),
            )
        except BaseException:
            ours.close()
            theirs.close()
            raise
        ours.setblocking(False)
        self._control, self._process = ours, process
        self._reactor.addReader(self)
        process.started.addCallbacks(self._started, self._not_started).addErrback(_log_failure)

    def _started(self, facts: Started) -> None:
        self.uid = facts.uid
        if self._broken is not None:
            self._lost(self._broken)

    def _not_started(self, failure: Failure) -> None:
        error = failure.value
        self._drop(error if isinstance(error, TeleconchError) else Unavailable("This node cannot forward now."))

    def close(self) -> None:
        """The connection is over: the child removes what it made, and ends. Idempotent."""
        self._closed = True
        self._drop(ConnectionProblem("The connection is closed."))

    def _drop(self, error: TeleconchError) -> None:
        if self._control is None:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._control.close()
        self._control = self._broken = None
        if self._process is not None:
            self._process.hang_up()  # it would see the end by itself, unless its user has stopped it
            self._process = None
        self._outgoing.clear()
        waiting, self._waiting = self._waiting, {}
        for deferred in waiting.values():
            deferred.errback(Failure(error))

    # --- the socket --------------------------------------------------------------------------------------------------

    def _send(self, **message: Any) -> None:
        self._outgoing.append(json.dumps(message).encode())
        self._flush()

    def _flush(self) -> None:
        while self._outgoing and self._control is not None:
            try:
                self._control.send(self._outgoing[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except OSError as error:
                self._lost(str(error))
                return
            self._outgoing.popleft()
        if self._control is not None:
            self._reactor.removeWriter(self)

    def fileno(self) -> int:
        return -1 if self._control is None else self._control.fileno()

    def logPrefix(self) -> str:
        return "forwarding"

    def doRead(self) -> None:
        for _ in range(64):
            if self._control is None:
                return
            try:
                message, descriptors, _, _ = socket.recv_fds(
                    self._control, MESSAGE_MAX, SOCKETS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(str(error))
                return
            if not message:
                for fd in descriptors:
                    os.close(fd)
                self._lost("it ended")
                return
            try:
                answer = understand(message, descriptors)
            except BadParameter as error:
                self._lost(str(error))
                return
            self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        facts = answer.facts
        deferred = self._waiting.pop(facts["id"], None)
        if deferred is None or deferred.called:  # it came too late
            close_all(answer.sockets)
        elif "error" not in facts:
            for sock in answer.sockets:
                sock.setblocking(False)
            deferred.callback(answer)
        else:
            close_all(answer.sockets)
            if "detail" in facts:
                log.error("forwarding as {login} broke: {detail}", login=self._login, detail=facts["detail"])
            kind = NoMeans if facts.get("short") else ConnectionProblem
            deferred.errback(Failure(kind(str(facts["error"]))))

    def _lost(self, why: str) -> None:
        """Someone ended the child. The next errand starts another."""
        if self.uid is not None:
            log.warn("the forwarding process of {login} was lost: {error}", login=self._login, error=why)
            self._drop(Unavailable("This node cannot forward now."))
            return
        if self._control is not None:
            self._reactor.removeReader(self)
        self._broken = why  # the start tells more

    def doWrite(self) -> None:
        self._flush()

    def connectionLost(self, reason: Failure) -> None:
        self._lost(reason.getErrorMessage())


def _log_failure(failure: Failure) -> None:
    log.failure("the start of a forwarding process broke", failure)
