"""The server's side: its transport, and the factory that a listener takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from attrs import field, frozen
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from teleconch.admission import Admission
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import AuthAttempt, Peer, SessionRejected
from teleconch.codec import string
from teleconch.errors import BadParameter
from teleconch.ssh import algorithms, kex, limits, messages, states
from teleconch.ssh.account import account_of
from teleconch.ssh.algorithms import Algorithms
from teleconch.ssh.conch import ConchTransport, named_end
from teleconch.ssh.connection import Connection
from teleconch.ssh.hostkey import HostKey
from teleconch.ssh.problems import SSHProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.server_limits import EXCHANGES, HAS_KEYS, SPEAKS, Limits
from teleconch.ssh.transport import server_extensions
from teleconch.ssh.userauth import UserAuthServer

__all__ = ["HostKey", "SSHServerFactory", "SSHServerTransport", "ServerOptions"]


def _names(value: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


# Clients tell from the version line what a server can do. OpenSSH's tells only its own kind that nobody reads the
# output any more (``ssh HOST yes | head``). libssh takes the owner and group in a listing only from a server that has a
# version after ``OpenSSH_``. Others find out from the name in which order SFTP's SYMLINK wants its names. All of that
# is here as it is in OpenSSH. The number decides only which old faults a client works around: it has to be at least
# 7.8, and below 10, which some take for 1.0. Who we really are follows in the comment.
VERSION_OF_SERVER: Final = b"OpenSSH_9.9 Teleconch"


@frozen
class ServerOptions:
    """``None`` for a list is the default of :mod:`teleconch.ssh.algorithms`. Intervals in seconds, 0: none."""

    ciphers: tuple[str, ...] | None = field(default=None, converter=_names)
    kex_algos: tuple[str, ...] | None = field(default=None, converter=_names)
    mac_algos: tuple[str, ...] | None = field(default=None, converter=_names)
    limits: Limits = field(factory=Limits)
    keepalive_interval: float = 0
    keepalive_count_max: int = 3
    version: bytes = VERSION_OF_SERVER


_WAITS: Final = b"SSH-2.0-Renci.SshNet.SshClient.0.0.1"  # for the server's KEXINIT: SSH.NET before 2024
# After this part of ``login_grace``, an unknown client that has sent no KEXINIT is taken for one that waits for ours. A
# log-in then takes three more round trips, so a slower client would be too late anyway.
_WAITING: Final = 1 / 3


class SSHServerTransport(ConchTransport):
    """One client's connection."""

    isClient: ClassVar[bool] = False
    legal = states.SERVER
    factory: SSHServerFactory

    def __init__(self, factory: SSHServerFactory) -> None:
        options = factory.options
        super().__init__(factory.reactor, factory.algorithms, version=options.version)
        self.factory = factory
        self.rekey_bytes, self.rekey_seconds = options.limits.rekey_bytes, options.limits.rekey_seconds
        self._host_keys = factory.offered_host_keys()
        self.first_host_key = b""  # the blob of the key or certificate that the first key exchange showed
        self.user = ""  # who has authenticated, for the log
        self._host: Any = None
        self._grace: Any = None
        self.account.take(limits.CONNECTION_COST)

    def connectionMade(self) -> None:
        self._grace = self.reactor.callLater(self.factory.options.limits.login_grace, self._too_slow)
        self._host = super().getHost()
        self.factory.connections.add(self)
        self.factory.admission.connected(self, self.getPeer())
        if not self.ended:
            super().connectionMade()

    def getHost(self) -> Any:
        """Our end, even when the connection is gone: events still tell of it then."""
        return self._host

    def login_refused(self, login: str, why: str) -> None:
        factory = self.factory
        factory.emitter.emit(AuthAttempt(peer=self._audited(login=login), service=factory.log_name, error=why))

    def _audited(self, **who: str) -> Peer:
        addresses = {"addr_local": named_end(self.getHost()), "addr_remote": self.peer_name()}
        return Peer(server_id=self.factory.server_id, **addresses, **who)

    def _rejected(self, user: str, reason: str, sentence: str) -> None:
        """``user``, who has proved who they are, has too much open."""
        factory = self.factory
        peer = self._audited(user=user)
        factory.emitter.emit(SessionRejected(peer=peer, service=factory.log_name, reason=reason, error=sentence))
        self.sendDisconnect(messages.DISCONNECT_TOO_MANY_CONNECTIONS, sentence.encode())

    def _too_slow(self) -> None:
        self._grace = None
        self.fail(SSHProblem("authentication took too long", messages.DISCONNECT_BY_APPLICATION))

    # Our KEXINIT waits for the client's, however slow the line is. Without strict key exchange only AES-GCM, or CTR
    # with an encrypt-and-MAC, is safe, and the client's order, not ours, decides among what we offer (RFC 4253 section
    # 7.1). So a client without it is offered nothing else and gets in; otherwise it could only be turned away later. In
    # the same way, a client that shares nothing with us is offered older algorithms. Clients that wait for the server's
    # KEXINIT in turn are offered all that is safe with anyone.

    def begin(self) -> None:
        self._flush()  # the version line
        self._call_later(self.factory.options.limits.login_grace * _WAITING, self._go_first)

    def version_read(self) -> None:
        self.factory.admission.advanced(self, SPEAKS)
        if self.otherVersionString == _WAITS:
            self._go_first()

    def _go_first(self) -> None:
        if self._our_kexinit is None and self.sessionID is None and not self.ended:
            self.offered = kex.for_anyone(self.offered)
            self._send_kexinit()

    def _peer_goes_first(self, kexinit: bytes) -> None:
        if self.sessionID is None:
            theirs = kex.parse_kexinit(bytes((messages.KEXINIT,)) + kexinit)
            self.offered = kex.fitting(self.offered, theirs)

    def kex_agreed(self, agreed: kex.Agreed) -> None:
        self.factory.admission.advanced(self, EXCHANGES)

    def connectionSecure(self) -> None:
        self.factory.admission.advanced(self, HAS_KEYS)

    def lost(self) -> None:
        self._stop_grace()
        super().lost()
        self.account.give(limits.CONNECTION_COST)
        self.factory.admission.gone(self)
        self.factory.connections.discard(self)

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def host_key_algorithms(self) -> tuple[bytes, ...]:
        return tuple(name for name in self.offered.host_keys if name in self._host_keys)

    def _got_kex_init(self, body: bytes) -> None:
        if self._wrong_guess():
            return
        assert self._agreed is not None
        reader = Reader(body)
        init = reader.string()
        reader.end()
        reply, secret = kex.server_exchange(self._agreed.kex, init)
        key, blob = self._host_keys[self._agreed.host_key]
        self.first_host_key = self.first_host_key or blob
        digest = self._hash(blob, init, reply, secret)
        signature = key.sign(digest, self._agreed.host_key)
        self.seal(bytes((messages.KEX_REPLY,)), string(blob) + string(reply) + string(signature))
        self._keys_made(secret, digest)

    def _send_ext_info(self) -> None:
        if self._peer_takes_ext_info:
            self.seal(bytes((messages.EXT_INFO,)), server_extensions())

    def _got_service_request(self, body: bytes) -> None:
        reader = Reader(body)
        name = reader.string()
        reader.end()
        if name != b"ssh-userauth":
            raise SSHProblem("this service is not there", messages.DISCONNECT_SERVICE_NOT_AVAILABLE)
        self.sendPacket(messages.SERVICE_ACCEPT, string(name))
        self.state = states.AUTH
        self.setService(UserAuthServer(self.factory.portal, self.factory.options.limits))

    def start_connection(self, avatar: Any, logout: Callable[[], None], user: str) -> None:
        """Authentication has succeeded: from now on, and only now, there is a connection service."""
        self._stop_grace()
        self.user = user
        if not self.factory.admission.authenticated(self, user):
            logout()
            self._rejected(user, "connections", f"{user} has too many connections")
            return
        if not self.account.widen(limits.CONNECTION_BUDGET, account_of(user)):
            logout()
            sentence = f"{user} has too much open on this host for its memory; close some of it first"
            self._rejected(user, "memory", sentence)
            return
        options = self.factory.options
        self.sendPacket(messages.USERAUTH_SUCCESS, b"")
        self.authenticated(
            Connection(
                avatar,
                logout,
                max_channels=options.limits.max_channels,
                keepalive=(options.keepalive_interval, options.keepalive_count_max),
            )
        )


