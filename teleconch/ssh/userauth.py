"""User authentication (RFC 4252), the server's side: public keys, offered first and then used to sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.conch.error import ConchError, NotEnoughAuthentication, ValidPublicKey
from twisted.conch.interfaces import IConchUser
from twisted.conch.ssh.service import SSHService
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.errors import TeleconchError
from teleconch.ssh import messages
from teleconch.ssh.checker import CertificateCredentials
from teleconch.ssh.codec import Reader, boolean, name_list, string
from teleconch.ssh.limits import Limits
from teleconch.ssh.problems import ProtocolProblem, SSHProblem

if TYPE_CHECKING:
    from teleconch.ssh.server import SSHServerTransport

METHODS = (b"publickey",)


class UserAuthServer(SSHService):
    """Runs until someone has authenticated. Requests are answered one after the other."""

    name = b"ssh-userauth"
    transport: SSHServerTransport  # type: ignore[assignment]
    log = Logger()

    def __init__(self, portal: Portal, limits: Limits) -> None:
        self._portal = portal
        self._limits = limits
        self._failures = 0
        self._busy = False
        self._stopped = False
        self._waiting: list[bytes] = []

    def serviceStopped(self) -> None:
        self._stopped = True
        self._waiting = []

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum != messages.USERAUTH_REQUEST:
            raise ProtocolProblem("that is no message for authentication")
        if self._busy:
            if len(self._waiting) >= self._limits.auth_tries * 2:
                raise ProtocolProblem("too many authentication requests at once")
            self._waiting.append(packet)
            return
        self._busy = True
        Deferred.fromCoroutine(self._request(packet)).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        problem = failure.value
        if not isinstance(problem, SSHProblem):
            self.log.failure("authentication broke", failure=failure, event="auth")
            problem = SSHProblem("something went wrong here; try again", messages.DISCONNECT_BY_APPLICATION)
        if not self._stopped:
            self.transport.fail(problem)

    async def _request(self, packet: bytes) -> None:
        while True:
            await self._one(packet)
            if self._stopped or not self._waiting:
                break
            packet = self._waiting.pop(0)
        self._busy = False

    async def _one(self, packet: bytes) -> None:
        reader = Reader(packet)
        login, service, method = reader.string(), reader.string(), reader.string()
        if service != b"ssh-connection":
            raise SSHProblem("this service is not there", messages.DISCONNECT_SERVICE_NOT_AVAILABLE)
        if method == b"none":
            self._refuse(login, "no key was offered", counts=False)
        elif method == b"publickey":
            await self._publickey(login, service, reader)
        else:
            self._refuse(login, "this method of authentication is not there")

    async def _publickey(self, login: bytes, service: bytes, reader: Reader) -> None:
        signed = reader.boolean()
        algorithm, blob = reader.string(), reader.string()
        signature = reader.string() if signed else None
        reader.end()
        assert self.transport.sessionID is not None
        data = b"".join(
            (
                string(self.transport.sessionID),
                bytes((messages.USERAUTH_REQUEST,)),
                string(login),
                string(service),
                string(b"publickey"),
                boolean(True),
                string(algorithm),
                string(blob),
            )
        )
        try:
            credentials = CertificateCredentials(
                login.decode("utf-8"), algorithm, blob, signature, data, self.transport.getPeer()
            )
            _interface, avatar, logout = await self._portal.login(credentials, None, IConchUser)
        except ValidPublicKey:
            if signed:
                raise
            if not self._stopped:
                self.transport.sendPacket(messages.USERAUTH_PK_OK, string(algorithm) + string(blob))
            return
        except NotEnoughAuthentication:
            self._refuse(login, "more is needed", partial=True)
            return
        except (UnauthorizedLogin, ConchError, TeleconchError, ProtocolProblem, UnicodeDecodeError) as error:
            self._refuse(login, str(error) or type(error).__name__)
            return
        if self._stopped:
            logout()
            return
        if not signed:  # a realm or checker that lets an unsigned offer through must not become a login
            logout()
            raise SSHProblem("authentication needs a signature", messages.DISCONNECT_BY_APPLICATION)
        self._succeed(login, avatar, logout)

    def _succeed(self, login: bytes, avatar: Any, logout: Any) -> None:
        identity = getattr(avatar, "identity", None)
        user = getattr(identity, "user", "") or login.decode("utf-8", "replace")
        self.transport.sendPacket(messages.USERAUTH_SUCCESS, b"")
        self._waiting = []
        self.transport.start_connection(avatar, logout, user)

    def _refuse(self, login: bytes, why: str, *, counts: bool = True, partial: bool = False) -> None:
        if self._stopped:
            return
        if counts:
            self.log.warn(
                "access denied: {error}",
                event="auth",
                success=False,
                login=login[:255].decode("utf-8", "replace"),
                addr_remote=self.transport.peer_name(),
                error=why,
            )
            if not partial:
                self._failures += 1
            if self._failures >= self._limits.auth_tries:
                raise SSHProblem("too many authentication failures", messages.DISCONNECT_NO_MORE_AUTH_METHODS)
        self.transport.sendPacket(messages.USERAUTH_FAILURE, name_list(METHODS) + boolean(partial))
