"""The channels that a proxy opens for users: a jump to a node, and sessions that lead to a node or to the auth API."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from teleconch.errors import TeleconchError
from teleconch.proxy.dial import abort
from teleconch.proxy.target import SUBSYSTEM_PREFIX, Target, parse_subsystem
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.relay import RelayChannel, RelayProtocol, relay

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from teleconch.proxy.shares import Turn

AUTH_API: Final = b"auth-api"
_T = TypeVar("_T")
_STDERR: Final = 1  # SSH_EXTENDED_DATA_STDERR, RFC 4254 section 5.2


class Roads(Protocol):
    """Where a user's channels may lead. Each error is a sentence for the user."""

    @property
    def clock(self) -> IReactorTime: ...

    async def dial(self, asked: Target) -> Turn:
        """A turn that has the end of the node that ``asked`` means, ready to relay."""

    async def auth_api(self) -> RelayProtocol:
        """An end at the auth server."""

    def no_shell(self, what: str) -> str:
        """The sentence for a user who asks the proxy itself for ``what``."""


class _Relayed(RelayChannel):
    """A channel that is relayed to a node."""

    _young: Turn | None = None  # for as long as it wants to be told what the user's side sends

    def _take(self, turn: Turn) -> None:
        self._young = turn
        relay(self, turn.end)

    def dataReceived(self, data: bytes) -> None:
        if self._young is not None and not self._young.heard(data):
            self._young = None
        self.heard(data)


class JumpChannel(_Relayed):
    """``direct-tcpip`` to a node that is connected already."""

    name = b"direct-tcpip"

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._dialled = turn

    def channelOpen(self, specificData: bytes) -> None:
        self._take(self._dialled)

    def openFailed(self, reason: Any) -> None:
        abort(self._dialled.end)


class ProxySession(_Relayed):
    """A session that can ask for one of two subsystems. There is no shell here, no command and no file."""

    name = b"session"

    def __init__(self, user: Roads) -> None:
        super().__init__()
        self._user = user
        self._used = False
        self._pty = False
        self._joined = False

    async def request_subsystem(self, data: bytes) -> bool:
        """RFC 4254 section 6.5: ``string name``."""
        name = _string(data)
        if self._used or name is None:
            return False
        self._used = True
        try:
            if name == AUTH_API:
                led: RelayProtocol | Turn = await self._user.auth_api()
            elif name.startswith(SUBSYSTEM_PREFIX.encode()):
                led = await self._user.dial(parse_subsystem(name))
            else:
                self._user.no_shell("subsystem")
                return False
        except TeleconchError as error:
            self._later(self._end, str(error))
            return True
        if self.localClosed or self.closing:
            _drop(led)
            return False
        self._later(self._join, led)
        return True

    def _join(self, led: RelayProtocol | Turn) -> None:
        if self.localClosed or self.closing:
            _drop(led)
            return
        self._joined = True
        if isinstance(led, RelayProtocol):
            relay(self, led)
        else:
            self._take(led)

    def request_pty_req(self, data: bytes) -> bool:
        # Granted to keep the client from a complaint of its own; there is no terminal, only the sentence.
        self._pty = True
        return True

    def request_window_change(self, data: bytes) -> bool:
        return self._pty

    def request_shell(self, data: bytes) -> bool:
        if self._used:
            return False
        self._used = True
        self._later(self._end, self._user.no_shell("shell"))
        return True

    def request_exec(self, data: bytes) -> bool:
        if self._used:
            return False
        self._used = True
        self._later(self._end, self._user.no_shell("exec"))
        return True

    def loseConnection(self) -> None:
        if self._joined and not self.closing and not self.localClosed and not self.remoteClosed:
            self._exit(0)
        super().loseConnection()

    def _later(self, act: Callable[[_T], None], argument: _T) -> None:
        """Do it behind the answer to the request that is being answered, and behind the data that waited for it."""
        self._user.clock.callLater(0, act, argument)

    def _end(self, sentence: str) -> None:
        """What the user sees is this sentence, and an exit status of 1.

        A failed request would have OpenSSH print that the request failed, which says less, so it is not used.
        """
        if not self.localClosed and not self.closing:
            self._say(sentence)
            self._exit(1)
            self.loseConnection()

    def _say(self, sentence: str) -> None:
        self.writeExtended(_STDERR, sentence.encode() + (b"\r\n" if self._pty else b"\n"))

    def _exit(self, status: int) -> None:
        self.conn.sendRequest(self, b"exit-status", pack(">L", status))


def _drop(led: RelayProtocol | Turn) -> None:
    """Nobody waits for it any more."""
    abort(led if isinstance(led, RelayProtocol) else led.end)


def _string(data: bytes) -> bytes | None:
    """The one string that a request carries, or ``None``."""
    try:
        reader = Reader(data)
        value = reader.string()
        reader.end()
    except ProtocolProblem:
        return None
    return value
