"""The loop of ``tsh ssh``: one socket to the proxy, two links one inside the other, standard input and output."""

from __future__ import annotations

import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from teleconch.client.link import ENDED, WINDOW, Link
from teleconch.client.session import Session, SessionRequest, Way
from teleconch.client.terminal import RawTerminal
from teleconch.codec import string
from teleconch.errors import AccessDenied, ConnectionProblem, NotFound, TeleconchError

KEEPALIVE: Final = 30.0  # seconds; load balancers cut connections that are silent for a minute
KEEPALIVES_MISSED: Final = 3
SETUP: Final = 30.0  # seconds until a shell or command is started
_READ: Final = 256 * 1024
_STUCK: Final = 8 * 1024 * 1024  # answers that the node asked for and does not take
_OUT_MAX: Final = 512 * 1024  # bytes that wait for the socket above which nothing is read that would add to them


class Key:
    """What both links log in with: private key, certificate blob, login."""

    def __init__(self, private: Any, certificate: bytes, login: str) -> None:
        self.private, self.certificate, self.login = private, certificate, login


class Road:
    """From this process to a session on a node. ``check(host)`` gives what a host's key has to pass.

    ``reached(what)`` is told of each step; ``raw`` is the terminal to make raw for a PTY, if there is one.
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
        raw: RawTerminal | None,
        warn: Callable[[str], None],
        reached: Callable[[str], None] = lambda _: None,
        escape: bytes = b"~",
    ) -> None:
        self._socket = connected
        self._proxy, self._host = proxy, host
        self._reached = reached
        self.session = Session(request, raw, warn, escape)
        self._way = Way()
        # RFC 4254 section 7.2; no originator: nobody needs to know
        target = string(host.encode()) + struct.pack(">I", port) + string(b"127.0.0.1") + struct.pack(">I", 0)
        self._outer = Link(key.login, key.private, key.certificate, check(proxy), self._way, b"direct-tcpip", target)
        kind, onward = request.channel if request is not None else (b"session", b"")
        window = request.window if request is not None else WINDOW
        self._inner = Link(key.login, key.private, key.certificate, check(host), self.session, kind, onward, window)
        self._way.outer, self._way.inner, self.session.link = self._outer, self._inner, self._inner
        self._out = b""
        self._steps: list[tuple[str, Callable[[], bool]]] = [
            ("logged in to the proxy", lambda: self._outer.entered),
            ("way to the node open", lambda: self._way.open),
            ("logged in to the node", lambda: self._inner.entered),
            ("command started", lambda: self.session.started),
        ]

    def run(self) -> int:
        """The exit status of the remote command. TeleconchError; OSError where output cannot be written."""
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
        session, way = self.session, self._way
        give_up = time.monotonic() + SETUP
        next_tick = time.monotonic() + KEEPALIVE
        self._send()
        while not session.done and not (self._broken() and not session.output.waiting and not session.error.waiting):
            reading = session.wants_input and way.has_room and len(self._out) < _OUT_MAX
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            if not self._broken() and not session.over:
                wanted = select.POLLOUT if self._out else 0
                # Whoever asks without end and never reads the answers is not heard until he does.
                poll.register(self._socket, wanted | (select.POLLIN if len(self._out) < 2 * _OUT_MAX else 0))
            if reading:
                poll.register(0, select.POLLIN)
            for output in (session.output, session.error):
                if output.waiting:
                    poll.register(output.fd, select.POLLOUT)
            deadline = next_tick if session.started else min(give_up, next_tick)
            events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            self._handle(dict(events), wake, resized, reading)
            now = time.monotonic()
            if not session.started and now >= give_up:
                self._outer.end(ConnectionProblem("the other side takes too long to answer; try again."))
            if self._outer.unsent > _STUCK:
                self._outer.end(ConnectionProblem("the other side does not take what is sent."))
            if now >= next_tick:
                next_tick = now + KEEPALIVE
                self._inner.tick(KEEPALIVES_MISSED)
            self._send()
        self._inner.goodbye()
        way.pass_on()
        self._outer.goodbye()
        self._send()

    def _handle(self, events: dict[int, int], wake: socket.socket, resized: list[int], reading: bool) -> None:
        session = self.session
        if wake.fileno() in events:
            wake.recv(4096)
        if resized:  # before what is typed into the new size
            resized.clear()
            session.resized()
        for output in (session.output, session.error):
            if output.waiting and output.fd in events:
                output.ready()
        session.written()
        if self._socket.fileno() in events and events[self._socket.fileno()] & ~select.POLLOUT:
            self._receive()
        if reading and 0 in events:
            session.input_ready()

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
        session = self.session
        session.output.close()
        session.error.close()
        if session.problem is not None:
            raise session.problem
        if session.status is not None:
            return session.status
        raise self._why()

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
        if self.session.started:
            return ConnectionProblem(f"The connection to {where} was lost: {problem}")
        return ConnectionProblem(f"No connection to {where}: {problem}")
