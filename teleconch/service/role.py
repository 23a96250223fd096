"""What the three roles share: a start that takes a while, a stop that waits, and parts made from the configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from attrs import frozen
from twisted.cred.portal import IRealm, Portal
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.threads import deferToThread

from teleconch.api.membership import Membership
from teleconch.audit.emitter import Emitter
from teleconch.config.addresses import Address
from teleconch.config.values import Config
from teleconch.errors import BadParameter
from teleconch.outgoing import ways_to
from teleconch.resources.address import split_address
from teleconch.resources.addresses import no_other_machine
from teleconch.resources.authority import TrustedAuthority, user_authorities
from teleconch.resources.secret import Secret
from teleconch.ssh.checker import CertificateChecker
from teleconch.ssh.hostkey import CurrentKeys
from teleconch.ssh.server import ServerOptions, SSHServerFactory
from teleconch.ssh.server_limits import Limits

BACKLOG = 1024  # connections waiting to be accepted


class Role(ABC):
    """One role of this process. ``start`` returns when its listeners are open and it is a member of the cluster."""

    name: str
    refused: Callable[[str], None] = staticmethod(lambda sentence: None)
    """Called with the auth server's sentence when it refuses this member, and with an empty one when it does not."""

    @abstractmethod
    async def start(self) -> None:
        """Start. TeleconchError, with a sentence, if the role cannot run. May be cancelled."""

    @abstractmethod
    async def stop(self) -> None:
        """Release everything, even after a start that failed or was cancelled."""

    def be_patient(self) -> None:  # noqa: B027 - most roles wait for nothing
        """Make the coming stop wait, without a limit, for what users are doing, if the role has such a thing."""

    def hurry(self) -> None:  # noqa: B027
        """Make the coming or current stop wait for nothing that users are doing."""


@frozen
class JoinHow:
    """Where the auth server is and what a new member shows it; without a token, possibly why there is none."""

    auth_servers: tuple[str, ...]
    token: Secret | None
    ca_pins: tuple[str, ...]
    token_problem: str = ""


def join_how(config: Config) -> JoinHow:
    """How a role whose auth server runs elsewhere joins, according to the configuration."""
    teleport = config.teleport
    return JoinHow(
        tuple(str(address.local) for address in teleport.auth_servers),
        teleport.auth_token,
        tuple(teleport.ca_pin),
        teleport.auth_token_problem,
    )


class MemberRole(Role):
    """A role that is a member of the cluster: it joins before anything else."""

    def __init__(self, reactor: Any, config: Config, how: JoinHow, emitter: Emitter) -> None:
        self._reactor = reactor
        self._config = config
        self._how = how
        self._emitter = emitter
        self._membership: Membership | None = None

    async def _join(
        self, listen: Iterable[Address], public: Iterable[Address], found_at: str | None = None
    ) -> Membership:
        """Become a member that is reached at these addresses (see ``host_names``). Raises what ``Membership.start``
        raises."""
        config, how = self._config, self._how
        here = await deferToThread(auth_is_here, how.auth_servers)
        self._membership = Membership(
            self._reactor,
            data_dir=config.teleport.data_dir,
            role=self.name,
            nodename=config.teleport.nodename,
            addresses=host_names(config, listen, public, here),
            found_at=found_at,
            auth_servers=how.auth_servers,
            token=how.token,
            token_problem=how.token_problem,
            ca_pins=how.ca_pins,
            now=self._reactor.seconds,
        )
        await self._membership.start()
        return self._membership

    async def stop(self) -> None:
        if self._membership is not None:
            self._membership.stop()


class Member(Protocol):
    """What an SSH server needs of its host's membership in the cluster (``api.membership.Membership`` is one)."""

    @property
    def uuid(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    def host_keys(self) -> tuple[Secret, str]: ...
    def authorities(self) -> tuple[TrustedAuthority, ...]: ...


def ssh_server(
    reactor: Any,
    realm: IRealm,
    member: Member,
    options: ServerOptions | None,
    *,
    name: str,
    emitter: Emitter,
    now: Callable[[], float],
) -> SSHServerFactory:
    """An SSH server for the users of the member's cluster; ``realm`` makes their avatars."""
    checker = CertificateChecker(lambda: user_authorities(member.authorities(), member.cluster), now)
    return SSHServerFactory(
        reactor,
        Portal(realm, [checker]),
        CurrentKeys(member.host_keys),
        options,
        name,
        emitter=emitter,
        server_id=member.uuid,
    )


def listener(reactor: Any, address: Address) -> IStreamServerEndpoint:
    """The endpoint to listen on; both address families for ``[::]``."""
    if ":" in address.host:
        return TCP6ServerEndpoint(reactor, address.port, BACKLOG, address.host)
    return TCP4ServerEndpoint(reactor, address.port, BACKLOG, address.host)


def cannot_listen(error: CannotListenError, address: Address, key: str) -> BadParameter:
    """The error for a listener that did not open."""
    reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
    return BadParameter(f"Cannot listen on {address}: {reason}. Stop what uses that address, or change {key}.")


def server_options(config: Config) -> ServerOptions:
    """The SSH servers' algorithms, limits and keep-alives from the configuration."""
    teleport, auth = config.teleport, config.auth_service
    return ServerOptions(
        ciphers=teleport.ciphers,
        kex_algos=teleport.kex_algos,
        mac_algos=teleport.mac_algos,
        limits=Limits(
            max_connections=teleport.connection_limits.max_connections,
            max_connections_per_user=teleport.connection_limits.max_users,
        ),
        keepalive_interval=auth.keep_alive_interval or 0,
        keepalive_count_max=auth.keep_alive_count_max,
    )


def host_names(config: Config, listen: Iterable[Address], public: Iterable[Address], here: bool) -> tuple[str, ...]:
    """The hosts, in addition to UUID and nodename, by which this role is reached; its certificates name them. They
    include ``localhost`` only on the auth server's own machine (``here``): elsewhere every host would have that
    name."""
    names = [address.host for address in public]
    if config.teleport.advertise_ip is not None:
        names.append(config.teleport.advertise_ip.host)
    for address in listen:
        if no_other_machine(address.host) == "loopback":
            names += ["localhost", "127.0.0.1", "::1"] if here else []
        elif not address.any_host:
            names.append(address.host)
    return tuple(dict.fromkeys(name.lower() for name in names))


def auth_is_here(auth_servers: Iterable[str]) -> bool:
    """Whether every auth server named is on this machine: then the route to it begins and ends at the same address.
    Nothing is sent. Names are looked up, so call this in a thread."""
    return all(any(begin == end for begin, end in _ways(server)) for server in auth_servers)


def address_toward(auth_servers: Iterable[str]) -> str | None:
    """This machine's own address on the route to an auth server; ``None`` if none can be found. Nothing is sent."""
    return next((begin for server in auth_servers for begin, _ in _ways(server)), None)


def _ways(server: str) -> Iterable[tuple[str, str]]:
    """Pairs of this machine's address and the server's, for each address of ``server`` (``host:port``) that has a
    route."""
    host, port = split_address(server) or ("", None)
    return ways_to(host, port) if port else ()
