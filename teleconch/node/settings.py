"""What an administrator has decided about one node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from teleconch.node.forward import bind
from teleconch.node.labels import LabelCommand
from teleconch.node.start import NO_RULES, LoginRules

STOP_DEADLINE: Final = 10.0  # seconds that running sessions get when the node stops


@frozen
class NodeSettings:
    """``addr`` is the ``host:port`` that proxies should dial, or ``None`` for what the listener got. ``commands`` are
    labels whose values programs print; ``accept_env`` are patterns of variables that clients may set besides the usual
    ones; ``gateway_ports`` says where ``ssh -R`` listens (sshd's words, ``forward.bind``)."""

    nodename: str
    addr: str | None = None
    public_addrs: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(factory=dict)
    commands: tuple[LabelCommand, ...] = ()
    accept_env: tuple[str, ...] = ()
    gateway_ports: str = bind.NO
    rules: LoginRules = NO_RULES
    stop_deadline: float = STOP_DEADLINE