class SSHServerFactory(Factory[SSHServerTransport]):
    """Listens for SSH. ``host_keys()`` is called again for each connection, so renewed certificates are picked up.

    ``portal`` takes :class:`teleconch.ssh.checker.CertificateCredentials`. ``log_name`` and ``server_id`` say in
    events whose listener this is.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: Any,
        portal: Portal,
        host_keys: Callable[[], Sequence[HostKey]],
        options: ServerOptions | None = None,
        log_name: str = "ssh",
        *,
        emitter: Emitter,
        server_id: str = "",
    ) -> None:
        self.reactor = reactor
        self.portal = portal
        self.options = options or ServerOptions()
        self.algorithms: Algorithms = algorithms.choose(
            ciphers=self.options.ciphers, kex_algos=self.options.kex_algos, mac_algos=self.options.mac_algos
        )
        self.log_name = log_name
        self.emitter = emitter
        self.server_id = server_id
        self._host_keys = host_keys
        self.admission = Admission(self.options.limits.bounds(), reactor.seconds, log_name)
        self.connections: set[SSHServerTransport] = set()

    def offered_host_keys(self) -> dict[bytes, tuple[HostKey, bytes]]:
        """Algorithm -> key and blob."""
        offered: dict[bytes, tuple[HostKey, bytes]] = {}
        for key in self._host_keys():
            for name, blob in key.offers().items():
                offered.setdefault(name, (key, blob))
        if not offered:
            raise BadParameter("There is no host key that can be used; make an ed25519 key.")
        return offered

    def buildProtocol(self, addr: IAddress | None) -> SSHServerTransport | None:
        if not self.admission.may_connect(addr):
            return None
        return SSHServerTransport(self)
