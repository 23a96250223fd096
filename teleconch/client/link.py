"""An SSH client's connection without I/O, with one channel (RFC 4254): that of ``tsh ssh``.

``tsh ssh`` has to be up in the time that OpenSSH's client takes, and importing Twisted alone takes longer than that. So
it runs the client of ``teleconch.ssh`` without Twisted: the same transport, login and channels as everywhere, upon
bytes that ``road`` carries. It opens one channel, and refuses whatever the server wants.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from teleconch.errors import ConnectionProblem, TeleconchError
from teleconch.ssh import algorithms, limits, signatures
from teleconch.ssh.auth_client import Signer, UserAuthClient
from teleconch.ssh.channels import Channels
from teleconch.ssh.client_transport import ClientTransport
from teleconch.ssh.problems import ChannelRefused, NegotiationProblem, SSHProblem
from teleconch.ssh.receiving import Receiving

__all__ = ["ENDED", "ChannelUser", "Link", "SessionLink"]

ENDED: Final = "ended"
WINDOW: Final = limits.CHANNEL_WINDOW


class SessionLink(Protocol):
    """What a session sends by: the one channel of a :class:`Link`, or one of several on a reactor's connection."""

    def write(self, data: bytes) -> None:
        """Send data, as far as the node's window reaches; the rest waits."""

    def write_eof(self) -> None:
        """No more data comes after what was written."""

    def close(self) -> None:
        """Close the channel after what was written."""

    def credit(self, count: int) -> None:
        """``count`` bytes of the channel's data were consumed: as much may come again."""

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        """A channel request; the answer comes as :meth:`ChannelUser.answered`."""

    def rekey(self) -> None:
        """Change the keys of the connection."""

    def ways(self) -> list[str]:
        """What goes through the connection, a line each."""


class ChannelUser:
    """What the one channel tells. Every call comes out of :meth:`Link.feed`."""

    def opened(self, link: Any) -> None:
        """It may be written to, by ``link``. The first call, unless it is refused."""

    def refused(self, sentence: str) -> None:
        """The server does not open it."""

    def data(self, data: bytes) -> None:
        """From the server; call :meth:`Link.credit` for what was consumed."""

    def error_data(self, data: bytes) -> None:
        """The same for standard error."""

    def request(self, name: bytes, data: bytes) -> None:
        """``exit-status`` and the like."""

    def answered(self, success: bool) -> None:
        """The answer to the oldest request that wanted one."""

    def eof(self) -> None:
        """No more data comes."""

    def closed(self) -> None:
        """No more data or requests will come."""


class _NoLog:
    """There is no log: what went wrong is told to the user."""

    def debug(self, format: str, **fields: Any) -> None:
        """Nobody reads it."""

    info = warn = debug

    def failure(self, format: str, **fields: Any) -> None:
        """Let the exception that is being handled go on to whoever called."""
        raise


class _Wire:
    """What is to be sent waits here until it is taken. ``over`` is called when nothing more comes or goes."""

    unsent = 0
    congested = False  # the reader of standard input asks how much waits

    def __init__(self, over: Callable[[], None]) -> None:
        self.read_size = 0  # without effect: others read
        self.out: list[bytes] = []
        self.gone = self.close = self.abort = over

    def send(self, buffers: list[bytes], size: int) -> None:
        self.out += buffers

    def stop_reading(self) -> None:
        """Never asked for: nothing is congested."""


