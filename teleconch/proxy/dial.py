"""Opens TCP connections to nodes, for which there must be a permit, and to the auth server's API. Nothing else is
dialled.

A node registers a name or an address. What counts is the address that is finally dialled, since a name can lead
elsewhere tomorrow. See :meth:`Dialler._forbidden`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, NoRouteError, TimeoutError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

from teleconch.access.permit import APIPermit, DialPermit
from teleconch.defaults import AUTH_PORT, NODE_PORT
from teleconch.errors import ConnectionProblem
from teleconch.outgoing import source_toward
from teleconch.proxy.directory import host_and_port
from teleconch.resources.addresses import no_other_machine, plain_ip
from teleconch.resources.node import Node
from teleconch.ssh.ends import OneEnd, SocketEnd

log = Logger()

RELAY_SOURCE: Final = "127.0.0.2"
_LOOPBACK_6: Final = "::1"
CONNECT_TIMEOUT: Final = 10.0
_NETLINK_ROUTE, _NLM_F_REQUEST = 0, 1  # linux/netlink.h
_RTM_NEWROUTE, _RTM_GETROUTE, _RTA_DST, _RTN_LOCAL = 24, 26, 1, 2  # linux/rtnetlink.h


class _Forbidden(ConnectError):
    """An address that is never dialled for a node. ``why`` is part of a sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(string=why)  # type: ignore[no-untyped-call]
        self.why = why


class _Careful:
    """The reactor, except that ``ask(host, port)`` is called before each connection: it returns the source address to
    use, or raises."""

    def __init__(self, reactor: Any, ask: Callable[[str, int], tuple[str, int] | None]) -> None:
        self._reactor = reactor
        self._ask = ask
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        return self._reactor.connectTCP(host, port, factory, timeout, self._ask(host, port) or bindAddress)


class Dialler:
    """Opens the connections of one proxy. ``auth_addresses`` are ``host:port``; ``own_ports`` are those on which this
    proxy's machine listens for the cluster."""

    def __init__(self, reactor: Any, auth_addresses: Iterable[str], own_ports: Iterable[int] = ()) -> None:
        self._reactor: Any = reactor
        self._auth = tuple(host_and_port(address) for address in auth_addresses)
        self.own_ports = set(own_ports)

    def leads_to(self, node: Node) -> bool:
        """Whether ``node`` has registered an address."""
        return node.addr is not None

    async def open(self, permit: DialPermit) -> SocketEnd:
        """A paused end at whatever the permitted node's address leads to. ConnectionProblem, whose message is part of a
        sentence for the log."""
        assert permit.node.addr is not None
        host, registered = host_and_port(permit.node.addr)
        port = registered or NODE_PORT
        loopback = no_other_machine(host) == "loopback"
        auth: frozenset[str] = frozenset()
        if loopback or port in {auth_port or AUTH_PORT for _, auth_port in self._auth}:
            auth = await self._auth_literals()
        beside = all(is_own(each) for each in auth)  # every auth server is on this machine
        end = SocketEnd()

        def ask(literal: str, to_port: int) -> None:
            why = self._forbidden(literal, to_port, auth, loopback and beside)
            if why:
                raise _Forbidden(why)

        await self._connect(end, host, port, ask)
        return end

    def _forbidden(self, literal: str, port: int, auth: frozenset[str], loopback: bool) -> str:
        """Why this address cannot be a node's, as part of a sentence; empty if it can."""
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
        """The current addresses of the auth servers."""
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
                found.add(host)  # unknown, so not this machine
            else:
                found.update(str(plain_ip(str(answer[4][0]))) for answer in answers)
        return frozenset(found)

    async def auth(self, permit: APIPermit, gone: Callable[[], None]) -> SocketEnd:
        """An end for a permitted user at the first auth server that can be reached; ``gone`` is called when it has
        closed. ConnectionProblem."""
        for host, port in self._auth:
            end = SocketEnd(gone=gone)
            if str(plain_ip(host)) == _LOOPBACK_6:
                host = "127.0.0.1"  # a listener on [::] is there as well
            try:
                await self._connect(end, host, port or AUTH_PORT, _relay_source)
            except ConnectionProblem as error:
                log.warn("auth server {host}:{port}: {error}", host=host, port=port or AUTH_PORT, error=str(error))
            else:
                return end
        raise ConnectionProblem("The proxy cannot reach the auth server at the moment: try again in a minute.")

    async def _connect(
        self, end: SocketEnd, host: str, port: int, ask: Callable[[str, int], tuple[str, int] | None]
    ) -> None:
        try:
            await self._endpoint(host, port, ask).connect(OneEnd(end))
        except DNSLookupError:
            raise ConnectionProblem("its name is not known where the proxy runs") from None
        except _Forbidden as error:
            raise ConnectionProblem(error.why) from None
        except ConnectError as error:
            raise ConnectionProblem(_WHY.get(type(error), "the connection failed")) from None

    def _endpoint(
        self, host: str, port: int, ask: Callable[[str, int], tuple[str, int] | None]
    ) -> HostnameEndpoint | TCP4ClientEndpoint | TCP6ClientEndpoint:
        """The endpoint for ``host``. _Forbidden, now or when it connects."""
        literal = plain_ip(host)
        if literal is None or str(literal) != host:
            return HostnameEndpoint(_Careful(self._reactor, ask), host, port, timeout=CONNECT_TIMEOUT)
        # Most nodes register an address, which needs no look-up in a thread.
        kind = TCP4ClientEndpoint if literal.version == 4 else TCP6ClientEndpoint
        return kind(self._reactor, host, port, CONNECT_TIMEOUT, ask(host, port))


def is_own(literal: str) -> bool:
    """Whether an address belongs to this machine. Nothing is sent."""
    address = plain_ip(literal)
    if address is None:
        return False
    if address.is_loopback:
        return True
    try:
        return source_toward(str(address)) == str(address) or _is_delivered_here(address)
    except OSError:
        return False


def _is_delivered_here(address: IPv4Address | IPv6Address) -> bool:
    """Whether the kernel's routes say so (rtnetlink(7)). A machine's second address in a network is its own, too, but
    has the first one as its source."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    route = struct.pack("=8BL", family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    attribute = struct.pack("=HH", 4 + len(address.packed), _RTA_DST) + address.packed
    header = struct.pack("=LHHLL", 16 + len(route + attribute), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as kernel:
        kernel.send(header + route + attribute)
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)  # the answer is there when send returns
    return struct.unpack_from("=H", answer, 4)[0] == _RTM_NEWROUTE and answer[23] == _RTN_LOCAL


def _relay_source(literal: str, port: int) -> tuple[str, int] | None:
    """On the auth server's own machine, what is relayed for users comes from an address of its own, so that
    ``api.server`` can tell it from calls by hosts on that machine."""
    if not is_own(literal):
        return None
    if ":" not in literal:
        return RELAY_SOURCE, 0
    if literal == _LOOPBACK_6:  # IPv6 has no second loopback address
        raise _Forbidden("users are not relayed to ::1; set auth_service.listen_addr to an IPv4 address or [::]")
    return (f"::ffff:{RELAY_SOURCE}" if isinstance(plain_ip(literal), IPv4Address) else _LOOPBACK_6), 0


_WHY: Final[dict[type[Exception], str]] = {
    ConnectionRefusedError: "nothing listens there",
    TimeoutError: "it does not answer",
    NoRouteError: "there is no route to it",
}
