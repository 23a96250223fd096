"""Which of its addresses this machine speaks from. Nothing is sent."""

from __future__ import annotations

import socket
from typing import Any, Final

_DISCARD: Final = 9  # any port will do


def source_toward(host: str, port: int = _DISCARD) -> str | None:
    """This machine's own address on the route to ``host``, an IP address literal; ``None`` if there is no route or
    ``host`` is not one."""
    try:
        target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    except (OSError, ValueError):
        return None
    return _source(target)


def ways_to(host: str, port: int) -> list[tuple[str, str]]:
    """Pairs of this machine's address and the other's, for each address of ``host`` that has a route. Names are looked
    up, so call this in a thread."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return []
    ways = ((_source(each), str(each[4][0])) for each in found)
    return [(begin, end) for begin, end in ways if begin is not None]


def _source(target: Any) -> str | None:
    family, kind, protocol, _, address = target
    try:
        with socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None
