"""The loop of ``tsh ssh``: one socket to the proxy, two links one inside the other, and the console.

::

    stdin  --> Console --> Session --> inner Link --> Way, outer Link --> socket --> proxy ==> node
    stdout <-- Console <-- Session <-- inner Link <-- Way, outer Link <-- socket
"""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from teleconch.client.console import Console
from teleconch.client.link import ENDED, Link
from teleconch.client.session import SessionRequest
from teleconch.client.way import Way
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, ConnectionProblem, NotFound, TeleconchError

KEEPALIVE: Final = 30.0  # seconds; load balancers cut connections that are silent for a minute
KEEPALIVES_MISSED: Final = 3
SETUP: Final = 30.0  # seconds until a shell or command is started
_READ: Final = 256 * 1024
_STUCK: Final = 4 * 1024 * 1024  # bytes of answers that the node asked for and does not take
_OUT_MAX: Final = 512 * 1024  # bytes waiting for the socket; above this, nothing is read that would add to them


class Key:
    """What both links log in with: private key, certificate blob, login."""

    def __init__(self, private: Any, certificate: bytes, login: str) -> None:
        self.private, self.certificate, self.login = private, certificate, login


class Road:
    """From this process to the session of ``console``, for which the node is asked as ``request`` says.

    ``check(host)`` returns the check that a host's key has to pass. ``reached(what)`` is called for each step.
    """

    def __init__(
        self,
        connected: socket.socket,
        proxy: str,
        host: str,
        port: int,
        key: Key,
        check: Callable[[str], Callable[[bytes], None]],
        request: SessionRequest | None,
        console: Console,
        reached: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = connected
        self._proxy, self._host = proxy, host
        self._reached = reached
        self._clock = clock
        self._console, self._session = console, console.session
        kind, target = request.channel if request is not None else (b"session", b"")
        user, private, certificate = key.login, key.private, key.certificate
        self._inner = Link(
            user, private, certificate, check(host), self._session, kind, target, console.window, clock=clock
        )
        self._way = Way(self._inner)
        # RFC 4254 section 7.2; no originator: nobody needs to know
        node = string(host.encode()) + uint32(port) + string(b"127.0.0.1") + uint32(0)
        self._outer = Link(user, private, certificate, check(proxy), self._way, b"direct-tcpip", node, clock=clock)
        self._out = b""
        self._steps: list[tuple[str, Callable[[], bool]]] = [
            ("logged in to the proxy", lambda: self._outer.entered),
            ("way to the node open", lambda: self._way.open),
            ("logged in to the node", lambda: self._inner.entered),
            ("command started", lambda: self._session.started),
        ]

    def run(self) -> int:
        """The exit status of the remote command. TeleconchError; OSError if output cannot be written."""
        wake_read, wake_write = socket.socketpair()
        wake_write.setblocking(False)
        before = signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        resized: list[int] = []
        signal.signal(signal.SIGWINCH, lambda number, _: resized.append(number))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._loop(wake_read, resized)
        finally:
            signal.set_wakeup_fd(before)
            wake_read.close()
            wake_write.close()
        return self._result()

    def _loop(self, wake: socket.socket, resized: list[int]) -> None:
        console, session, way = self._console, self._session, self._way
        give_up = self._clock() + SETUP
        next_tick = self._clock() + KEEPALIVE
        self._send()
        while not console.done and not (self._broken() and not console.waiting):
            reading = console.wants_input and way.has_room and len(self._out) < _OUT_MAX
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            if not self._broken() and not session.over:
                wanted = select.POLLOUT if self._out else 0
                # A server that asks without end and never reads the answers is not heard until it does.
                poll.register(self._socket, wanted | (select.POLLIN if len(self._out) < 2 * _OUT_MAX else 0))
            if reading:
                poll.register(0, select.POLLIN)
            for output in console.outputs:
                if output.waiting:
                    poll.register(output.fd, select.POLLOUT)
            deadline = next_tick if session.started else min(give_up, next_tick)
            events = poll.poll(max(0.0, deadline - self._clock()) * 1000)
            self._handle(dict(events), wake, resized, reading)
            now = self._clock()
            if not session.started and now >= give_up:
                self._outer.end(ConnectionProblem("the other side takes too long to answer; try again."))
            if self._outer.unsent > _STUCK:
                self._outer.end(ConnectionProblem("the other side does not take what is sent."))
            if now >= next_tick:
                next_tick = now + KEEPALIVE
                self._inner.tick(KEEPALIVES_MISSED)
                self._outer.pass_time()
            self._send()
        self._inner.goodbye()
        way.pass_on()
        self._outer.goodbye()
        self._send()

    def _handle(self, events: dict[int, int], wake: socket.socket, resized: list[int], reading: bool) -> None:
        console = self._console
        if wake.fileno() in events:
            wake.recv(4096)
        if resized:  # before what is typed at the new size
            resized.clear()
            self._session.resize()
        for output in console.outputs:
            if output.waiting and output.fd in events:
                output.ready()
        console.written()
        if self._socket.fileno() in events and events[self._socket.fileno()] & ~select.POLLOUT:
            self._receive()
        if reading and 0 in events:
            console.input_ready()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._outer.feed(data)
        else:
            self._outer.lost()
        while self._steps and self._steps[0][1]():
            self._reached(self._steps.pop(0)[0])

    def _send(self) -> None:
        self._way.pass_on()
        out = self._outer.take()
        self._out = self._out + out if self._out else out
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._out = b""
                self._outer.lost()
                return
            self._out = self._out[sent:]

    def _broken(self) -> bool:
        return self._outer.state == ENDED or self._inner.state == ENDED or self._way.over

    def _result(self) -> int:
        self._console.close()
        if self._session.problem is None and self._session.status is None:
            raise self._why()
        return self._session.result()

    def _why(self) -> TeleconchError:
        """What ended the road before the command did."""
        if self._way.refusal:
            return NotFound(self._way.refusal)
        # A link that ends closes what runs inside it, so the outer one, if it has a problem, had the first.
        link, where = (self._outer, f"the proxy {self._proxy}") if self._outer.problem else (self._inner, self._host)
        problem = link.problem or ConnectionProblem("it closed the connection and did not say why.")
        if isinstance(problem, AccessDenied):
            return AccessDenied(f"No login at {where}: {problem}")
        if not isinstance(problem, ConnectionProblem):
            return problem
        if self._session.started:
            return ConnectionProblem(f"The connection to {where} was lost: {problem}")
        return ConnectionProblem(f"No connection to {where}: {problem}")
