"""Global requests of a connection (RFC 4254 section 4), answered one after the other, and keep-alives made of them.

No Twisted."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from teleconch.codec import boolean, string
from teleconch.errors import TeleconchError
from teleconch.ssh import limits, messages
from teleconch.ssh.carrier import Asker
from teleconch.ssh.problems import ProtocolProblem, RequestRefused, SSHProblem
from teleconch.ssh.reader import Reader

Told = Callable[[bytes | RequestRefused], None]

_KEEPALIVE: Final = b"keepalive@openssh.com"


def _cost(data: bytes) -> int:
    return len(data) + limits.EVENT_COST


class GlobalRequests:
    """Both sides' questions. ``decide(name, data)`` answers the peer's, at once or as an awaitable."""

    def __init__(self, connection: Asker, decide: Callable[[bytes, bytes], Any]) -> None:
        self._connection = connection
        self._decide = decide
        self._waiting: deque[tuple[bytes, bool, bytes]] = deque()  # the peer's
        self._busy = False
        self._received = self._answered = 0
        self._after_answers: deque[tuple[int, Callable[[bool], None]]] = deque()  # how many answers each waits for
        self._asked: deque[Told | None] = deque()  # ours; None for a keep-alive
        self._stopped = False

    # -- ours --

    def ask(self, name: bytes, data: bytes, told: Told | None) -> None:
        """``told`` gets the reply's bytes or RequestRefused; without it, no reply is wanted."""
        if self._stopped:
            if told is not None:
                told(RequestRefused("the connection is gone"))
            return
        want_reply = boolean(told is not None)
        self._connection.transport.sendPacket(messages.GLOBAL_REQUEST, string(name) + want_reply + data)
        if told is not None:
            self._asked.append(told)

    def keep_alive(self, most: int) -> bool:
        """Ask for a sign of life, unless ``most`` such questions are unanswered; whether it was asked."""
        if self._asked.count(None) >= most:
            return False
        self._connection.transport.sendPacket(messages.GLOBAL_REQUEST, string(_KEEPALIVE) + boolean(True))
        self._asked.append(None)
        return True

    def succeeded(self, packet: bytes) -> None:
        """REQUEST_SUCCESS."""
        told = self._oldest()
        if told is not None:
            told(packet)

    def failed(self, packet: bytes) -> None:
        """REQUEST_FAILURE; to a keep-alive that is as good an answer as any."""
        told = self._oldest()
        if told is not None:
            told(RequestRefused("the peer refused a global request"))

    def _oldest(self) -> Told | None:
        if not self._asked:
            raise ProtocolProblem("an answer came to no question")
        return self._asked.popleft()

    # -- the peer's --

    def received(self, packet: bytes) -> None:
        """GLOBAL_REQUEST: ``string name, boolean want reply``, and what the request adds."""
        reader = Reader(packet)
        name, want_reply, data = reader.string(), reader.boolean(), reader.rest()
        if len(self._waiting) >= limits.PENDING_EVENTS or not self._connection.account.take(_cost(data)):
            raise ProtocolProblem("too many requests wait for an answer")
        self._waiting.append((name, want_reply, data))
        self._received += 1
        if not self._busy:
            self._busy = True
            self._connection.later(self._answer_all())

    @property
    def all_answered(self) -> bool:
        """Whether all that the peer has asked so far is answered."""
        return self._answered == self._received

    def after_answers(self, told: Callable[[bool], None]) -> None:
        """``told`` gets True once all that the peer has asked so far is answered, or False if that never happens."""
        self._after_answers.append((self._received, told))

    async def _answer_all(self) -> None:
        while self._waiting and not self._stopped:
            name, want_reply, data = self._waiting.popleft()
            try:
                answer = await self._answer(name, data)
            finally:
                self._connection.account.give(_cost(data))
            if want_reply and not self._stopped:
                self._reply(answer)
            self._answered += 1
            while self._after_answers and self._after_answers[0][0] <= self._answered:
                self._after_answers.popleft()[1](True)
        self._busy = False

    def _reply(self, answer: Any) -> None:
        if answer is False or answer is None or answer == 0:
            self._connection.transport.sendPacket(messages.REQUEST_FAILURE, b"")
        else:
            reply = answer if isinstance(answer, bytes) else b""
            self._connection.transport.sendPacket(messages.REQUEST_SUCCESS, reply)

    async def _answer(self, name: bytes, data: bytes) -> Any:
        try:
            answer = self._decide(name, data)
            return await answer if inspect.isawaitable(answer) else answer
        except (SSHProblem, TeleconchError) as refusal:
            self._connection.log.info("global request refused: {error}", error=str(refusal))
        except Exception:  # noqa: BLE001 - the peer gets a plain refusal, the log gets all of it
            self._connection.log.failure("a global request broke")
        return False

    def stop(self) -> None:
        """The connection is gone."""
        self._stopped = True
        while self._waiting:
            self._connection.account.give(_cost(self._waiting.pop()[2]))
        asked, self._asked = self._asked, deque()
        for told in asked:
            if told is not None:
                told(RequestRefused("the connection is gone"))
        while self._after_answers:
            self._after_answers.popleft()[1](False)


class KeepAlive:
    """Asks for a sign of life every ``interval`` seconds; and gives up, as sshd does, an interval after
    ``count`` intervals in silence (``interval`` 0: never).

    It also asks while data flows, so that whatever stands in between never sees an idle connection.
    """

    def __init__(self, connection: Asker, requests: GlobalRequests, interval: float, count: int) -> None:
        self._connection, self._requests = connection, requests
        self._interval, self._count = interval, count
        self._missed = 0
        self._call: Any = None
        self.heard = True  # set by whatever comes from the peer

    def start(self) -> None:
        if self._interval:
            self._call = self._connection.transport.reactor.callLater(self._interval, self._ask)

    def _ask(self) -> None:
        self._missed = 0 if self.heard else self._missed + 1
        self.heard = False
        if self._missed > self._count:
            self._connection.transport.problem(SSHProblem("the peer does not answer any more"))
            self._connection.transport.abortConnection()
            return
        self._requests.keep_alive(self._count + 1)
        self.start()

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
