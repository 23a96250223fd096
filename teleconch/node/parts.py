"""What every user and every session of one node share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen

from teleconch.audit.emitter import Emitter
from teleconch.node.files.programs import Programs
from teleconch.node.forward import bind
from teleconch.node.process import Launcher
from teleconch.node.start import IReactorNode
from teleconch.resources.identity import SSHIdentity
from teleconch.session.registry import Present, Registry
from teleconch.ssh.connection import Connection


class ConnectedUser(Protocol):
    """One authenticated connection (``node.server.NodeUser``)."""

    conn: Connection
    identity: SSHIdentity
    login: str

    def descriptors(self) -> int:
        """About how many of the daemon's descriptors it holds."""


@frozen
class NodeParts:
    """``now`` returns epoch seconds, ``new_id`` session ids; ``emitter`` takes the audit events; ``accept_env`` are
    patterns of variables that clients may set besides the usual ones; ``gateway_ports`` is one of ``forward.bind``'s
    words. ``live`` are the running sessions."""

    reactor: IReactorNode
    launcher: Launcher
    host_uuid: str
    cluster: str
    now: Callable[[], float]
    new_id: Callable[[], str]
    emitter: Emitter
    accept_env: tuple[str, ...] = ()
    gateway_ports: str = bind.NO
    programs: Programs = field(factory=Programs, eq=False, repr=False)
    live: Registry = field(factory=Registry, eq=False, repr=False)
    users: Present[ConnectedUser] = field(factory=Present, eq=False, repr=False)
