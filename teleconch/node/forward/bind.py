"""Which addresses a ``tcpip-forward`` listens on (RFC 4254 section 7.1), by sshd's GatewayPorts."""

from __future__ import annotations

from typing import Final

from teleconch.node.forward.listening import LOOPBACK

NO: Final = "no"
YES: Final = "yes"
CLIENT_SPECIFIED: Final = "clientspecified"
EVERYWHERE: Final = ("::", "0.0.0.0")  # noqa: S104 - only where the configuration says so


def listen_on(asked: bytes, gateway_ports: str) -> tuple[str, ...]:
    """``no``: loopback, whatever was asked; ``yes``: everywhere; ``clientspecified``: as asked, where the empty
    string, ``*`` and ``0.0.0.0`` mean everywhere and ``localhost`` means loopback."""
    if gateway_ports == YES:
        return EVERYWHERE
    if gateway_ports != CLIENT_SPECIFIED or asked == b"localhost":
        return LOOPBACK
    if asked in (b"", b"*", b"0.0.0.0"):
        return EVERYWHERE
    return (asked.decode("latin-1"),)
