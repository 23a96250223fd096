"""How much one user may have in progress through a proxy, on all connections together, and how much all may at one
node.

Nodes and the auth server see a proxy as one source of connections. So that no user fills up what they hold for it, a
dial waits for its turn: a user may have only so many *young* connections (those being dialled, or whose user's side has
not finished a key exchange), and may begin only so many a second. When one node has too many young ones, the user with
the most loses their oldest. A connection whose user's side says nothing at all is ended.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from teleconch.admission import Queue, Room
from teleconch.errors import ConnectionProblem, LimitExceeded
from teleconch.proxy.beginning import Beginning
from teleconch.rate import Bucket, Rate
from teleconch.ssh.relay import End

log = Logger()

YOUNG_PER_USER: Final = 256
YOUNG_AT_NODE: Final = Room(400, YOUNG_PER_USER)  # fewer than a node accepts from one source before the keys
DIALS_PER_SECOND: Final = 200.0
DIALS_AT_ONCE: Final = 500  # dials that may begin faster than that
DIALS: Final = Rate(DIALS_AT_ONCE, 1 / DIALS_PER_SECOND)
LINE: Final = 1000  # dials of one user that may wait for their turn
LINE_SECONDS: Final = 30.0  # that a dial waits
CONNECTIONS_PER_USER: Final = 4096  # young or not: each takes a descriptor of this process
SILENT_SECONDS: Final = 15.0  # until the user's side sends its version line, which clients send at once
_T = TypeVar("_T")
_TOO_MANY: Final = "Too many connections are being opened at once: wait for some of them."


class Turn:
    """One connection to a node for a user, from before it is dialled until it is gone."""

    def __init__(self, shares: Shares, share: _Share, user: str, node: str) -> None:
        self._shares = shares
        self._share = share
        self.user = user
        self.node = node
        self._end: End | None = None
        self._dialling: Deferred[Any] | None = None
        self._beginning: Beginning | None = Beginning()
        self._silent: Any = None
        self._over = False

    @property
    def end(self) -> End:
        """The node's end, once it has been dialled."""
        assert self._end is not None
        return self._end

    async def dial(self, dial: Coroutine[Deferred[Any], Any, End]) -> None:
        """Await ``dial``, whose result becomes :attr:`end`. LimitExceeded if the connection had to make room; also what
        ``dial`` raises."""
        self._dialling = Deferred.fromCoroutine(dial)
        try:
            self._end = await self._dialling
        except (CancelledError, ConnectingCancelledError):
            if self._over:
                raise LimitExceeded(_TOO_MANY) from None
            raise
        finally:
            self._dialling = None
            if self._end is None:
                self.gone()
        if self._over or self._end.is_gone:
            self._end.abort()
            self.gone()
            raise LimitExceeded(_TOO_MANY) if self._over else ConnectionProblem("it closed the connection")
        self._end.when_gone = self.gone
        self._silent = self._shares.clock.callLater(SILENT_SECONDS, self._said_nothing)

    def heard(self, data: bytes) -> bool:
        """The user's side sends ``data``. Returns False once this need not be called any more."""
        beginning = self._beginning
        if beginning is None:
            return False
        beginning.heard(data)
        if beginning.speaks:
            self._stop_waiting()
        if beginning.has_keys:
            self._grown()
        return self._beginning is not None

    def abortConnection(self) -> None:
        """End the connection: another one needs the room."""
        log.debug("a connection of {user} to {node} makes room for another", user=self.user, node=self.node)
        dialling, end = self._dialling, self._end
        self.gone()
        if dialling is not None:
            dialling.cancel()
        elif end is not None:
            end.abort()

    def _said_nothing(self) -> None:
        self._silent = None
        log.warn(
            "a connection of {user} to {server_id} is ended: nothing came over it",
            user=self.user,
            server_id=self.node,
        )
        self.end.abort()

    def gone(self) -> None:
        """The connection has closed, or was never made."""
        self._grown()
        self._stop_waiting()
        if not self._over:
            self._over = True
            self._share.connections -= 1

    def _stop_waiting(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None

    def _grown(self) -> None:
        if self._beginning is not None:
            self._beginning = None
            self._shares.left(self)
            self._shares.free(self._share)  # last: a waiter may take the place within this call


class _Share:
    """What one user holds."""

    def __init__(self) -> None:
        self.places = DeferredSemaphore(YOUNG_PER_USER)
        self.line = 0
        self.connections = 0
        self.dials = Bucket()

    def idle(self, now: float) -> bool:
        return not (self.line or self.connections or DIALS.at(self.dials, now).spent)


class Shares:
    """The shares of every user of one proxy."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self._users: OrderedDict[str, _Share] = OrderedDict()
        self._nodes: dict[str, Queue[Turn]] = {}
        self._freed: deque[_Share] = deque()
        self._freeing = False

    async def turn(self, user: str, node: str) -> Turn:
        """Wait until ``user`` may dial the node with this UUID. LimitExceeded."""
        share = self._share(user)
        if share.connections >= CONNECTIONS_PER_USER:
            raise LimitExceeded("You have too many connections through this proxy open: end some of them.")
        await self._in_line(share, share.places.acquire)
        try:
            await self._paced(share)
        except BaseException:
            self.free(share)
            raise
        share.connections += 1
        turn = Turn(self, share, user, node)
        leaving = self._nodes.setdefault(node, Queue(YOUNG_AT_NODE)).add(turn, user)
        if leaving is not None:
            leaving.abortConnection()
        return turn

    async def pace(self, user: str) -> None:
        """Wait until ``user`` may begin one more connection. LimitExceeded."""
        await self._paced(self._share(user))

    async def _paced(self, share: _Share) -> None:
        share.dials, seconds = DIALS.reserve(share.dials, self.clock.seconds())
        if seconds > 0:
            try:
                await self._in_line(share, lambda: deferLater(self.clock, seconds))
            except BaseException:
                share.dials = DIALS.give_back(share.dials)  # so that later dials do not wait for it
                raise

    async def _in_line(self, share: _Share, wait: Callable[[], Deferred[_T]]) -> _T:
        if share.line >= LINE:
            raise LimitExceeded(_TOO_MANY)
        share.line += 1
        try:
            waited = wait()
            return await (waited if waited.called else waited.addTimeout(LINE_SECONDS, self.clock))
        except TimeoutError:
            raise LimitExceeded(_TOO_MANY) from None
        finally:
            share.line -= 1

    def left(self, turn: Turn) -> None:
        """``turn`` is no longer young."""
        queue = self._nodes[turn.node]
        queue.remove(turn)
        if not queue:
            del self._nodes[turn.node]

    def free(self, share: _Share) -> None:
        """Free one of the user's places. A waiter that takes it may free another; very many may wait, so this is a
        loop."""
        self._freed.append(share)
        if self._freeing:
            return
        self._freeing = True
        try:
            while self._freed:
                self._freed.popleft().places.release()
        finally:
            self._freeing = False

    def _share(self, user: str) -> _Share:
        now = self.clock.seconds()
        for name, share in tuple(islice(self._users.items(), 2)):  # bit by bit, forget users who have long been gone
            if share.idle(now):
                del self._users[name]
            else:
                self._users.move_to_end(name)
        return self._users.setdefault(user, _Share())
