"""A :class:`Session` on a reactor's connection: forwarding, or other sessions, may go on beside it."""

from __future__ import annotations

from typing import Final, cast

from twisted.internet.interfaces import IPushProducer

from teleconch.client.session import Session
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientConnection

UNSHOWN_MAX: Final = 256 * 1024  # bytes that the screen has not shown; above this, nothing is read from the node


class SessionChannel(Channel):
    """The :class:`~teleconch.client.link.SessionLink` of ``session``, whose input comes from ``typing``, if there is
    any. ``window``: bytes that may be on their way here."""

    name = b"session"
    place = "session"

    def __init__(self, session: Session, typing: IPushProducer | None = None, window: int = 0) -> None:
        super().__init__(localWindow=window)
        self._session = session
        self._typing = typing
        self._unshown = 0
        self._resting = False

    # -- what the session does

    def write_eof(self) -> None:
        self.loseWriteConnection()

    def close(self) -> None:
        self.loseConnection()

    def credit(self, count: int) -> None:
        self._unshown -= count
        self._rest()

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        answer = self.conn.sendRequest(self, name, data, wantReply=int(wants_answer))
        if answer is not None:
            answer.addCallbacks(lambda _: self._answered(True), lambda _: self._answered(False))

    def _answered(self, success: bool) -> None:
        if not self._session.over:
            self._session.answered(success)

    def rekey(self) -> None:
        self.conn.transport.rekey()

    def ways(self) -> list[str]:
        channels = cast("ClientConnection", self.conn).channels.values()
        return [f"{each.name.decode()} {getattr(each, 'place', '')}" for each in channels]

    # -- what the channel tells

    def channelOpen(self, specificData: bytes) -> None:
        if self._typing is not None:
            self.registerProducer(self._typing, True)
        self._session.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self._unshown += len(data)
        self._session.data(data)
        self._rest()

    def extReceived(self, dataType: int, data: bytes) -> None:
        if dataType == 1:
            self._unshown += len(data)
            self._session.error_data(data)
            self._rest()

    def _rest(self) -> None:
        full = self._unshown > UNSHOWN_MAX
        if full != self._resting and not (self.localClosed and not full):
            self._resting = full
            (self.pauseProducing if full else self.resumeProducing)()

    def requestReceived(self, requestType: bytes, data: bytes) -> bool:
        self._session.request(requestType, data)
        return False

    def eofReceived(self) -> None:
        self._session.eof()

    def closed(self) -> None:
        self._session.closed()
