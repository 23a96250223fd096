"""The client's side of the transport layer: the server proves its key, and gives the service that lets the user in.

``client`` runs it on Twisted, and ``teleconch.client.link``, for ``tsh ssh``, without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from teleconch.codec import string
from teleconch.errors import AccessDenied, ConnectionProblem, TeleconchError
from teleconch.ssh import kex, limits, messages, signatures, states
from teleconch.ssh.algorithms import Algorithms
from teleconch.ssh.auth_client import UserAuthClient
from teleconch.ssh.problems import HostKeyProblem, NegotiationProblem, ProtocolProblem, SSHProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.transport import VERSION, Service, SSHTransport


class ClientTransport(SSHTransport):
    """One connection to a server, over which ``auth`` lets the user in. ``why`` is what ended it.

    ``verify_host`` gets the blob of each key or certificate that the server has proved; it raises to refuse.
    """

    isClient: ClassVar[bool] = True
    legal = states.CLIENT
    auth: UserAuthClient

    def __init__(
        self, reactor: Any, offered: Algorithms, verify_host: Callable[[bytes], Any], *, version: bytes = VERSION
    ) -> None:
        super().__init__(reactor, offered, version=version)
        self.why: TeleconchError | None = None
        self._verify_host = verify_host
        self._exchange: kex.ClientExchange | None = None
        self._host_blob: bytes | None = None

    def kex_agreed(self, agreed: kex.Agreed) -> None:
        self._exchange = kex.ClientExchange(agreed.kex)
        self.seal(bytes((messages.KEX_INIT,)), string(self._exchange.init))

    def _got_kex_reply(self, body: bytes) -> None:
        if self._wrong_guess():
            return
        assert self._exchange is not None
        assert self._agreed is not None
        reader = Reader(body)
        blob, reply, signature = reader.string(), reader.string(), reader.string()
        reader.end()
        exchange, self._exchange = self._exchange, None
        secret = exchange.secret(reply)
        digest = self._hash(blob, exchange.init, reply, secret)
        if not signatures.verify(blob, signature, digest, self._agreed.host_key):
            raise NegotiationProblem("the server's signature is wrong")
        if blob != self._host_blob:  # a renewed certificate may come with a later key exchange
            try:
                self._verify_host(blob)
            except TeleconchError as error:
                self.why = error
                raise HostKeyProblem("the host key was not accepted") from error
            self._host_blob = blob
        self._keys_made(secret, digest)

    @property
    def host_key(self) -> bytes | None:
        """The blob of the key or certificate that the server has proved."""
        return self._host_blob

    def connectionSecure(self) -> None:
        self.sendPacket(messages.SERVICE_REQUEST, string(b"ssh-userauth"))

    def _got_service_accept(self, body: bytes) -> None:
        reader = Reader(body)
        if reader.string() != b"ssh-userauth":
            raise ProtocolProblem("a service was given that nobody asked for")
        self.state = states.AUTH
        self.setService(self.auth)

    def let_in(self, connection: Service) -> None:
        """The user is logged in: run ``connection``."""
        self.account.widen(limits.CONNECTION_BUDGET, None)
        self.authenticated(connection)

    def _refused(self, error: TeleconchError) -> None:
        """The user is not let in."""
        self.why = error
        self.loseConnection()

    def problem(self, problem: SSHProblem) -> None:
        if self.why is None:
            self.why = ConnectionProblem(f"The SSH connection ended: {problem}.")
        super().problem(problem)

    def peerDisconnected(self, code: int, text: str) -> None:
        if self.why is None:
            kind = AccessDenied if code == messages.DISCONNECT_NO_MORE_AUTH_METHODS else ConnectionProblem
            self.why = kind(f"The server closed the connection: {text}.")
