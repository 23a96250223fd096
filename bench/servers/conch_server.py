"""Twisted Conch as it comes, as an SSH server that runs commands: ``PORT HOST_KEY AUTHORIZED_KEYS``."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker
from twisted.conch.ssh import connection, factory, forwarding, keys, session, userauth
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.python.components import registerAdapter
from zope.interface import implementer

SHELL = os.environ.get("SHELL", "/bin/sh")


class User(ConchUser):
    def __init__(self) -> None:
        super().__init__()
        self.channelLookup.update(
            {b"session": session.SSHSession, b"direct-tcpip": forwarding.openConnectForwardingClient}
        )


@implementer(session.ISession)
class Run:
    def __init__(self, user: User) -> None:
        self.process: Any = None

    def execCommand(self, protocol: Any, command: bytes) -> None:
        # The one thing that is mended: Conch sends EOF at once when the process closes its output, ahead of data that
        # waits for the window, and OpenSSH's client drops what follows. The close behind the last byte says the same.
        protocol.outConnectionLost = lambda: None
        self.process = reactor.spawnProcess(protocol, SHELL, [SHELL, "-c", command], env=os.environ)

    def getPty(self, *arguments: object) -> None:
        pass

    def openShell(self, protocol: object) -> None:
        self.execCommand(protocol, b"exec cat")

    def windowChanged(self, size: object) -> None:
        pass

    def eofReceived(self) -> None:
        self.process.closeStdin()

    def closed(self) -> None:
        pass


@implementer(IRealm)
class Realm:
    def requestAvatar(self, name: bytes, mind: object, *interfaces: object) -> tuple:
        return interfaces[0], User(), lambda: None


@implementer(IAuthorizedKeysDB)
class OneKey:
    """One key, whoever asks."""

    def __init__(self, path: str) -> None:
        self._key = keys.Key.fromFile(path)

    def getAuthorizedKeys(self, username: bytes) -> list:
        return [self._key]


class Server(factory.SSHFactory):
    services: ClassVar[dict] = {
        b"ssh-userauth": userauth.SSHUserAuthServer,
        b"ssh-connection": connection.SSHConnection,
    }

    def __init__(self, host_key: str, authorized: str) -> None:
        key = keys.Key.fromFile(host_key)
        self.publicKeys = {key.sshType(): key.public()}
        self.privateKeys = {key.sshType(): key}
        self.portal = Portal(Realm())
        self.portal.registerChecker(SSHPublicKeyChecker(OneKey(authorized)))


registerAdapter(Run, User, session.ISession)
reactor.listenTCP(int(sys.argv[1]), Server(*sys.argv[2:]), backlog=1000, interface="127.0.0.1")
reactor.run()
