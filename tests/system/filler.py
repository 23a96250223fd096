"""A client that makes a server keep as much as it can: ``filler.py PORT USER KEY CONNECTIONS``.

Each connection opens 500 sessions, starts none of them, fills their windows, terminals' modes and variables, and asks
for more than it takes the answers of. Says ``full`` when the server takes no more, and stays.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from teleconch.codec import string, uint32
from teleconch.resources.secret import Secret
from teleconch.ssh import messages
from teleconch.ssh.channel import Channel
from teleconch.ssh.client import ClientOptions, connect
from tests.worlds.reactor import reactor

SESSIONS = 500
VARIABLES_OF = 80  # sessions, which would be 21 MB
MODES = b"".join(bytes((code,)) + uint32(1) for code in range(1, 120)) + b"\0"


class Session(Channel):
    name = b"session"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def fill(port: int, user: str, key: Path) -> Any:
    connection = await connect(
        reactor,
        TCP4ClientEndpoint(reactor, "127.0.0.1", port),
        user=user,
        private_key_pem=Secret(key.read_text()),
        certificate=Path(f"{key}-cert.pub").read_text(),
        verify_host=lambda blob: None,
        options=ClientOptions(max_channels=10 * SESSIONS),
    )
    connection.transport.account.limit = 1 << 40
    sessions = [Session() for _ in range(SESSIONS)]
    await DeferredList([connection.open(session) for session in sessions], consumeErrors=True)
    answers = []
    for session in sessions:
        if session.localClosed or session.remote_id not in connection.localToRemoteChannel.values():
            continue
        pty = string(b"xterm") + bytes(16) + string(MODES)
        answers.append(connection.sendRequest(session, b"pty-req", pty, 1))
        for number in range(64 if len(answers) < VARIABLES_OF else 0):
            connection.sendRequest(session, b"env", string(b"LC_%d" % number) + string(b"x" * 4000))
        session.write(bytes(max(session.remoteWindowLeft, 1)))
    await DeferredList([answer.addErrback(lambda _: None) for answer in answers if answer is not None])
    transport = connection.transport
    transport.transport.stopReading()
    for _ in range(40):
        if transport.ended:
            break
        transport.sendPacket(messages.PING, string(bytes(200_000)))
        await deferLater(reactor, 0.01)
    return connection


async def main(port: int, user: str, key: Path, count: int) -> None:
    for _ in range(count):
        try:
            await fill(port, user, key)
        except Exception as error:  # noqa: BLE001 - refused is well, too
            say(f"refused: {error}")
    await deferLater(reactor, 0.5)
    say("full")


port, user, key, count = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
socket.setdefaulttimeout(30)


def failed(failure: Failure) -> None:
    failure.printTraceback()
    reactor.stop()


Deferred.fromCoroutine(main(port, user, key, count)).addErrback(failed)
reactor.run()
