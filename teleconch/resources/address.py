"""``host:port`` as text: split and joined in one place for everyone. ``addresses`` says what a host may be."""

from __future__ import annotations

import re
from typing import Final

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?", re.ASCII)
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)  # IFNAMSIZ without the final zero
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_BRACKETS: Final = re.compile(r"\[([^][]*)\](?::(.*))?", re.ASCII | re.DOTALL)
PORT_MAX: Final = 65535


def is_ipv6(host: str) -> bool:
    """Whether ``host`` is an IPv6 literal without brackets; it may have a zone (``%eth0``)."""
    literal, percent, zone = host.partition("%")
    if ":" not in literal or not literal.isascii() or (percent and not _ZONE.fullmatch(zone)):
        return False
    from ipaddress import ip_address  # tsh starts faster without it, and hardly ever needs it

    try:
        ip_address(literal)
    except ValueError:
        return False
    return True


def is_host(host: str) -> bool:
    """Whether ``host`` has the form of a name or a literal. Neither begins with a minus sign."""
    return _HOST.fullmatch(host) is not None or is_ipv6(host)


def port_of(text: str, lowest: int = 1) -> int | None:
    """The port number in ``text``, which must be ASCII digits; ``None`` for anything else."""
    port = int(text) if _PORT.fullmatch(text) else -1
    return port if lowest <= port <= PORT_MAX else None


def parted(text: str, loose: bool = False) -> tuple[str, str | None] | None:
    """Split ``text`` into the host, without brackets, and the text after the colon (``None`` if there is no port).
    Returns ``None`` if it is not a host with or without a port.

    Hosts are ASCII names, IPv4 literals, and IPv6 literals in brackets or, without a port, bare. ``loose``: any of them
    may be in brackets, as ``ssh`` writes them.
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
    """The host and port (``lowest`` to 65535; ``None`` if there is none) of ``host``, ``host:port``, ``[v6]:port``,
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
