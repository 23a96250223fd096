"""The relay's ends on the user's machine, and the channel that goes to the node."""

from __future__ import annotations

import os
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint

from teleconch.client.forward.specs import Place
from teleconch.codec import string, uint32
from teleconch.ssh.ends import OneEnd, RelayChannel, SocketEnd

DIAL_SECONDS: Final = 30.0
LINGER: Final = 10.0  # seconds that a program gets to take what was sent before it is closed


async def dial(reactor: Any, place: Place) -> SocketEnd:
    """An end at ``place``, seen from this machine. ConnectError and other errors of Twisted."""
    endpoint: Any
    if place.path:
        endpoint = UNIXClientEndpoint(reactor, os.fsencode(place.path), DIAL_SECONDS)
    else:
        endpoint = HostnameEndpoint(reactor, place.host or "localhost", place.port, DIAL_SECONDS)
    end = SocketEnd(LINGER)
    await endpoint.connect(OneEnd(end))
    return end


class ToNode(RelayChannel):
    """To a place as the node sees it: ``direct-tcpip`` (RFC 4254 section 7.2), or OpenSSH's for a Unix socket."""

    def __init__(self, place: Place, peer: Any) -> None:
        super().__init__()
        self.place = place
        if place.path:
            self.name = b"direct-streamlocal@openssh.com"
            self.target = string(os.fsencode(place.path)) + string(b"") + uint32(0)
        else:
            self.name = b"direct-tcpip"
            host, port = getattr(peer, "host", "127.0.0.1"), getattr(peer, "port", 0)
            self.target = (
                string((place.host or "localhost").encode())
                + uint32(place.port)
                + string(str(host).encode())
                + uint32(port)
            )
