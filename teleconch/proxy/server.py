"""What a user may do on the proxy: jump to a node, by ``direct-tcpip`` or subsystem, and speak to the auth API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from attrs import field, frozen
from twisted.conch.interfaces import IConchUser
from twisted.cred.portal import IRealm
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from teleconch.access.permit import APIPermit, DialPermit, permit_api, permit_dial
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import Peer, ProxyDenied, ProxyDial
from teleconch.errors import ConnectionProblem, LimitExceeded, TeleconchError
from teleconch.proxy.channels import ProxySession, jump
from teleconch.proxy.dial import Dialler
from teleconch.proxy.roads import Roads
from teleconch.proxy.router import Router
from teleconch.proxy.shares import Shares, Turn
from teleconch.proxy.target import Target, parse_host, target
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import NodeStatus
from teleconch.resources.times import utc_text
from teleconch.ssh import messages
from teleconch.ssh.channel import Channel
from teleconch.ssh.conch import named_end
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import ChannelRefused, ProtocolProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.relay import End

API_AT_ONCE: Final = 32  # connections of one user to the auth server, which sees this proxy as the peer of all users
_ASKED_MAX: Final = 512  # characters of what was asked for that an event records
_T = TypeVar("_T")


@frozen
class ProxyParts:
    """What every user of one proxy shares. ``now`` returns epoch seconds; ``cluster`` is this cluster's name,
    ``server_id`` this host's UUID."""

    clock: IReactorTime
    now: Callable[[], float]
    cluster: str
    first_picture: Callable[[], Deferred[None]]
    router: Router
    dialler: Dialler
    roads: Roads
    shares: Shares
    emitter: Emitter
    server_id: str
    api_ends: Counter[str] = field(factory=Counter, eq=False, repr=False)  # by user, including those being dialled

    async def auth_api(self, permit: APIPermit) -> End:
        """An end at the auth server. LimitExceeded for a user who holds too many: the auth server counts all of them as
        this proxy's, and would end other users'."""
        user = permit.identity.user
        if self.api_ends[user] >= API_AT_ONCE:
            raise LimitExceeded("You have too many connections to the auth server open: end some of them.")
        self.api_ends[user] += 1
        held = True

        def gone() -> None:  # counts once: a dial that was given up may report its end as well
            nonlocal held
            if held:
                held = False
                self.api_ends[user] -= 1
                if not self.api_ends[user]:
                    del self.api_ends[user]

        try:
            await self.shares.pace(user)
            return await self.dialler.auth(permit, gone)
        except BaseException:
            gone()
            raise


