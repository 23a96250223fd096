"""One table of everything that can be asked of a node or a proxy, and what a certificate must say for it.

A kind that is not in :data:`NEEDS` is granted to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from teleconch.errors import AccessDenied


class Kind(StrEnum):
    """The value is the name in the log, and on the wire if there is one."""

    # Sessions on a node (RFC 4254 section 6)
    SHELL = "shell"
    EXEC = "exec"
    SFTP = "sftp"
    SCP_UPLOAD = "scp-upload"
    SCP_DOWNLOAD = "scp-download"
    JOIN = "join"
    PTY = "pty-req"
    USER_RC = "user-rc"
    # Forwarding through a node (RFC 4254 section 7, OpenSSH's PROTOCOL)
    DIRECT_TCPIP = "direct-tcpip"
    DIRECT_STREAMLOCAL = "direct-streamlocal@openssh.com"
    TCPIP_FORWARD = "tcpip-forward"
    STREAMLOCAL_FORWARD = "streamlocal-forward@openssh.com"
    FORWARDED_TCPIP = "forwarded-tcpip"
    FORWARDED_STREAMLOCAL = "forwarded-streamlocal@openssh.com"
    AGENT_REQUEST = "auth-agent-req@openssh.com"
    AGENT = "auth-agent@openssh.com"
    X11_REQUEST = "x11-req"
    X11 = "x11"
    # What a proxy is asked for
    JUMP = "jump"
    AUTH_API = "auth-api"


_PTY: Final = "permit-pty"
_PORT: Final = "permit-port-forwarding"
_AGENT: Final = "permit-agent-forwarding"
_USER_RC: Final = "permit-user-rc"

NEEDS: Final[Mapping[Kind, str | None]] = {
    Kind.SHELL: None,
    Kind.EXEC: None,
    Kind.SFTP: None,
    Kind.SCP_UPLOAD: None,
    Kind.SCP_DOWNLOAD: None,
    Kind.JOIN: None,
    Kind.PTY: _PTY,
    Kind.USER_RC: _USER_RC,
    Kind.DIRECT_TCPIP: _PORT,
    Kind.DIRECT_STREAMLOCAL: _PORT,
    Kind.TCPIP_FORWARD: _PORT,
    Kind.STREAMLOCAL_FORWARD: _PORT,
    Kind.FORWARDED_TCPIP: _PORT,
    Kind.FORWARDED_STREAMLOCAL: _PORT,
    Kind.X11_REQUEST: _PORT,
    Kind.X11: _PORT,
    Kind.AGENT_REQUEST: _AGENT,
    Kind.AGENT: _AGENT,
    Kind.JUMP: None,
    Kind.AUTH_API: None,
}
"""The extension of the certificate that a kind needs; ``None``: any certificate for this login grants it."""

_DENIED: Final = {
    _PTY: "The certificate does not allow a terminal; ask for one with permit-pty.",
    _PORT: "Your certificate does not allow port forwarding; ask the administrator for it.",
    _AGENT: "Your certificate does not allow agent forwarding; ask the administrator for it.",
}


def granted(extensions: frozenset[str]) -> frozenset[Kind]:
    """What a certificate with these extensions may ask for."""
    return frozenset(kind for kind, need in NEEDS.items() if need is None or need in extensions)


def denied(kind: Kind) -> AccessDenied:
    """Why ``kind`` is not among what was granted."""
    return AccessDenied(_DENIED.get(NEEDS.get(kind) or "", f"Your certificate does not allow {kind}."))
