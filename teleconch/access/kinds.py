"""One table of everything that can be asked of a node or a proxy, and what certificate and roles must say for it.

A kind that is not in :data:`NEEDS` is granted to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final

from attrs import frozen

from teleconch.access.options import Grant
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


@frozen
class Need:
    """``extension`` is what the certificate must have, and ``grants`` what the options of the roles must all let be
    done. Without either, whoever may log in is granted the kind."""

    extension: str | None = None
    grants: frozenset[Grant] = frozenset()


def _need(extension: str | None, *needed: Grant) -> Need:
    return Need(extension, frozenset(needed))


NEEDS: Final[Mapping[Kind, Need]] = {
    Kind.SHELL: _need(None),
    Kind.EXEC: _need(None),
    Kind.SFTP: _need(None, Grant.UPLOAD, Grant.DOWNLOAD),  # its one channel goes both ways
    Kind.SCP_UPLOAD: _need(None, Grant.UPLOAD),
    Kind.SCP_DOWNLOAD: _need(None, Grant.DOWNLOAD),
    Kind.JOIN: _need(None),
    Kind.PTY: _need(_PTY),
    Kind.USER_RC: _need(_USER_RC),
    Kind.DIRECT_TCPIP: _need(_PORT, Grant.LOCAL),
    Kind.DIRECT_STREAMLOCAL: _need(_PORT, Grant.LOCAL),
    Kind.TCPIP_FORWARD: _need(_PORT, Grant.REMOTE),
    Kind.STREAMLOCAL_FORWARD: _need(_PORT, Grant.REMOTE),
    Kind.FORWARDED_TCPIP: _need(_PORT, Grant.REMOTE),
    Kind.FORWARDED_STREAMLOCAL: _need(_PORT, Grant.REMOTE),
    Kind.X11_REQUEST: _need(_PORT, Grant.X11),
    Kind.X11: _need(_PORT, Grant.X11),
    Kind.AGENT_REQUEST: _need(_AGENT, Grant.AGENT),
    Kind.AGENT: _need(_AGENT, Grant.AGENT),
    Kind.JUMP: _need(None),
    Kind.AUTH_API: _need(None),
}

_EVERY_GRANT: Final = frozenset(Grant)
_DENIED: Final = {
    _PTY: "The certificate does not allow a terminal; ask for one with permit-pty.",
    _PORT: "Your certificate does not allow port forwarding; ask the administrator for it.",
    _AGENT: "Your certificate does not allow agent forwarding; ask the administrator for it.",
}


@lru_cache(maxsize=256)
def granted(extensions: frozenset[str], options: frozenset[Grant] = _EVERY_GRANT) -> frozenset[Kind]:
    """What a certificate with these extensions and roles with these options may ask for."""
    return frozenset(
        kind
        for kind, need in NEEDS.items()
        if (need.extension is None or need.extension in extensions) and need.grants <= options
    )


def denied(kind: Kind, extensions: frozenset[str] = frozenset()) -> AccessDenied:
    """Why ``kind`` is not among what was granted to a certificate with ``extensions``."""
    need = NEEDS.get(kind, Need())
    if need.extension is not None and need.extension not in extensions:
        return AccessDenied(_DENIED.get(need.extension, f"Your certificate does not allow {kind}."))
    if need.grants:
        what = " and ".join(sorted(need.grants))
        return AccessDenied(f"Your roles do not allow {what}; ask the administrator for it.")
    return AccessDenied(f"Your certificate does not allow {kind}.")
