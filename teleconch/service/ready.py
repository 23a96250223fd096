"""Reports that everything is up: one log line, systemd's notification, and ``/readyz`` on ``--diag-addr``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Site

if TYPE_CHECKING:
    from twisted.web.iweb import IRequest

log = Logger()


def notify_systemd(state: str) -> None:
    """sd_notify(3): one datagram to ``$NOTIFY_SOCKET``, if that is set."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.sendall(state.encode())
    except OSError as error:
        log.warn("systemd could not be notified: {error}", error=str(error))


class Readiness:
    """Which roles are still starting. Ready once every one of them has said so."""

    def __init__(self, roles: tuple[str, ...]) -> None:
        self.waiting = set(roles)
        self.ready = False
        self._refusals: dict[str, str] = {}
        self._told = False
        self._then: list[Callable[[], None]] = []

    def then(self, call: Callable[[], None]) -> None:
        """Call ``call`` once everything is ready."""
        self._then.append(call)

    def role_ready(self, role: str) -> None:
        self.waiting.discard(role)
        if not self.waiting and not self.ready:
            self.ready = True
            # Even if the cluster refuses this host: its users still get in, and a restart would not help.
            notify_systemd("READY=1")
            for sentence in self._refusals.values():
                log.error("teleport runs, but the auth server refuses this host: {error}", error=sentence)
            self._tell()
            for call in self._then:
                call()

    def refused(self, role: str, sentence: str) -> None:
        """The auth server refuses a role of this host or, if ``sentence`` is empty, no longer does."""
        if sentence:
            self._refusals[role] = sentence
        elif self._refusals.pop(role, None) is not None:
            self._tell()

    @property
    def in_service(self) -> bool:
        """Whether everything runs and the cluster accepts this host. While the auth server is unreachable, the last
        answer counts."""
        return self.ready and not self._refusals

    def _tell(self) -> None:
        if self.in_service and not self._told:
            self._told = True
            log.info("teleport is ready")

    def stopping(self) -> None:
        self.ready = False
        notify_systemd("STOPPING=1")


class _Answer(Resource):
    isLeaf = True

    def __init__(self, readiness: Readiness | None) -> None:
        Resource.__init__(self)
        self._readiness = readiness

    def render_GET(self, request: IRequest) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        if self._readiness is not None and not self._readiness.in_service:
            request.setResponseCode(503)
            return b'{"status": "refused"}\n' if self._readiness.ready else b'{"status": "starting"}\n'
        return b'{"status": "ok"}\n'


def diagnostics(readiness: Readiness) -> Site:
    """``/healthz`` (the process answers) and ``/readyz``: 200 once ready; 503 before, while the auth server refuses
    this host, and while stopping."""
    root = Resource()
    root.putChild(b"healthz", _Answer(None))
    root.putChild(b"readyz", _Answer(readiness))
    return Site(root)
