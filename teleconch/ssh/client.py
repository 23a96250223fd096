"""The client's side: ``connect`` logs in over a socket or inside another connection's channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from teleconch.errors import ConnectionProblem
from teleconch.ssh import algorithms, limits
from teleconch.ssh.auth_client import Agent, Signer, UserAuthClient
from teleconch.ssh.channel import Channel
from teleconch.ssh.client_transport import ClientTransport
from teleconch.ssh.conch import ConchTransport
from teleconch.ssh.connection import Connection
from teleconch.ssh.problems import SSHProblem
from teleconch.ssh.transport import VERSION

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

    from teleconch.resources.secret import Secret

__all__ = ["Agent", "ClientConnection", "ClientOptions", "connect"]

ClientConnection = Connection


def _names(value: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


class Avatar(Protocol):
    """Answers what the server asks for (forwarded channels). There is none by default."""

    def lookupChannel(self, kind: bytes, window: int, max_packet: int, data: bytes) -> Any: ...


@frozen
class ClientOptions:
    """``avatar`` answers channels that the server opens (agent, forwarded-tcpip). Times in seconds, 0: none."""

    ciphers: tuple[str, ...] | None = field(default=None, converter=_names)
    kex_algos: tuple[str, ...] | None = field(default=None, converter=_names)
    mac_algos: tuple[str, ...] | None = field(default=None, converter=_names)
    host_key_algorithms: tuple[str, ...] | None = field(default=None, converter=_names)
    timeout: float = 30.0
    keepalive_interval: float = 0
    keepalive_count_max: int = 3
    max_channels: int = 1000
    avatar: Any = None
    version: bytes = VERSION
    rekey_bytes: int = limits.REKEY_BYTES
    rekey_seconds: float = limits.REKEY_SECONDS


class SSHClientTransport(ConchTransport, ClientTransport):
    """One connection to a server. ``ready`` fires with the :class:`ClientConnection` once the user is logged in."""

    def __init__(
        self,
        reactor: Any,
        user: str,
        signers: list[Signer],
        verify_host: Callable[[bytes], Any],
        options: ClientOptions,
    ) -> None:
        offered = algorithms.choose(
            ciphers=options.ciphers,
            kex_algos=options.kex_algos,
            mac_algos=options.mac_algos,
            host_keys=options.host_key_algorithms,
        )
        super().__init__(reactor, offered, verify_host, version=options.version)
        self.rekey_bytes, self.rekey_seconds = options.rekey_bytes, options.rekey_seconds
        self.ready: Deferred[Connection] = Deferred(lambda _: self.abortConnection())
        self._options = options
        denied = f"The server did not let {user} in; log in again with tsh login, with {user} among your logins."
        self.auth = UserAuthClient(user, signers, self._logged_in, self._refused, denied)

    def _logged_in(self) -> None:
        options = self._options
        connection = ClientConnection(
            options.avatar,
            max_channels=options.max_channels,
            keepalive=(options.keepalive_interval, options.keepalive_count_max),
        )
        self.let_in(connection)
        self.ready.callback(connection)

    def lost(self) -> None:
        super().lost()
        if not self.ready.called:
            self.ready.errback(
                Failure(self.why or ConnectionProblem("The server closed the connection before anyone was logged in."))
            )


async def connect(
    reactor: Any,
    endpoint_or_channel: IStreamClientEndpoint | Channel,
    *,
    user: str,
    private_key_pem: Secret | None = None,
    certificate: str | None = None,
    verify_host: Callable[[bytes], None],
    options: ClientOptions | None = None,
    agent: Agent | None = None,
) -> ClientConnection:
    """Connect and log in as ``user`` with a key and its certificate line, or with an agent's keys, or both.

    ``verify_host`` gets the blob of the host's key or certificate after the server has proved that it holds the private
    half; it raises (TrustError) to refuse. Raises AccessDenied, ConnectionProblem, or what ``verify_host`` raised.
    """
    options = options or ClientOptions()
    signers = [Signer.from_key(private_key_pem.reveal(), certificate)] if private_key_pem is not None else []
    if agent is not None:
        signers += await Signer.from_agent(agent, certificate if private_key_pem is None else None)
    protocol = SSHClientTransport(reactor, user, signers, verify_host, options)
    if isinstance(endpoint_or_channel, Channel):
        from teleconch.ssh.nested import run_in_channel

        run_in_channel(protocol, endpoint_or_channel)
    else:
        await _dial(reactor, endpoint_or_channel, protocol, options.timeout)
    timer = reactor.callLater(options.timeout, _too_slow, protocol)
    try:
        return await protocol.ready
    finally:
        if timer.active():
            timer.cancel()


def _too_slow(protocol: SSHClientTransport) -> None:
    protocol.problem(SSHProblem("the server took too long"))
    protocol.abortConnection()


async def _dial(reactor: Any, endpoint: IStreamClientEndpoint, protocol: SSHClientTransport, timeout: float) -> None:
    from twisted.internet.defer import TimeoutError
    from twisted.internet.error import ConnectError
    from twisted.internet.protocol import Factory

    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    try:
        await endpoint.connect(factory).addTimeout(timeout, reactor)
    except TimeoutError:
        raise ConnectionProblem("The server cannot be reached: it does not answer.") from None
    except ConnectError as error:
        raise ConnectionProblem(f"The server cannot be reached: {error}") from error