class ProxyUser:
    """The avatar: a user on one connection."""

    conn: Connection | None = None

    def __init__(self, parts: ProxyParts, identity: SSHIdentity, login: str, peer: object) -> None:
        self._parts = parts
        self.identity = identity
        self.user = identity.user
        self._peer = Peer(user=identity.user, login=login, server_id=parts.server_id, addr_remote=named_end(peer))
        self._dialling: set[Deferred[Any]] = set()

    @property
    def clock(self) -> IReactorTime:
        return self._parts.clock

    # What Conch asks

    async def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Channel:
        """A channel, or :class:`ChannelRefused`, whose sentence ``ssh`` shows."""
        if kind == b"session":
            return ProxySession(self)
        if kind != b"direct-tcpip":
            self._denied("channel", kind.decode("ascii", "replace"), "no such channel here")
            raise ChannelRefused(
                messages.OPEN_UNKNOWN_CHANNEL_TYPE, "The proxy leads to nodes; it has no such channel."
            )
        try:
            return jump(await self.dial(_jump_target(data)))
        except ProtocolProblem as error:
            raise ChannelRefused(messages.OPEN_CONNECT_FAILED, str(error)) from error
        except TeleconchError as error:
            code = messages.OPEN_CONNECT_FAILED
            if not isinstance(error, ConnectionProblem):
                code = messages.OPEN_ADMINISTRATIVELY_PROHIBITED
            raise ChannelRefused(code, str(error)) from error

    def global_request(self, name: bytes, data: bytes) -> bool:
        """Nothing is granted: the proxy listens for nobody (no ``tcpip-forward``)."""
        if b"forward" in name:
            self._denied("listener", name.decode("ascii", "replace"), "the proxy listens for nobody")
        return False

    def logout(self) -> None:
        """The connection is gone: give up dials in progress."""
        for dialling in tuple(self._dialling):
            dialling.cancel()

    # Where it leads

    async def dial(self, asked: Target) -> Turn:
        """A turn with an end at the node that ``asked`` means, ready to relay. Each error is a sentence for the
        user."""
        try:
            await self._parts.first_picture()  # of the directory: until then a name may be unknown, or seem unambiguous
            status = self._parts.router.resolve(asked)
            permit = permit_dial(self.identity, status.node, self._parts.now())
            try:
                turn = await self._waiting(lambda: self._turn(permit))
            except ConnectionProblem as error:
                raise ConnectionProblem(self._unreachable(status)) from error
        except TeleconchError as error:
            self._not_led(str(asked), error)
            raise
        self._parts.emitter.emit(ProxyDial(peer=self._peer, target=str(asked), node=status.node.uuid))
        return turn

    async def _turn(self, permit: DialPermit) -> Turn:
        turn = await self._parts.shares.turn(self.identity.user, permit.node.uuid)
        await turn.dial(self._parts.roads.open(permit))
        return turn

    async def auth_api(self) -> End:
        """An end at the auth server. The user's own TLS runs inside: the proxy adds no power and reads nothing."""
        try:
            permit = permit_api(self.identity, self._parts.now())
            return await self._waiting(lambda: self._parts.auth_api(permit))
        except TeleconchError as error:
            self._not_led("auth-api", error)
            raise

    def no_shell(self, asked: str) -> str:
        """The sentence for a user who asked the proxy itself for a shell, a command or files. Reports a refusal."""
        self._denied("session", asked, "no shell, command or files on the proxy")
        host = self._parts.cluster
        return (
            f"This is the proxy of {host}: there is no shell, command or file transfer on it. "
            "To reach a node, type `tsh ssh LOGIN@NODE`, or `ssh -J LOGIN@PROXY:3023 LOGIN@NODE`."
        )

    async def _waiting(self, dial: Callable[[], Coroutine[Deferred[Any], Any, _T]]) -> _T:
        """Dial, but give up when the user goes away."""
        deferred = Deferred.fromCoroutine(dial())
        self._dialling.add(deferred)
        try:
            return await deferred
        except (CancelledError, ConnectingCancelledError):
            raise ConnectionProblem("the user went away") from None
        finally:
            self._dialling.discard(deferred)

    def _unreachable(self, status: NodeStatus) -> str:
        """The same sentence for every reason, so that users do not learn what listens where. The reason is in the
        log."""
        node = status.node
        if not self._parts.roads.lead_to(node):
            return f"The proxy has no road to {node.nodename}, which has registered no address: set advertise_ip there."
        named = node.nodename if node.addr is None else f"{node.nodename} at {node.addr}"
        if status.online:
            return f"The proxy cannot reach {named}. Is the node running{'' if node.addr is None else ' there'}?"
        return f"{named} is offline since {utc_text(status.last_seen)}, and cannot be reached."

    def _not_led(self, target: str, error: TeleconchError) -> None:
        why = f" ({error.__cause__})" if isinstance(error.__cause__, ConnectionProblem) else ""
        self._parts.emitter.emit(ProxyDial(peer=self._peer, target=target, error=f"{error}{why}"))

    def _denied(self, kind: str, asked: str, why: str) -> None:
        self._parts.emitter.emit(ProxyDenied(peer=self._peer, kind=kind, target=asked[:_ASKED_MAX], error=why))


@implementer(IRealm)
class ProxyRealm:
    """Makes the avatar of a user whom the checker let in."""

    def __init__(self, parts: ProxyParts) -> None:
        self._parts = parts

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], ProxyUser, Callable[[], None]]:
        identity, login, peer = avatarId
        user = ProxyUser(self._parts, identity, login, peer)
        return IConchUser, user, user.logout


def _jump_target(data: bytes) -> Target:
    """RFC 4254 section 7.2: parse host to connect, port to connect, originator host and port."""
    reader = Reader(data)
    host, port = reader.string(), reader.uint32()
    reader.string()
    reader.uint32()
    reader.end()
    return target(parse_host(host), port)
