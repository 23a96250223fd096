"""``host:port`` as text: parted and joined in one place, whoever wrote it. What a host may be is in ``addresses``."""

from __future__ import annotations

import re
from typing import Final

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?", re.ASCII)
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)  # IFNAMSIZ, less the final zero
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_BRACKETS: Final = re.compile(r"\[([^][]*)\](?::(.*))?", re.ASCII | re.DOTALL)
PORT_MAX: Final = 65535


def is_ipv6(host: str) -> bool:
    """Whether ``host`` is a literal of IPv6, without brackets; it may have a zone (``%eth0``)."""
    literal, percent, zone = host.partition("%")
    if ":" not in literal or not literal.isascii() or (percent and not _ZONE.fullmatch(zone)):
        return False
    from ipaddress import ip_address  # tsh starts without it, and hardly ever needs it

    try:
        ip_address(literal)
    except ValueError:
        return False
    return True


def is_host(host: str) -> bool:
    """Whether ``host`` has the form of a name or of a literal. None begins with a minus sign."""
    return _HOST.fullmatch(host) is not None or is_ipv6(host)


def port_of(text: str, lowest: int = 1) -> int | None:
    """The port that ``text`` is, in ASCII digits; ``None`` for anything else."""
    port = int(text) if _PORT.fullmatch(text) else -1
    return port if lowest <= port <= PORT_MAX else None


def parted(text: str, loose: bool = False) -> tuple[str, str | None] | None:
    """The host, without brackets, and the text after the colon, ``None`` where there is no colon for a port; ``None``
    for what is no host with a port or without.

    Hosts are names of ASCII, IPv4, and IPv6 literals in brackets or, without a port, bare. ``loose``: brackets may
    stand around any of them, as ``ssh`` writes them.
    """
    brackets = _BRACKETS.fullmatch(text)
    if brackets is not None:
        host, port = brackets.groups()
        return (host, port) if is_ipv6(host) or (loose and is_host(host)) else None
    if text.count(":") > 1:
        return (text, None) if is_ipv6(text) else None
    host, colon, port = text.partition(":")
    return (host, port if colon else None) if _HOST.fullmatch(host) else None


def split_address(text: str, lowest: int = 1, *, loose: bool = False) -> tuple[str, int | None] | None:
    """Host and port (``lowest`` to 65535, ``None`` where there is none) of ``host``, ``host:port``, ``[v6]:port``,
    ``[v6]`` or a bare ``v6``; ``None`` for anything else."""
    found = parted(text, loose)
    if found is None:
        return None
    host, after = found
    if after is None:
        return host, None
    port = port_of(after, lowest)
    return None if port is None else (host, port)


def join_address(host: str, port: int) -> str:
    """``host:port``, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
