"""User authentication (RFC 4252), the client's side: each key or certificate is tried in turn. No Twisted."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from teleconch.codec import boolean, string
from teleconch.errors import AccessDenied, ConnectionProblem, TeleconchError
from teleconch.ssh import messages, signatures
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from teleconch.ssh.transport import SSHTransport


class Agent(Protocol):
    """An ssh-agent."""

    async def keys(self) -> list[bytes]:
        """Blobs of its keys and certificates."""

    async def sign(self, blob: bytes, data: bytes, algorithm: bytes) -> bytes:
        """A signature blob."""


class Signer:
    """Something that can sign: the blob to show, and how. ``sign(data, algorithm)``."""

    __slots__ = ("blob", "sign")

    def __init__(self, blob: bytes, sign: Callable[[bytes, bytes], Awaitable[bytes]]) -> None:
        self.blob = blob
        self.sign = sign

    @classmethod
    def from_key(cls, pem: str, certificate: str | None) -> Signer:
        """A private key in PEM, with its certificate line if there is one."""
        key = signatures.load_private_key(pem)
        blob = base64.b64decode(certificate.split()[1]) if certificate else signatures.public_blob(key)
        return cls.of(key, blob)

    @classmethod
    def of(cls, key: PrivateKeyTypes, blob: bytes) -> Signer:
        """A private key, with the blob of its certificate or public half."""

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


class UserAuthClient:
    """Calls ``logged_in()`` or ``refused(error)`` once. Signs right away: asking first would cost a round trip.

    ``denied`` is for a user whom the server does not let in.
    """

    name = b"ssh-userauth"
    transport: SSHTransport

    def __init__(
        self,
        user: str,
        signers: list[Signer],
        logged_in: Callable[[], None],
        refused: Callable[[TeleconchError], None],
        denied: str,
    ) -> None:
        self._user = user.encode()
        self._left = list(signers)
        self._logged_in, self._refused, self._denied = logged_in, refused, denied
        self._shown = False
        self.banner = ""

    def show_early(self, transport: SSHTransport) -> None:
        """Show the first key before the server has given the service: it reads both in order, and a round trip is
        saved. Not if the server first has to say which signature the key must make, as for RSA: that it has said by the
        time it gives the service."""
        if len(signatures.algorithms_for(self._left[0].blob, None)) == 1:
            self.transport = transport
            self._next()

    def serviceStarted(self) -> None:
        if not self._shown:
            self._next()

    def serviceStopped(self) -> None:
        """There is nothing to stop."""

    def _next(self) -> None:
        if not self._left:
            self._refused(AccessDenied(self._denied))
            return
        self._shown = True
        self.transport.later(self._show(self._left.pop(0)))

    async def _show(self, signer: Signer) -> None:
        try:
            await self._try(signer)
        except TeleconchError as error:
            self._refused(error)
        except Exception:  # noqa: BLE001 - the log gets all of it, the user a sentence
            self.transport.log.failure("authentication broke")
            self._refused(ConnectionProblem("Signing with your key failed; log in again with tsh login."))

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

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum == messages.USERAUTH_SUCCESS:
            self._logged_in()
        elif messageNum == messages.USERAUTH_FAILURE:
            self._next()
        elif messageNum == messages.USERAUTH_BANNER:
            self.banner = (self.banner + Reader(packet).string().decode("utf-8", "replace"))[:4096]
        else:
            raise ProtocolProblem("that is not a message for authentication")
