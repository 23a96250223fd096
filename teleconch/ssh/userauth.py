"""User authentication (RFC 4252), the server's side: public keys, offered first and then used to sign, and questions.

``twisted.cred`` decides. What a request proves stands in its own credentials and nowhere else: no state says that a key
was offered before, so an offer can never be taken for a proof (CVE-2024-45337).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from twisted.conch.error import ConchError, NotEnoughAuthentication, ValidPublicKey
from twisted.conch.interfaces import IConchUser
from twisted.conch.ssh.service import SSHService
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.codec import boolean, name_list, string, uint32
from teleconch.errors import TeleconchError
from teleconch.ssh import messages, signatures
from teleconch.ssh.account import Account
from teleconch.ssh.checker import (
    CertificateCredentials,
    ICertificateCredentials,
    IInteractiveCredentials,
    InteractiveCredentials,
)
from teleconch.ssh.problems import ProtocolProblem, SSHProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.server_limits import Limits

METHODS: Final = {ICertificateCredentials: b"publickey", IInteractiveCredentials: b"keyboard-interactive"}
PUBLICKEY: Final = b"publickey"
# OpenSSH's PROTOCOL, section 3.1: the signature is also over the host's key. Agents use it to confine keys to some
# hosts.
HOSTBOUND: Final = b"publickey-hostbound-v00@openssh.com"
_OFFERS_MAX: Final = 32  # keys of a well-filled agent; they prove nothing and cost little
_PROMPTS_MAX: Final = 16


class AuthTransport(Protocol):
    """What user authentication asks of the server's transport."""

    account: Account
    ended: bool
    sessionID: bytes | None
    first_host_key: bytes

    def login_refused(self, login: str, why: str) -> None:
        """Report that ``login`` was refused."""

    def getPeer(self) -> Any: ...
    def sendPacket(self, messageType: int, payload: bytes) -> None: ...
    def fail(self, problem: SSHProblem) -> None: ...

    def start_connection(self, avatar: Any, logout: Callable[[], None], user: str) -> None:
        """Authentication has succeeded."""