class _Transport(ClientTransport):
    """Logs in to a server with one certificate, and then runs ``connection``."""

    log = _NoLog()

    def __init__(
        self,
        connection: Channels,
        user: str,
        signer: Signer,
        verify_host: Callable[[bytes], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(None, algorithms.choose(), verify_host)
        denied = (
            f"the server did not let {user} in. Log in again with `tsh login --force`, and check that {user} is one of"
            " your logins."
        )
        self.auth = UserAuthClient(user, [signer], lambda: self.let_in(connection), self._refused, denied)
        self._signer = signer
        self._clock = clock
        self._due: tuple[float, Callable[[], None]] | None = None

    def connectionSecure(self) -> None:
        if not signatures.algorithms_for(self._signer.blob, None):
            raise NegotiationProblem("your key is of a kind that is not used here")
        super().connectionSecure()
        self.auth.show_early(self)

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        self._due = (self._clock() + seconds, what)

    def pass_time(self) -> None:
        """Do what is due."""
        if self._due is not None and self._clock() > self._due[0]:
            due, self._due = self._due[1], None
            due()

    def problem(self, problem: SSHProblem) -> None:
        if not self.otherVersionString:
            problem = SSHProblem("this is not a server of SSH 2.0", problem.reason)
        super().problem(problem)

    def peerDisconnected(self, code: int, text: str) -> None:
        self.why = self.why or ConnectionProblem(f"the server closed the connection: {text}.")


class _Connection(Channels):
    """The connection service, which opens ``link`` as soon as the user is logged in, and refuses all that the server
    wants."""

    log = _NoLog()

    def __init__(self, link: Link, target: bytes) -> None:
        super().__init__()
        self._link, self._target = link, target

    def serviceStarted(self) -> None:
        super().serviceStarted()
        self.ask_for(self._link, self._target, lambda _: None)

    def _first_window(self, channel: Receiving) -> None:
        """The one channel has all of its window at once."""

    def alive(self, limit: int) -> bool:
        """Ask for a sign of life; False if ``limit`` such questions have had no answer."""
        return self._requests.keep_alive(limit)


class Link(Receiving):
    """A connection as ``user``, and the one channel on it. ``kind`` and ``target`` say which channel to open once the
    user is logged in, ``window`` how many bytes may be on their way from the server. ``clock`` returns seconds that
    never go back.

    A problem in any state leads to ENDED, and ``problem`` says why.
    """

    log = _NoLog()

    def __init__(
        self,
        user: str,
        key: Any,
        certificate: bytes,
        verify_host: Callable[[bytes], None],
        channel: ChannelUser,
        kind: bytes,
        target: bytes = b"",
        window: int = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(window, limits.CHANNEL_PACKET)
        self.name = kind
        self._user = channel
        self._over = False  # the user of the channel was told that it is
        self.conn = self._connection = _Connection(self, target)
        self._left = b""
        self._wire = _Wire(self._ended)
        self.transport = _Transport(self._connection, user, Signer.of(key, certificate), verify_host, clock)
        self._connection.transport = self.transport
        self.transport.start(self._wire)

    # --- the connection as a whole ---

    @property
    def state(self) -> str:
        """One of ``teleconch.ssh.states``, or ENDED."""
        return ENDED if self.transport.ended else self.transport.state

    @property
    def problem(self) -> TeleconchError | None:
        """What ended it."""
        return self.transport.why

    @property
    def entered(self) -> bool:
        """Whether the user is logged in."""
        return self.transport.entered

    @property
    def exchanges(self) -> int:
        """How many key exchanges there were."""
        return self.transport.keyExchanges

    def take(self) -> bytes:
        """Take what is to be sent to the server now."""
        out, self._wire.out = b"".join(self._wire.out), []
        return out

    def feed(self, data: bytes) -> None:
        """Bytes from the server. A problem ends the connection: see ``state`` and ``problem``."""
        if self._left:
            data = self._left + data
        used = self.transport.received(memoryview(data), len(data))
        self._left = data[used:] if used < len(data) else b""

    def lost(self) -> None:
        """The connection below is gone."""
        self.end(ConnectionProblem("the server closed the connection."))

    def end(self, problem: TeleconchError) -> None:
        """Nothing more goes in or out; the channel closes too."""
        if not self.transport.ended:
            self.transport.why = self.transport.why or problem
            self.transport.abortConnection()

    def goodbye(self) -> None:
        """Say that this is the end."""
        self._over = True
        self.transport.loseConnection()

    def rekey(self) -> None:
        """Change the keys of the connection."""
        self.transport.rekey()

    def _ended(self) -> None:
        self._connection.serviceStopped()
        self.closed()

    # --- what the channel tells ---

    def channelOpen(self, specificData: bytes) -> None:
        """It is open."""
        self._user.opened(self)

    def openFailed(self, reason: Exception) -> None:
        """It was refused, or the connection ended first."""
        if isinstance(reason, ChannelRefused):
            self._over = True
            self._user.refused(reason.sentence)

    def got_data(self, kind: int, data: bytes) -> None:
        """Data from the server. The user of the channel says by :meth:`credit` what was consumed."""
        if self.closing or self.localClosed or kind > 1:
            self.credit(len(data))
        elif kind:
            self._user.error_data(data)
        else:
            self._user.data(data)

    def credit(self, count: int) -> None:
        """``count`` bytes of the channel's data were consumed: as much may come again."""
        self._uncredited += count
        self._credit()

    def requestReceived(self, requestType: bytes, data: bytes) -> bool:
        self._user.request(requestType, data)
        return False

    def eofReceived(self) -> None:
        self._user.eof()

    def closed(self) -> None:
        if not self._over:
            self._over = True
            self._user.closed()

    # --- what the channel's user sends: ``write``, and ---

    @property
    def unsent(self) -> int:
        """Bytes that wait for the server's window, or for the end of a key exchange."""
        return self._unsent_bytes

    def write_eof(self) -> None:
        """No more data comes after what was written."""
        self.loseWriteConnection()

    def close(self) -> None:
        """Close the channel after what was written."""
        self.loseConnection()

    def send_request(self, name: bytes, data: bytes, wants_answer: bool) -> None:
        """A channel request; the answer comes as :meth:`ChannelUser.answered`."""
        if not self.localClosed:
            self._connection.request(self, name, data, self._told if wants_answer else None)

    def _told(self, problem: Exception | None) -> None:
        if self.id in self._connection.channels:  # not when it has closed: that is told in its own way
            self._user.answered(problem is None)

    def ways(self) -> list[str]:
        """What goes through the connection."""
        return [self.name.decode()]

    # --- time ---

    def tick(self, limit: int) -> None:
        """Call twice a minute: asks the server for a sign of life. Ends the connection when ``limit`` questions have
        had no answer; changes keys each hour."""
        self.pass_time()
        if not self.entered or self.state == ENDED:
            return
        if not self._connection.alive(limit):
            self.end(ConnectionProblem("the other side does not answer any more: the connection was lost."))

    def pass_time(self) -> None:
        """Call now and then: changes keys each hour, and waits no longer than two minutes for the server to do so."""
        if not self.transport.ended:
            self.transport.pass_time()
