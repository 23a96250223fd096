"""Hosts in any spelling: which names are the same, and which addresses do not lead to another machine."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from teleconch.resources.address import split_address

# inet_aton(3), and with it getaddrinfo(3), also reads 127.1, 0x7f.1, 0177.0.0.1 and 2130706433.
_PART = r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)"
_ATON = re.compile(rf"{_PART}(?:\.{_PART}){{0,3}}", re.ASCII)
_LOOPBACK_NAMES: Final = frozenset(
    ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")


def plain_ip(host: str) -> IPv4Address | IPv6Address | None:
    """The address that ``host`` is a literal of, as ``getaddrinfo`` reads it; ``None`` for a name.

    An IPv4 address mapped into IPv6 becomes the IPv4 address; a zone (``%eth0``) is left out.
    """
    try:
        address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:
        return _aton(host)
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


def oddly_spelled(host: str) -> bool:
    """Whether ``host`` looks like a name but is read as an IPv4 address: ``127.1``, ``0x7f000001``, ``0177.0.0.1``."""
    try:
        ip_address(host)
    except ValueError:
        return _aton(host) is not None
    return False


def no_other_machine(host: str | IPv4Address | IPv6Address) -> str:
    """Why no other machine of the cluster can be reached at this literal or name: ``loopback``, ``link-local``,
    ``unspecified``, ``multicast`` or ``reserved``; empty if one may be."""
    if isinstance(host, str):
        bare = host.rstrip(".").lower()
        if bare in _LOOPBACK_NAMES or bare.endswith(".localhost"):
            return "loopback"
        found = plain_ip(host)
        if found is None:
            return ""
        host = found
    if host.is_loopback:
        return "loopback"
    if host.is_unspecified or (isinstance(host, IPv4Address) and host in _THIS_NETWORK):
        return "unspecified"
    if host.is_link_local:
        return "link-local"
    if host.is_multicast:
        return "multicast"
    return "reserved" if host.is_reserved else ""


def host_of(address: str) -> str:
    """The host of a ``host:port``, in lower case and without brackets; empty if there is no port."""
    host, port = split_address(address) or ("", None)
    return "" if port is None else host.lower()


def stem(name: str, cluster: str) -> str:
    """The form in which ``name`` is owned. NAME and NAME.CLUSTER, in any case, with or without a final dot, are one
    name; so are all spellings of an address."""
    bare = name.rstrip(".").lower() or name
    suffix = f".{cluster}".lower()
    while bare.endswith(suffix) and len(bare) > len(suffix):
        bare = bare[: -len(suffix)].rstrip(".") or bare[: -len(suffix)]
    if bare.isdigit():  # a host may be called 2019
        return bare
    address = plain_ip(bare)
    return bare if address is None else str(address)


def _aton(host: str) -> IPv4Address | None:
    if _ATON.fullmatch(host) is None:
        return None
    try:
        *most, last = [int(part, 16 if part[:2].lower() == "0x" else 8 if part[0] == "0" else 10) if part not in
                       ("0x", "0X") else 0 for part in host.split(".")]  # fmt: skip
    except ValueError:
        return None
    if any(part > 0xFF for part in most) or last >= 1 << 8 * (4 - len(most)):
        return None
    return IPv4Address(sum(part << 24 - 8 * place for place, part in enumerate(most)) + last)
