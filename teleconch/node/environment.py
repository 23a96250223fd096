"""Which variables reach a session: those that a client may set, by allow-list, and those that the node sets.

``LD_*``, ``PYTHON*``, ``BASH_ENV``, ``IFS`` and the others of ``launch.variables.NEVER`` never pass,
even where the configuration's own list would let them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IAddress

from teleconch.node.launch import variables

ALLOWED: Final = ("LANG", "LC_*", "COLORTERM", "TERM", "TELEPORT_SESSION")
COUNT_MAX: Final = 64
NAME_MAX: Final = 128
ENTRY_COST: Final = 256  # bytes of memory, beside name and value
VALUE_MAX: Final = variables.VALUE_MAX


class Requested:
    """What a client's ``env`` requests have set so far (RFC 4254 section 6.4). ``also`` are more patterns."""

    def __init__(self, also: Iterable[str] = ()) -> None:
        self._allowed = (*ALLOWED, *also)
        self.variables: dict[bytes, bytes] = {}

    def cost(self, name: bytes) -> int:
        """About how much memory the variable takes; nothing if it is not set."""
        value = self.variables.get(name)
        return 0 if value is None else len(name) + len(value) + ENTRY_COST

    def set(self, name: bytes, value: bytes) -> bool:
        """Whether the variable is taken: allowed, small, without a zero byte, and not one too many."""
        if not name.isascii() or len(name) > NAME_MAX or len(value) > VALUE_MAX:
            return False
        if b"\0" in value or not variables.settable(name.decode("ascii")):
            return False
        if len(self.variables) >= COUNT_MAX and name not in self.variables:
            return False
        if not any(fnmatch.fnmatchcase(name.decode("ascii"), pattern) for pattern in self._allowed):
            return False
        self.variables[name] = value
        return True


@frozen
class SessionFacts:
    """What the node tells a session about itself (names as in Teleport and OpenSSH)."""

    session_id: str
    user: str
    host_uuid: str
    cluster: str
    peer: IAddress
    host: IAddress

    def variables(self, terminal: str | None) -> Mapping[bytes, bytes]:
        """``SSH_*``; ``terminal`` is the PTY's path."""
        peer_host, peer_port = address(self.peer)
        own_host, own_port = address(self.host)
        values = {
            "SSH_CLIENT": f"{peer_host} {peer_port} {own_port}",
            "SSH_CONNECTION": f"{peer_host} {peer_port} {own_host} {own_port}",
            "SSH_SESSION_ID": self.session_id,
            "SSH_TELEPORT_USER": self.user,
            "SSH_TELEPORT_HOST_UUID": self.host_uuid,
            "SSH_TELEPORT_CLUSTER_NAME": self.cluster,
        }
        if terminal is not None:
            values["SSH_TTY"] = terminal
        return {name.encode(): value.encode() for name, value in values.items()}


def address(end: IAddress) -> tuple[str, int]:
    """Host and port of a TCP address, IPv4 in IPv6 as IPv4; ``UNKNOWN`` and 65535, as in OpenSSH, for anything else."""
    return str(getattr(end, "host", "UNKNOWN")).removeprefix("::ffff:"), int(getattr(end, "port", 65535))
