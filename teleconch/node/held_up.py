"""The end of users who held up the daemon with a file system that did not answer (``launch.pulse`` freed it)."""

from __future__ import annotations

from typing import Final

from teleconch.audit.events import NodeHeld
from teleconch.node.launch.pulse import is_whose
from teleconch.node.parts import NodeParts
from teleconch.ssh import messages
from teleconch.ssh.problems import SSHProblem

HELD_UP: Final = "A FUSE file system of yours held up this node."


def end_holders(parts: NodeParts, user: str, seconds: int) -> None:
    """The launcher has freed this process from a file system of ``user`` (``pulse.whose``): end what they have here,
    with an event."""
    logins = {login for login, uid in parts.launcher.uids.items() if is_whose(user, login, uid)}
    ended = [each for each in parts.users if each.login in logins]
    parts.emitter.emit(
        NodeHeld(
            login=", ".join(sorted(logins)) or user,
            user=", ".join(sorted({each.identity.user for each in ended})),
            server_id=parts.host_uuid,
            connections=len(ended),
            seconds=seconds,
            error="a FUSE file system held up this node",
        )
    )
    for each in ended:
        each.conn.transport.fail(SSHProblem(HELD_UP, messages.DISCONNECT_BY_APPLICATION))
        each.conn.transport.abortConnection()  # their pipes go now, whether or not the client takes the sentence
