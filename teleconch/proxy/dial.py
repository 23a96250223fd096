"""Opens connections: to a node for which there is a permit, and to the auth server's API. Nothing else is dialled.

What a node registers is a name or an address; what counts is the address that is dialled in the end, since a name leads
today here and tomorrow there. See :meth:`Dialler._forbidden`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, NoRouteError, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from teleconch.access.permit import APIPermit, DialPermit
from teleconch.defaults import AUTH_PORT, NODE_PORT
from teleconch.errors import ConnectionProblem
from teleconch.proxy.directory import split_address
from teleconch.resources.addresses import no_other_machine, plain_ip
from teleconch.ssh.relay import RelayProtocol

log = Logger()

RELAY_SOURCE: Final = "127.0.0.2"
_LOOPBACK_6: Final = "::1"
CONNECT_TIMEOUT: Final = 10.0
VERSION_TIMEOUT: Final = 10.0
_VERSIONS: Final = (b"SSH-2.0-", b"SSH-1.99-")  # RFC 4253 sections 4.2 and 5.1
_LONGEST: Final = max(map(len, _VERSIONS))
_NETLINK_ROUTE, _NLM_F_REQUEST = 0, 1  # linux/netlink.h
_RTM_NEWROUTE, _RTM_GETROUTE, _RTA_DST, _RTN_LOCAL = 24, 26, 1, 2  # linux/rtnetlink.h


class NodeEnd(RelayProtocol):
    """The socket to a node. Silent until the node has proved to be an SSH server by its first bytes.

    What a registered address leads to may be anything (a rogue node can register the address of a database): no byte of
    the user's goes there before it began to speak SSH (GHSA-hw4x-mcx5-9q36, CVE-2024-35175).
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_ssh: Deferred[None] = Deferred()
        self.gone: Callable[[], None] | None = None  # called when the socket is closed

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)
        if not self.is_ssh.called:
            self._judge(b"".join(self._early)[:_LONGEST])

    def readConnectionLost(self) -> None:
        self.not_ssh("it closed the connection before it said anything")
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.not_ssh("it closed the connection before it said anything")
        super().connectionLost(reason)
        if self.gone is not None:
            self.gone()

    def _judge(self, begin: bytes) -> None:
        if begin.startswith(_VERSIONS):
            transport: Any = self.transport
            transport.pauseProducing()
            self.is_ssh.callback(None)
        elif not any(version.startswith(begin) for version in _VERSIONS):
            self.not_ssh("what answers there does not speak SSH")

    def not_ssh(self, why: str) -> None:
        """Give up, unless it has proved to be SSH. ``why`` is part of a sentence."""
        if not self.is_ssh.called:
            self.is_ssh.errback(ConnectionProblem(why))


class AuthEnd(RelayProtocol):
    """The socket to an auth server. ``gone`` is called when it was open and is not any more."""

    def __init__(self, gone: Callable[[], None]) -> None:
        super().__init__()
        self._gone = gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._gone()


