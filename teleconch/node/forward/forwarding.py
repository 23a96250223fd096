"""All forwarding of one connection: the channels and requests that ask for it, and its open listeners."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.access.kinds import Kind
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, AlreadyExists, BadParameter, LimitExceeded, TeleconchError
from teleconch.node.forward import bind
from teleconch.node.forward.errands import Errands, NoMeans
from teleconch.node.forward.inward import Accepted, Listener
from teleconch.node.forward.outward import adopt
from teleconch.node.gate import Gate
from teleconch.node.process import Launcher
from teleconch.node.start import IReactorNode
from teleconch.places import Places
from teleconch.ssh import messages
from teleconch.ssh.account import Account
from teleconch.ssh.channel import Channel
from teleconch.ssh.connection import Connection
from teleconch.ssh.ends import RelayChannel, ToEnd
from teleconch.ssh.problems import ChannelRefused, ProtocolProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.relay import relay

LISTENERS_MAX: Final = 100  # of one connection, all kinds together
CONNECTIONS_MAX: Final = 500  # that listeners have taken and that are not over
HOST_MAX: Final = 255  # RFC 1035, and far above any address
PATH_MAX: Final = 107  # sun_path, less the final zero
PORT_MAX: Final = 65535

_CREDENTIALS: Final = struct.Struct("3i")  # SO_PEERCRED: pid, uid, gid

log = Logger()


class Forwarding:
    """``gate`` is asked about each kind, ``connection`` returns the connection once it is up. :meth:`close` it when the
    connection is gone."""

    CHANNELS: Final = {kind.encode(): kind for kind in (Kind.DIRECT_TCPIP, Kind.DIRECT_STREAMLOCAL)}
    REQUESTS: Final = {kind.encode(): kind for kind in (Kind.TCPIP_FORWARD, Kind.STREAMLOCAL_FORWARD)} | {
        b"cancel-tcpip-forward": None,
        b"cancel-streamlocal-forward@openssh.com": None,
    }

    def __init__(
        self,
        gate: Gate,
        connection: Callable[[], Connection],
        *,
        reactor: IReactorNode,
        launcher: Launcher,
        login: str,
        check_share: Callable[[], None],
        gateway_ports: str = bind.NO,
    ) -> None:
        """``check_share`` raises LimitExceeded if the user may have no more of the daemon's descriptors."""
        self.gate = gate
        self.reactor = reactor
        self.launcher = launcher
        self.login = login
        self.account: Callable[[], Account] = lambda: connection().account
        self.errands = Errands(reactor, launcher, login, self.account)
        self._connection = connection
        self._gateway_ports = gateway_ports
        self._check_share = check_share
        self._listeners: set[Listener] = set()
        self._opening = 0  # listeners that are being made
        self._ports: dict[tuple[bytes, int], Listener] = {}
        self._paths: dict[bytes, Listener] = {}
        self._taken = 0
        self._agent: bytes | None = None
        self._agent_lock = Places(1)
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many are open, or are being made."""
        return len(self._listeners) + self._opening

    # --- channels toward the node's side -----------------------------------------------------------------------------

    async def lookup(self, name: bytes, data: bytes) -> Channel:
        """The channel of one of :data:`CHANNELS`, connected. ChannelRefused."""
        kind = self.CHANNELS[name]
        try:
            reader = Reader(data)
            if kind is Kind.DIRECT_TCPIP:
                host, port = _host(reader.string()), _port(reader.uint32())
                target = f"{host.decode('latin-1')}:{port}"
                dial: Callable[[], Awaitable[socket.socket]] = lambda: self.errands.dial(host, port)  # noqa: E731
            else:
                path = _path(reader.string())
                target = path.decode("utf-8", "replace")
                dial = lambda: self.errands.dial_unix(path)  # noqa: E731
        except (ProtocolProblem, BadParameter) as error:
            self.gate.refused(kind, "nowhere", BadParameter(str(error)))
            raise ChannelRefused(messages.OPEN_CONNECT_FAILED, str(error)) from None
        try:
            self.gate.check(kind, target)
        except AccessDenied as error:
            raise ChannelRefused(messages.OPEN_ADMINISTRATIVELY_PROHIBITED, str(error)) from None
        try:
            end = adopt(self.reactor, await dial())
        except OSError as error:
            raise ChannelRefused(messages.OPEN_CONNECT_FAILED, error.strerror or "it closed at once") from None
        except TeleconchError as error:
            self.gate.refused(kind, target, error)
            short = isinstance(error, NoMeans | LimitExceeded)
            code = messages.OPEN_RESOURCE_SHORTAGE if short else messages.OPEN_CONNECT_FAILED
            raise ChannelRefused(code, str(error)) from None
        self.gate.opened(kind, target)
        return ToEnd(end)

    # --- global requests ---------------------------------------------------------------------------------------------

    async def global_request(self, name: bytes, data: bytes) -> bool | bytes:
        """The answer to one of :data:`REQUESTS`."""
        reader = Reader(data)
        kind = self.REQUESTS[name]
        try:
            if kind is Kind.TCPIP_FORWARD:
                return await self._tcpip_forward(_host(reader.string(), empty=True), _port(reader.uint32(), zero=True))
            if kind is Kind.STREAMLOCAL_FORWARD:
                return await self._streamlocal_forward(_path(reader.string()))
            if name == b"cancel-tcpip-forward":
                return _cancel(self._ports.get((reader.string(), reader.uint32())))
            if name == b"cancel-streamlocal-forward@openssh.com":
                return _cancel(self._paths.get(reader.string()))
        except AccessDenied:  # in the log already
            return False
        except (ProtocolProblem, BadParameter) as error:
            if kind is not None:
                self.gate.refused(kind, "nowhere", BadParameter(str(error)))
        return False

    async def _tcpip_forward(self, host: bytes, port: int) -> bool | bytes:
        kind, target = Kind.TCPIP_FORWARD, f"{host.decode('latin-1')}:{port}"
        self.gate.check(kind, target)
        try:
            if (host, port) in self._ports:
                raise AlreadyExists("There is a listener on it already.")
            sockets, chosen = await self.errands_for_listener(
                self.errands.listen(bind.listen_on(host, self._gateway_ports), port)
            )
        except TeleconchError as error:
            self.gate.refused(kind, target, error)
            return False
        ours = string(host) + uint32(chosen)

        def accepted(sock: socket.socket, peer: Any) -> None:
            self.carry(Kind.FORWARDED_TCPIP, target, ours + string(str(peer[0]).encode()) + uint32(peer[1]), sock)

        self._ports[host, chosen] = self.listen(sockets, accepted, lambda: self._ports.pop((host, chosen), None))
        self.gate.opened(kind, f"{host.decode('latin-1')}:{chosen}")
        return uint32(chosen) if port == 0 else True

    async def _streamlocal_forward(self, path: bytes) -> bool:
        kind, target = Kind.STREAMLOCAL_FORWARD, path.decode("utf-8", "replace")
        self.gate.check(kind, target)
        try:
            sockets = await self.errands_for_listener(self.errands.listen_unix(path))
        except TeleconchError as error:
            self.gate.refused(kind, target, error)
            return False

        def accepted(sock: socket.socket, peer: Any) -> None:
            self.carry(Kind.FORWARDED_STREAMLOCAL, target, string(path) + string(b""), sock)

        def closing() -> None:
            self._paths.pop(path, None)
            self.errands.remove(path)

        self._paths[path] = self.listen(sockets, accepted, closing)
        self.gate.opened(kind, target)
        return True

    # --- the agent ---------------------------------------------------------------------------------------------------

    async def agent(self) -> bytes:
        """The path of the agent's socket; a connection has one. AccessDenied, TeleconchError."""
        self.gate.check(Kind.AGENT_REQUEST, "agent")
        await self._agent_lock.acquire()
        try:
            if self._agent is None:
                sockets, path = await self.errands_for_listener(self.errands.agent())
                self.listen(sockets, self._agent_wanted)
                self._agent = path.encode()
                self.gate.opened(Kind.AGENT_REQUEST, path)
            return self._agent
        except AccessDenied:
            raise
        except TeleconchError as error:
            self.gate.refused(Kind.AGENT_REQUEST, "agent", error)
            raise
        finally:
            self._agent_lock.release()

    def _agent_wanted(self, sock: socket.socket, peer: Any) -> None:
        # The folder lets nobody else in; this is the second bolt.
        _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid not in (0, self.errands.uid):
            self.gate.refused(Kind.AGENT, "agent", AccessDenied(f"The user with the id {uid} is not the agent's."))
            sock.close()
            return
        self.carry(Kind.AGENT, "agent", b"", sock)

    # --- listeners ---------------------------------------------------------------------------------------------------

    async def errands_for_listener(self, errand: Awaitable[Any]) -> Any:
        """Await an errand that returns a listener's sockets, unless there are too many listeners. LimitExceeded."""
        try:
            if self.listeners >= LISTENERS_MAX:
                raise LimitExceeded(f"A connection can have {LISTENERS_MAX} listeners; end one first.")
            self._check_share()
        except LimitExceeded:
            getattr(errand, "close", lambda: None)()
            raise
        self._opening += 1
        try:
            return await errand
        finally:
            self._opening -= 1

    def listen(
        self, sockets: list[socket.socket], accepted: Accepted, closing: Callable[[], object] = lambda: None
    ) -> Listener:
        """Take connections until the listener or the whole is closed."""

        def closed() -> None:
            self._listeners.discard(listener)
            closing()

        listener = Listener(self.reactor, sockets, accepted, closed)
        self._listeners.add(listener)
        if self._closed:
            listener.close()
        return listener

    def carry(self, kind: Kind, target: str, data: bytes, sock: socket.socket) -> None:
        """Open a channel toward the client for a connection that a listener took. Takes over ``sock``."""
        if self._closed or self._taken >= CONNECTIONS_MAX:
            if not self._closed:
                self.gate.refused(kind, target, LimitExceeded(f"{CONNECTIONS_MAX} connections are open."))
            sock.close()
            return
        try:
            self.gate.check(kind, target)
            self._check_share()
        except AccessDenied:
            sock.close()
            return
        except LimitExceeded as error:
            self.gate.refused(kind, target, error)
            sock.close()
            return
        Deferred.fromCoroutine(self._carry(kind, target, data, sock)).addErrback(_log_failure)

    async def _carry(self, kind: Kind, target: str, data: bytes, sock: socket.socket) -> None:
        try:
            end = adopt(self.reactor, sock, self._untake)
        except OSError:  # it is gone already
            return
        self._taken += 1
        channel = RelayChannel()
        channel.name = kind.encode()
        try:
            await self._connection().open(channel, data)
        except (ChannelRefused, ConnectionLost) as error:
            log.info(
                "the client refused {kind} for {addr}: {error}",
                kind=str(kind),
                addr=target,
                error=str(error) or "the connection is gone",
            )
            end.loseConnection()
            return
        relay(channel, end)

    def _untake(self) -> None:
        self._taken -= 1

    def close(self) -> None:
        """The connection is gone: close the listeners, remove what was made in the file system. Idempotent."""
        self._closed = True
        for listener in list(self._listeners):
            listener.close()
        self.errands.close()


def _cancel(listener: Listener | None) -> bool:
    if listener is None:
        return False
    listener.close()
    return True


def _host(name: bytes, empty: bool = False) -> bytes:
    if len(name) > HOST_MAX or b"\0" in name or not (name or empty):
        raise BadParameter("That is not a host name.")
    return name


def _port(number: int, zero: bool = False) -> int:
    if not (0 if zero else 1) <= number <= PORT_MAX:
        raise BadParameter(f"There is no port {number}.")
    return number


def _path(path: bytes) -> bytes:
    if not path or len(path) > PATH_MAX or b"\0" in path:
        raise BadParameter("That is not the path of a socket.")
    return path


def _log_failure(failure: Failure) -> None:
    log.failure("forwarding broke", failure)
