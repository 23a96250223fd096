"""Twisted Conch as it comes, as an SSH server that runs commands: ``PORT HOST_KEY AUTHORIZED_KEYS``."""

from __future__ import annotations

import sys
from typing import ClassVar

from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.ssh import connection, factory, forwarding, keys, session, userauth
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from zope.interface import implementer


class User(ConchUser):
    def __init__(self) -> None:
        super().__init__()
        self.channelLookup.update(
            {b"session": session.SSHSession, b"direct-tcpip": forwarding.openConnectForwardingClient}
        )


@implementer(session.ISession)
class Run:
    def __init__(self, user: User) -> None:
        self.process = None

    def execCommand(self, protocol: object, command: bytes) -> None:
        self.process = reactor.spawnProcess(protocol, "/bin/sh", ["sh", "-c", command])

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
        user = User()
        return interfaces[0], user, lambda: None


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
        known = keys.Key.fromFile(authorized)

        class Everyone(InMemorySSHKeyDB):
            def getAuthorizedKeys(self, name: bytes) -> list:
                return [known]

        self.portal.registerChecker(SSHPublicKeyChecker(Everyone({})))


from twisted.python.components import registerAdapter  # noqa: E402

registerAdapter(Run, User, session.ISession)
reactor.listenTCP(int(sys.argv[1]), Server(*sys.argv[2:]), interface="127.0.0.1")
reactor.run()