class _One(Factory[RelayProtocol]):
    noisy = False

    def __init__(self, protocol: RelayProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> RelayProtocol:
        return self._protocol


class _Forbidden(ConnectError):
    """An address that is not dialled for a node. ``why`` is part of a sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(string=why)  # type: ignore[no-untyped-call]
        self.why = why


class _Careful:
    """The reactor, with a word to say on each address before it is connected to. ``ask(host, port)`` returns the source
    address to take, or raises."""

    def __init__(self, reactor: Any, ask: Callable[[str, int], tuple[str, int] | None]) -> None:
        self._reactor = reactor
        self._ask = ask
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        return self._reactor.connectTCP(host, port, factory, timeout, self._ask(host, port) or bindAddress)


class Dialler:
    """Opens the connections of one proxy. ``auth_addresses`` are ``host:port``; ``own_ports`` those on which this
    proxy's machine listens for the cluster."""

    def __init__(self, reactor: Any, auth_addresses: Iterable[str], own_ports: Iterable[int] = ()) -> None:
        self._reactor: Any = reactor
        self._clock: IReactorTime = reactor
        self._auth = tuple(split_address(address) for address in auth_addresses)
        self.own_ports = set(own_ports)

    async def node(self, permit: DialPermit) -> NodeEnd:
        """The permitted node's end, which spoke SSH and is paused. ConnectionProblem, with a part of a sentence, which
        is for the log: told to a user, it would tell them what listens where."""
        host, registered = split_address(permit.node.addr)
        port = registered or NODE_PORT
        loopback = no_other_machine(host) == "loopback"
        auth: frozenset[str] = frozenset()
        if loopback or port in {auth_port or AUTH_PORT for _, auth_port in self._auth}:
            auth = await self._auth_literals()
        beside = all(is_own(each) for each in auth)  # no auth server is elsewhere
        end = NodeEnd()

        def ask(literal: str, to_port: int) -> None:
            why = self._forbidden(literal, to_port, auth, loopback and beside)
            if why:
                raise _Forbidden(why)

        await self._connect(end, host, port, ask)
        late = self._clock.callLater(VERSION_TIMEOUT, end.not_ssh, "it accepted the connection but said nothing")
        try:
            await end.is_ssh
        except BaseException:
            abort(end)
            raise
        finally:
            if late.active():
                late.cancel()
        return end

    def _forbidden(self, literal: str, port: int, auth: frozenset[str], loopback: bool) -> str:
        """Why this address cannot be a node's, as part of a sentence; empty where it can."""
        why = no_other_machine(literal)
        if why and not (why == "loopback" and loopback):
            return f"it leads to the {why} address {literal}"
        auth_ports = {auth_port or AUTH_PORT for _, auth_port in self._auth}
        if port in auth_ports and str(plain_ip(literal)) in auth:
            return "that is the auth server"
        if (port in self.own_ports or (port in auth_ports and any(map(is_own, auth)))) and is_own(literal):
            return "the cluster's own services listen there"
        return ""

    async def _auth_literals(self) -> frozenset[str]:
        """The addresses of the auth servers as of now."""
        found: set[str] = set()
        for host, _ in self._auth:
            literal = plain_ip(host)
            if literal is not None:
                found.add(str(literal))
                continue
            try:
                answers = await deferToThreadPool(
                    self._reactor, self._reactor.getThreadPool(), socket.getaddrinfo, host, None
                )
            except OSError:
                found.add(host)  # not known, so not this machine
            else:
                found.update(str(plain_ip(str(answer[4][0]))) for answer in answers)
        return frozenset(found)

    async def auth(self, permit: APIPermit, gone: Callable[[], None]) -> AuthEnd:
        """An end for a permitted user at the first auth server that can be reached; ``gone`` is called when it closed.
        ConnectionProblem."""
        for host, port in self._auth:
            end = AuthEnd(gone)
            if str(plain_ip(host)) == _LOOPBACK_6:
                host = "127.0.0.1"  # what listens on [::] is there as well
            try:
                await self._connect(end, host, port or AUTH_PORT, _relay_source)
            except ConnectionProblem as error:
                log.warn("auth server {host}:{port}: {error}", host=host, port=port or AUTH_PORT, error=str(error))
            else:
                return end
        raise ConnectionProblem("The proxy cannot reach the auth server at the moment: try again in a minute.")

    async def _connect(
        self, end: RelayProtocol, host: str, port: int, ask: Callable[[str, int], tuple[str, int] | None]
    ) -> None:
        try:
            await self._endpoint(host, port, ask).connect(_One(end))
        except DNSLookupError:
            raise ConnectionProblem("its name is not known where the proxy runs") from None
        except _Forbidden as error:
            raise ConnectionProblem(error.why) from None
        except ConnectError as error:
            raise ConnectionProblem(_WHY.get(type(error), "the connection failed")) from None

    def _endpoint(
        self, host: str, port: int, ask: Callable[[str, int], tuple[str, int] | None]
    ) -> HostnameEndpoint | TCP4ClientEndpoint | TCP6ClientEndpoint:
        """What leads to ``host``. _Forbidden, now or when it connects."""
        literal = plain_ip(host)
        if literal is None or str(literal) != host:
            return HostnameEndpoint(_Careful(self._reactor, ask), host, port, timeout=CONNECT_TIMEOUT)
        # Most nodes register an address, which no thread has to look up.
        kind = TCP4ClientEndpoint if literal.version == 4 else TCP6ClientEndpoint
        return kind(self._reactor, host, port, CONNECT_TIMEOUT, ask(host, port))


def is_own(literal: str) -> bool:
    """Whether an address is one of this machine. Nothing is sent."""
    address = plain_ip(literal)
    if address is None:
        return False
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect((str(address), 9))
            return bool(probe.getsockname()[0] == str(address)) or _is_delivered_here(address)
    except OSError:
        return False


def _is_delivered_here(address: IPv4Address | IPv6Address) -> bool:
    """What the kernel's routes say (rtnetlink(7)). The second address of one network is the machine's, too, and has
    the first one for its source."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    route = struct.pack("=8BL", family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    attribute = struct.pack("=HH", 4 + len(address.packed), _RTA_DST) + address.packed
    header = struct.pack("=LHHLL", 16 + len(route + attribute), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as kernel:
        kernel.send(header + route + attribute)
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)  # it is there when send returns
    return struct.unpack_from("=H", answer, 4)[0] == _RTM_NEWROUTE and answer[23] == _RTN_LOCAL


def _relay_source(literal: str, port: int) -> tuple[str, int] | None:
    """On the auth server's own machine, what is relayed for users comes from an address of its own: whoever calls
    from there is somebody else, and not a host of that machine (``api.server`` tells them apart)."""
    if not is_own(literal):
        return None
    if ":" not in literal:
        return RELAY_SOURCE, 0
    if literal == _LOOPBACK_6:  # there is no second one
        raise _Forbidden("users are not relayed to ::1; let auth_service.listen_addr be an IPv4 address or [::]")
    return (f"::ffff:{RELAY_SOURCE}" if isinstance(plain_ip(literal), IPv4Address) else _LOOPBACK_6), 0


_WHY: Final[dict[type[Exception], str]] = {
    ConnectionRefusedError: "nothing listens there",
    TimeoutError: "it does not answer",
    NoRouteError: "there is no route to it",
}


def abort(end: RelayProtocol) -> None:
    """Drop an end that is not needed any more."""
    transport: Any = end.transport
    if transport is not None and not end.is_gone:
        transport.abortConnection()
