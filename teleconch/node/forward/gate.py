"""The one place that decides on forwarding: kind by kind, against the permit of this moment, before any byte flows.

A listener is asked about twice: when it is wanted, and for each connection that it takes, so that a certificate that
has ended carries nothing more on listeners that still stand (LESSONS, pain 22 and break 25).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import Logger

from teleconch.access.permit import AccessPermit
from teleconch.errors import AccessDenied, TeleconchError

DIRECT_TCPIP: Final = b"direct-tcpip"
DIRECT_STREAMLOCAL: Final = b"direct-streamlocal@openssh.com"
TCPIP_FORWARD: Final = b"tcpip-forward"
STREAMLOCAL_FORWARD: Final = b"streamlocal-forward@openssh.com"
FORWARDED_TCPIP: Final = b"forwarded-tcpip"
FORWARDED_STREAMLOCAL: Final = b"forwarded-streamlocal@openssh.com"
AGENT_REQUEST: Final = b"auth-agent-req@openssh.com"
AGENT: Final = b"auth-agent@openssh.com"
X11_REQUEST: Final = b"x11-req"
X11: Final = b"x11"


def _port(permit: AccessPermit) -> bool:
    return permit.port_forwarding


def _agent(permit: AccessPermit) -> bool:
    return permit.agent_forwarding


NEEDS: Final[Mapping[bytes, Callable[[AccessPermit], bool]]] = {
    DIRECT_TCPIP: _port,
    DIRECT_STREAMLOCAL: _port,
    TCPIP_FORWARD: _port,
    STREAMLOCAL_FORWARD: _port,
    FORWARDED_TCPIP: _port,
    FORWARDED_STREAMLOCAL: _port,
    X11_REQUEST: _port,
    X11: _port,
    AGENT_REQUEST: _agent,
    AGENT: _agent,
}

log = Logger()


class Gate:
    """``permit`` gives the permit of this moment or raises AccessDenied; ``fields`` go into each line of the log."""

    def __init__(self, permit: Callable[[], AccessPermit], fields: Mapping[str, str]) -> None:
        self._permit = permit
        self._fields = dict(fields)

    def check(self, kind: bytes, target: str) -> None:
        """AccessDenied, logged, unless ``kind`` is allowed now. ``target`` is for the log."""
        try:
            permit = self._permit()
            if not isinstance(permit, AccessPermit):
                raise AccessDenied("There is no permit.")
            if not NEEDS[kind](permit):
                what = "agent forwarding" if NEEDS[kind] is _agent else "port forwarding"
                raise AccessDenied(f"Your certificate does not allow {what}; ask the administrator for it.")
        except AccessDenied as error:
            self.refused(kind, target, error)
            raise

    def refused(self, kind: bytes, target: str, error: TeleconchError) -> None:
        """A line for what did not happen."""
        log.warn(
            "{kind} to {addr} refused: {error}",
            kind=kind.decode("ascii"),
            event=_event(kind),
            success=False,
            addr=target,
            error=str(error),
            **self._fields,
        )

    def opened(self, kind: bytes, target: str) -> None:
        """A line for what was opened."""
        log.info(
            "{kind} to {addr}", kind=kind.decode("ascii"), event=_event(kind), success=True, addr=target, **self._fields
        )


def _event(kind: bytes) -> str:
    return "x11-forward" if kind in (X11, X11_REQUEST) else "port"
