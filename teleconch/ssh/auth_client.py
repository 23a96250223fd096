"""User authentication (RFC 4252), the client's side: each key or certificate is tried in turn."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.codec import boolean, string
from teleconch.errors import AccessDenied, ConnectionProblem, TeleconchError
from teleconch.ssh import messages, signatures
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader

if TYPE_CHECKING:
    from teleconch.ssh.transport import SSHTransport


class Agent(Protocol):
    """An ssh-agent."""

    async def keys(self) -> list[bytes]:
        """Blobs of its keys and certificates."""

    async def sign(self, blob: bytes, data: bytes, algorithm: bytes) -> bytes:
        """A signature blob."""


@frozen
class Signer:
    """Something that can sign: the blob to show, and how. ``sign(data, algorithm)``."""

    blob: bytes
    sign: Callable[[bytes, bytes], Awaitable[bytes]]

    @classmethod
    def from_key(cls, pem: str, certificate: str | None) -> Signer:
        """A private key in PEM, with its certificate line if there is one."""
        key = signatures.load_private_key(pem)
        blob = base64.b64decode(certificate.split()[1]) if certificate else signatures.public_blob(key)

        async def sign(data: bytes, algorithm: bytes) -> bytes:
            return signatures.sign(key, data, algorithm)

        return cls(blob, sign)

    @classmethod
    async def from_agent(cls, agent: Agent, certificate: str | None) -> list[Signer]:
        """Everything that an agent holds; with ``certificate``, only that."""
        wanted = base64.b64decode(certificate.split()[1]) if certificate else None

        def bound(blob: bytes) -> Signer:
            return cls(blob, lambda data, algorithm: agent.sign(blob, data, algorithm))

        blobs = await agent.keys()
        return [bound(blob) for blob in blobs if wanted in (None, blob)]


class UserAuthClient(SSHService):
    """Calls ``logged_in()`` or ``refused(error)`` once. Signs right away: asking first would cost a round trip."""

    name = b"ssh-userauth"
    transport: SSHTransport  # type: ignore[assignment]
    log = Logger()

    def __init__(
        self,
        user: str,
        signers: list[Signer],
        logged_in: Callable[[], None],
        refused: Callable[[TeleconchError], None],
    ) -> None:
        self._user = user.encode()
        self._left = list(signers)
        self._logged_in, self._refused = logged_in, refused
        self.banner = ""

    def serviceStarted(self) -> None:
        self._next()

    def _next(self) -> None:
        if not self._left:
            login = self._user.decode(errors="replace")
            self._refused(
                AccessDenied(
                    f"The server did not let {login} in; log in again with tsh login, with {login} among your logins."
                )
            )
            return
        Deferred.fromCoroutine(self._try(self._left.pop(0))).addErrback(self._broken)

    async def _try(self, signer: Signer) -> None:
        names = signatures.algorithms_for(signer.blob, self.transport.peer_extensions.get(b"server-sig-algs"))
        if not names:
            self._next()
            return
        algorithm = names[0]
        assert self.transport.sessionID is not None
        request = b"".join(
            (
                string(self._user),
                string(b"ssh-connection"),
                string(b"publickey"),
                boolean(True),
                string(algorithm),
                string(signer.blob),
            )
        )
        data = string(self.transport.sessionID) + bytes((messages.USERAUTH_REQUEST,)) + request
        signature = await signer.sign(data, algorithm)
        self.transport.sendPacket(messages.USERAUTH_REQUEST, request + string(signature))

    def _broken(self, failure: Failure) -> None:
        error: Any = failure.value
        if not isinstance(error, TeleconchError):
            self.log.failure("authentication broke", failure=failure)
            error = ConnectionProblem("Signing with your key failed; log in again with tsh login.")
        self._refused(error)

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum == messages.USERAUTH_SUCCESS:
            self._logged_in()
        elif messageNum == messages.USERAUTH_FAILURE:
            self._next()
        elif messageNum == messages.USERAUTH_BANNER:
            self.banner = (self.banner + Reader(packet).string().decode("utf-8", "replace"))[:4096]
        else:
            raise ProtocolProblem("that is no message for authentication")
