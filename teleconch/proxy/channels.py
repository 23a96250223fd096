"""The channels that a proxy opens for users: a jump to a node, and sessions that lead to a node or to the auth API."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from teleconch.errors import TeleconchError
from teleconch.proxy.target import SUBSYSTEM_PREFIX, Target, parse_subsystem
from teleconch.ssh.ends import RelayChannel, ToEnd
from teleconch.ssh.problems import ProtocolProblem
from teleconch.ssh.reader import Reader
from teleconch.ssh.relay import End, relay

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from teleconch.proxy.shares import Turn

AUTH_API: Final = b"auth-api"
_T = TypeVar("_T")
_STDERR: Final = 1  # SSH_EXTENDED_DATA_STDERR, RFC 4254 section 5.2


class ChannelOwner(Protocol):
    """The user who owns the channels, and where these may lead. Each error is a sentence for the user."""

    @property
    def clock(self) -> IReactorTime: ...

    async def dial(self, asked: Target) -> Turn:
        """A turn with an end at the node that ``asked`` means, ready to relay."""

    async def auth_api(self) -> End:
        """An end at the auth server."""

    def no_shell(self, what: str) -> str:
        """The sentence for a user who asks the proxy itself for ``what``."""


def jump(turn: Turn) -> RelayChannel:
    """``direct-tcpip`` to a node that is connected already."""
    channel = ToEnd(turn.end)
    channel.tap(turn.heard)
    return channel


class ProxySession(RelayChannel):
    """A session that can ask for one of two subsystems. There are no shells, commands or files here."""

    name = b"session"

    def __init__(self, user: ChannelOwner) -> None:
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
                led: End | Turn = await self._user.auth_api()
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

    def _join(self, led: End | Turn) -> None:
        if self.localClosed or self.closing:
            _drop(led)
            return
        self._joined = True
        if not isinstance(led, End):
            self.tap(led.heard)
            led = led.end
        relay(self, led)

    def request_pty_req(self, data: bytes) -> bool:
        # Granted so that the client does not add a complaint of its own; there is no terminal, only the sentence.
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
        """Act after the current request has been answered, and after the data that waited for that."""
        self._user.clock.callLater(0, act, argument)

    def _end(self, sentence: str) -> None:
        """End the session: the user sees ``sentence`` and an exit status of 1.

        If the request were refused instead, OpenSSH would print only that it failed, which says less.
        """
        if not self.localClosed and not self.closing:
            self._say(sentence)
            self._exit(1)
            self.loseConnection()

    def _say(self, sentence: str) -> None:
        self.writeExtended(_STDERR, sentence.encode() + (b"\r\n" if self._pty else b"\n"))

    def _exit(self, status: int) -> None:
        self.conn.sendRequest(self, b"exit-status", pack(">L", status))


def _drop(led: End | Turn) -> None:
    """Close an end that nobody waits for any more."""
    (led if isinstance(led, End) else led.end).abort()


def _string(data: bytes) -> bytes | None:
    """The only string in a request; ``None`` if the request is anything else."""
    try:
        reader = Reader(data)
        value = reader.string()
        reader.end()
    except ProtocolProblem:
        return None
    return value
