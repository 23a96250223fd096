"""Which addresses a ``tcpip-forward`` listens on (RFC 4254 section 7.1), by sshd's GatewayPorts."""

from __future__ import annotations

from typing import Final

from teleconch.node.forward.listening import LOOPBACK

NO: Final = "no"
YES: Final = "yes"
CLIENT_SPECIFIED: Final = "clientspecified"
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - only where the configuration says so


def listen_on(asked: bytes, gateway_ports: str) -> tuple[str, ...]:
    """The addresses to bind.

    ``no``: loopback, of one family if ``asked`` names its address; ``yes``: everywhere, whatever was asked;
    ``clientspecified``: as asked, where the empty string and ``*`` mean everywhere and ``localhost`` means loopback.
    """
    if gateway_ports == YES:
        return EVERYWHERE
    if asked in (b"127.0.0.1", b"::1"):
        return (asked.decode("ascii"),)
    if gateway_ports != CLIENT_SPECIFIED or asked == b"localhost":
        return LOOPBACK
    if asked in (b"", b"*"):
        return EVERYWHERE
    return (asked.decode("latin-1"),)