class UserAuthServer(SSHService):
    """Runs until someone has authenticated. Requests are answered one after the other.

    The portal's avatars have a ``user``: who they are, for the log and for counts per user.
    """

    name = b"ssh-userauth"
    transport: AuthTransport  # type: ignore[assignment]  # Conch names its own
    log = Logger()

    def __init__(self, portal: Portal, limits: Limits) -> None:
        self._portal = portal
        self._limits = limits
        self._methods = tuple(
            name for interface, name in METHODS.items() if interface in portal.listCredentialsInterfaces()
        )
        self._who: tuple[bytes, bytes] | None = None
        self._failures = self._offers = 0
        self._told = False
        self._busy = self._stopped = False
        self._waiting: list[bytes] = []
        self._earlier: tuple[CertificateCredentials, ...] = ()
        self._answers: Deferred[tuple[str, ...]] | None = None
        self._asked = 0

    def serviceStopped(self) -> None:
        if self._who is not None and not self._stopped and not self._told:
            self._tell_refusal(self._who[0], "no usable certificate was shown")
        self._stopped = True
        self._wait_no_more()
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.errback(Failure(UnauthorizedLogin("the connection is gone")))

    def _wait_no_more(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.transport.account.give(sum(map(len, waiting)))

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum == messages.USERAUTH_INFO_RESPONSE:
            self._got_answers(packet)
            return
        if self._answers is not None:  # a new request abandons the questions (RFC 4256 section 3.1)
            answers, self._answers = self._answers, None
            answers.errback(Failure(UnauthorizedLogin("the questions were not answered")))
        if self._busy:
            if len(self._waiting) >= _OFFERS_MAX or not self.transport.account.take(len(packet)):
                raise ProtocolProblem("too many authentication requests at once")
            self._waiting.append(packet)
            return
        self._busy = True
        Deferred.fromCoroutine(self._requests(packet)).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        problem = failure.value
        if not isinstance(problem, SSHProblem):
            self.log.failure("authentication broke", failure=failure)
            problem = SSHProblem("something went wrong here; try again", messages.DISCONNECT_BY_APPLICATION)
        if not self._stopped:
            self.transport.fail(problem)

    async def _requests(self, packet: bytes) -> None:
        while True:
            await self._request(packet)
            if self._stopped or self.transport.ended or not self._waiting:
                break
            packet = self._waiting.pop(0)
            self.transport.account.give(len(packet))
        self._busy = False

    async def _request(self, packet: bytes) -> None:
        """``string user, string service, string method``, and what the method adds."""
        reader = Reader(packet)
        given, service, method = reader.string(), reader.string(), reader.string()
        login = given.partition(b":")[0]  # a style may follow; it means nothing here, nor to most of sshd's methods
        if service != b"ssh-connection":
            raise SSHProblem("this service is not there", messages.DISCONNECT_SERVICE_NOT_AVAILABLE)
        if self._who not in (None, (login, service)):
            raise ProtocolProblem("the login must stay the same during authentication")
        first, self._who = self._who is None, (login, service)
        if method == b"none":
            self._refuse(login, "no key was offered", counts=not first)
        elif (PUBLICKEY if method == HOSTBOUND else method) not in self._methods:
            self._refuse(login, "this method of authentication is not there")
        elif method in (PUBLICKEY, HOSTBOUND):
            await self._publickey(login, string(given) + string(service) + string(method), reader, method == HOSTBOUND)
        else:
            await self._login(login, InteractiveCredentials(_text(login), self._ask, self._earlier, self._peer()))

    def _peer(self) -> Any:
        return self.transport.getPeer()

    async def _publickey(self, login: bytes, head: bytes, reader: Reader, hostbound: bool) -> None:
        """``boolean signed, string algorithm, string key``, the host's key if ``hostbound``, and the signature.

        The signature covers everything before it, including ``head``.
        """
        signed = reader.boolean()
        algorithm, blob = reader.string(), reader.string()
        bound = b""
        if hostbound:
            host_key = reader.string()
            if host_key != self.transport.first_host_key:
                raise ProtocolProblem("authentication is bound to another host key")
            bound = string(host_key)
        signature = reader.string() if signed else None
        reader.end()
        session_id = self.transport.sessionID
        assert session_id is not None
        request = head + boolean(True) + string(algorithm) + string(blob) + bound
        data = string(session_id) + bytes((messages.USERAUTH_REQUEST,)) + request
        await self._login(login, CertificateCredentials(_text(login), algorithm, blob, signature, data, self._peer()))

    async def _login(self, login: bytes, credentials: CertificateCredentials | InteractiveCredentials) -> None:
        offer = isinstance(credentials, CertificateCredentials) and credentials.signature is None
        try:
            avatar: Any
            _interface, avatar, logout = await self._portal.login(credentials, None, IConchUser)
        except ValidPublicKey:
            if not offer:
                raise
            assert isinstance(credentials, CertificateCredentials)
            if not self._stopped:
                self.transport.sendPacket(
                    messages.USERAUTH_PK_OK, string(credentials.algorithm) + string(credentials.blob)
                )
            return
        except NotEnoughAuthentication:
            if isinstance(credentials, CertificateCredentials) and not offer:
                self._earlier = (*self._earlier, credentials)
            self._refuse(login, "more is needed", partial=not offer)
            return
        except (UnauthorizedLogin, ConchError, TeleconchError, ProtocolProblem) as error:
            plain = offer and not getattr(credentials, "algorithm", b"").endswith(signatures.CERT_SUFFIX)
            self._refuse(login, str(error) or type(error).__name__, offer=offer, quiet=plain)
            return
        if self._stopped:
            logout()
            return
        if offer:  # a realm or checker that lets an unsigned offer through must not become a login
            logout()
            raise SSHProblem("authentication needs a signature", messages.DISCONNECT_BY_APPLICATION)
        self._told = True
        self._wait_no_more()
        self.transport.start_connection(avatar, logout, avatar.user)

    # -- questions (RFC 4256) --

    def _ask(self, instruction: str, prompts: Sequence[tuple[str, bool]]) -> Awaitable[tuple[str, ...]]:
        """The answers, as many as prompts. UnauthorizedLogin when none will come."""
        answers: Deferred[tuple[str, ...]] = Deferred()
        if self._stopped or self._answers is not None or len(prompts) > _PROMPTS_MAX:
            answers.errback(Failure(UnauthorizedLogin("the question cannot be asked")))
            return answers
        self._answers, self._asked = answers, len(prompts)
        asked = b"".join(string(prompt.encode()) + boolean(echo) for prompt, echo in prompts)
        head = string(b"") + string(instruction.encode()) + string(b"") + uint32(len(prompts))
        self.transport.sendPacket(messages.USERAUTH_INFO_REQUEST, head + asked)
        return answers

    def _got_answers(self, packet: bytes) -> None:
        answers, self._answers = self._answers, None
        if answers is None:
            raise ProtocolProblem("an answer came to no question")
        reader = Reader(packet)
        if reader.uint32() != self._asked:
            answers.errback(Failure(UnauthorizedLogin("the wrong number of answers came")))
            return
        given = tuple(_text(reader.string()) for _ in range(self._asked))
        reader.end()
        answers.callback(given)

    # -- refusals --

    def _refuse(
        self,
        login: bytes,
        why: str,
        *,
        counts: bool = True,
        partial: bool = False,
        offer: bool = False,
        quiet: bool = False,
    ) -> None:
        """Answer with failure. Offers have a count of their own: a full agent is not an attack."""
        if self._stopped:
            return
        if counts and not partial:
            if not quiet:
                self._tell_refusal(login, why)
            self._failures += not offer
            self._offers += offer
            if self._failures >= self._limits.auth_tries or self._offers >= _OFFERS_MAX:
                raise SSHProblem("too many authentication failures", messages.DISCONNECT_NO_MORE_AUTH_METHODS)
        self.transport.sendPacket(messages.USERAUTH_FAILURE, name_list(self._methods) + boolean(partial))

    def _tell_refusal(self, login: bytes, why: str) -> None:
        self._told = True
        self.transport.login_refused(login[:255].decode("utf-8", "replace"), why)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolProblem("a text is not UTF-8") from None
