"""The node's SSH server: who may come in, and which channels they may open.

One gate (``node.gate``) decides about every request, each time by the current permit, so that an expired certificate
opens nothing more on a connection that is still up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.conch.interfaces import IConchUser
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from zope.interface import Interface, implementer

from teleconch.access.permit import AccessPermit, permit_access
from teleconch.audit.events import Peer, Port, SessionStart
from teleconch.errors import AccessDenied, LimitExceeded
from teleconch.node import shares
from teleconch.node.environment import address
from teleconch.node.forward.forwarding import Forwarding
from teleconch.node.forward.session import SessionForwarding
from teleconch.node.gate import Gate
from teleconch.node.parts import NodeParts
from teleconch.node.session import SessionChannel
from teleconch.resources.identity import SSHIdentity
from teleconch.ssh import messages
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, ProtocolProblem

NO_MORE_SESSIONS: Final = b"no-more-sessions@openssh.com"  # OpenSSH's PROTOCOL, section 2.2


class NodeUser:
    """One authenticated connection (Conch calls it an avatar)."""

    conn: Connection

    def __init__(self, identity: SSHIdentity, login: str, peer: IAddress, parts: NodeParts) -> None:
        self.identity = identity
        self.user = identity.user
        self.login = login
        self._peer = peer
        self._parts = parts
        self._no_more_sessions = False
        self._who: Peer | None = None
        self.gate = Gate(self.permit, self.who, parts.emitter)
        self.forwarding = Forwarding(
            self.gate,
            lambda: self.conn,
            reactor=parts.reactor,
            launcher=parts.launcher,
            login=login,
            check_share=self.check_share,
            gateway_ports=parts.gateway_ports,
        )

    def permit(self) -> AccessPermit:
        """What may be done at this moment. AccessDenied."""
        return permit_access(self.identity, self.login, self._parts.host_uuid, self._parts.now())

    def who(self) -> Peer:
        """This connection in events, once it is up."""
        if self._who is None:
            self._who = Peer(
                user=self.user,
                login=self.login,
                server_id=self._parts.host_uuid,
                addr_local="{}:{}".format(*address(self.conn.transport.getHost())),
                addr_remote="{}:{}".format(*address(self._peer)),
            )
        return self._who

    def descriptors(self) -> int:
        """About how many of the daemon's descriptors this connection holds."""
        channels = self.conn.channels.values() if hasattr(self, "conn") else ()
        sessions = sum(isinstance(channel, SessionChannel) for channel in channels)
        return 1 + len(channels) + (shares.SESSION - 1) * sessions + shares.LISTENER * self.forwarding.listeners

    def check_share(self) -> None:
        """LimitExceeded if this user, over all their connections, may have no more of what all users share."""
        if not shares.crowded():
            return
        held = sum(user.descriptors() for user in self._parts.users if user.identity.user == self.identity.user)
        if shares.too_many(held):
            raise LimitExceeded("You have too much open on this node, which has little left; close some of it first.")

    def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Channel | Awaitable[Channel]:
        """A channel of ``kind``, or ChannelRefused."""
        permit = self._ask(kind)
        if kind == b"session":
            asked = self.conn.requests_answered()
            return self._session(permit) if asked is None else self._session_after(asked)
        if kind in Forwarding.CHANNELS:
            return self.forwarding.lookup(kind, data)
        raise self._refused(kind, "This kind of channel is not there on a node.", messages.OPEN_UNKNOWN_CHANNEL_TYPE)

    def _ask(self, kind: bytes) -> AccessPermit:
        try:
            permit = self.gate.ask()
        except AccessDenied as error:
            raise self._refused(kind, str(error)) from error
        try:
            self.check_share()
        except LimitExceeded as error:
            raise self._refused(kind, str(error), messages.OPEN_RESOURCE_SHORTAGE) from error
        return permit

    async def _session_after(self, asked: Deferred[None]) -> Channel:
        """As with sshd, whatever the client asked before comes first: a client that gives up when a listener is refused
        runs nothing (ExitOnForwardFailure), and no session slips in before its no-more-sessions."""
        await asked
        return self._session(self._ask(b"session"))

    def _session(self, permit: AccessPermit) -> SessionChannel:
        if self._no_more_sessions:
            self.conn.transport.fail(ProtocolProblem("A session was opened after no-more-sessions."))
            raise self._refused(b"session", "The client has said that it opens no more sessions, and opened one.")
        host = self.conn.transport.getHost()
        forwarding = SessionForwarding(self.forwarding)
        return SessionChannel(permit, self.gate, self._parts, self.who(), self._peer, host, forwarding)

    def global_request(self, name: bytes, data: bytes) -> bool | Awaitable[bool | bytes]:
        """Listeners toward the client (RFC 4254 section 7.1), and the client's word that its sessions are all open, so
        that whoever takes over its connection gets no other. Anything else is refused."""
        if name == NO_MORE_SESSIONS:
            self._no_more_sessions = True
            return True
        return self.forwarding.global_request(name, data) if name in Forwarding.REQUESTS else False

    def logout(self) -> None:
        """The connection is gone; its channels have been closed."""
        self._parts.users.discard(self)
        self.forwarding.close()
        if not self._parts.users:
            self._parts.launcher.rest()

    def _refused(
        self, kind: bytes, sentence: str, code: int = messages.OPEN_ADMINISTRATIVELY_PROHIBITED
    ) -> ChannelRefused:
        if kind == b"session":
            self._parts.emitter.emit(SessionStart(peer=self.who(), error=sentence))
        else:
            shown = kind[:64].decode("ascii", "replace")
            self._parts.emitter.emit(Port(peer=self.who(), kind=shown, addr="nowhere", error=sentence))
        return ChannelRefused(code, sentence)


@implementer(IRealm)
class NodeRealm:
    """Makes a :class:`NodeUser` from a checked identity (twisted.cred)."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], NodeUser, Callable[[], None]]:
        """``avatarId`` is (identity, login, peer) from the certificate checker. AccessDenied."""
        if IConchUser not in interfaces:
            raise NotImplementedError("a node has SSH users only")
        identity, login, peer = avatarId
        user = NodeUser(identity, login, peer, self._parts)
        user.permit()
        user.check_share()
        self._parts.users.add(user)
        return IConchUser, user, user.logout
