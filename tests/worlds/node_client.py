"""A client's session channel that keeps what it is told, and what a test does with it."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred

from teleconch.codec import string
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from tests.worlds.waiting import reply, until


class Session(Channel):
    """A client's session; keeps what it is told, in order."""

    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, Any]] = []
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(("out", data))

    def extReceived(self, dataType: int, data: bytes) -> None:
        self.heard.append(("err", data))

    def eofReceived(self) -> None:
        self.heard.append(("eof", None))

    def request_exit_status(self, data: bytes) -> bool:
        self.heard.append(("status", struct.unpack(">L", data)[0]))
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        self.heard.append(("signal", data))
        return True

    def closed(self) -> None:
        self.heard.append(("close", None))
        self.over.callback(None)

    def said(self, kind: str = "out") -> bytes:
        return b"".join(data for what, data in self.heard if what == kind)


async def open_session(connection: Connection) -> Session:
    session = Session()
    await connection.open(session)
    return session


async def run_command(connection: Connection, session: Session, command: bytes) -> None:
    await reply(connection.sendRequest(session, b"exec", string(command), 1))


async def until_said(session: Session, text: bytes) -> None:
    await until(lambda: text in session.said())
