"""What one session channel asks of forwarding: the agent's socket and an X11 display, and their variables."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable
from typing import Any, Final

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from teleconch.access.kinds import Kind
from teleconch.codec import string, uint32
from teleconch.errors import AccessDenied, AlreadyExists, BadParameter, NotFound, TeleconchError, Unavailable
from teleconch.node.forward import x11
from teleconch.node.forward.forwarding import Forwarding
from teleconch.node.forward.inward import Listener
from teleconch.node.start import Request
from teleconch.ssh.problems import ProtocolProblem

X11_REQUEST: Final = Kind.X11_REQUEST.encode()
_AGENT: Final = Kind.AGENT_REQUEST.encode()
XAUTH_DEADLINE: Final = 30.0  # seconds; xauth itself waits up to 20 for its lock

log = Logger()


class SessionForwarding:
    """The part of ``whole`` that one session asked for. :meth:`close` it when the session is over."""

    def __init__(self, whole: Forwarding) -> None:
        self._whole = whole
        self._agent: bytes | None = None
        self._display: bytes | None = None
        self.cookie = b""  # X11's protocol and cookie on one line, once there is a display
        self._asked_x11 = False
        self._listener: Listener | None = None
        self._closed = False

    def request(self, name: bytes, data: bytes) -> Awaitable[bool] | None:
        """The answer to a channel request, or ``None`` if it is not one of forwarding's."""
        if name == _AGENT:
            return self._want_agent()
        if name == X11_REQUEST:
            return self._want_x11(data)
        return None

    def environment(self) -> dict[bytes, bytes]:
        """``SSH_AUTH_SOCK`` and ``DISPLAY``, as far as they were granted."""
        variables: dict[bytes, bytes] = {}
        if self._agent is not None:
            variables[b"SSH_AUTH_SOCK"] = self._agent
        if self._display is not None:
            variables[b"DISPLAY"] = self._display
        return variables

    def close(self) -> None:
        """The display goes with its session; the agent's socket lasts as long as the connection. Idempotent."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()

    async def _want_agent(self) -> bool:
        try:
            self._agent = await self._whole.agent()
        except TeleconchError:  # logged there
            return False
        return True

    # --- X11 (RFC 4254 section 6.3) ----------------------------------------------------------------------------------

    async def _want_x11(self, data: bytes) -> bool:
        whole = self._whole
        try:
            whole.gate.check(Kind.X11_REQUEST, "display")
        except AccessDenied:
            return False
        try:
            if self._asked_x11:
                raise AlreadyExists("This session has asked for a display already.")
            asked = x11.parse(data)
            if not os.access(x11.PROGRAM, os.X_OK):
                raise NotFound("There is no xauth on this machine, so X11 cannot be forwarded.")
            self._asked_x11 = True
            sockets, number = await whole.errands_for_listener(whole.errands.display())
        except (TeleconchError, ProtocolProblem) as error:
            problem = error if isinstance(error, TeleconchError) else BadParameter(str(error))
            whole.gate.refused(Kind.X11_REQUEST, "display", problem)
            return False
        display = asked.display(number)

        def accepted(sock: socket.socket, peer: Any) -> None:
            if asked.single:
                listener.close()
            origin = string(str(peer[0]).encode()) + uint32(peer[1])
            whole.carry(Kind.X11, display.decode("ascii"), origin, sock)

        listener = self._listener = whole.listen(sockets, accepted)
        if self._closed:
            listener.close()
            return False
        whole.gate.opened(Kind.X11_REQUEST, display.decode("ascii"))
        try:
            await self._xauth(asked.xauth(number))
        except TeleconchError as error:  # as with sshd, the display stays; its programs will say the rest
            log.warn("xauth failed: {error}", error=str(error))
        self._display, self.cookie = display, asked.line()
        return True

    async def _xauth(self, commands: bytes) -> None:
        """Run xauth as the user, through the user's shell. TeleconchError."""
        whole = self._whole
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(str(error)) from None
        try:
            os.set_blocking(writing, False)
            os.write(writing, commands)  # far less than a pipe holds
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            os.close(reading)
            raise Unavailable(str(error)) from None
        finally:
            os.close(writing)
        request = Request(whole.login, x11.COMMAND, {}, False)
        process = whole.launcher.spawn(request, reading, null, null, owner=whole.account())
        await process.started
        process.ended.addTimeout(XAUTH_DEADLINE, whole.reactor)
        try:
            status = await process.ended
        except DeferredTimeout:
            process.hang_up()
            raise Unavailable("It did not end.") from None
        if status:
            raise Unavailable(f"It ended with the status {status}.")
