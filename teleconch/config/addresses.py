"""``host:port`` as people write it: names, IPv4, IPv6 in brackets, with or without a port."""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

from teleconch.errors import BadParameter, quoted
from teleconch.resources.address import join_address, parted, port_of

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_FORM = "Write it as host:port, an IPv6 address in brackets: [2001:db8::5]:3025."


@frozen
class Address:
    """Where to listen or to connect. ``host`` has no brackets; ``str()`` adds them to an IPv6 address."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_address(self.host, self.port)

    @property
    def any_host(self) -> bool:
        """Whether this stands for every address of the machine."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 -- compared, not bound

    @property
    def local(self) -> Address:
        """How a process on this machine reaches what listens here."""
        if not self.any_host:
            return self
        return Address("::1" if self.host == "::" else "127.0.0.1", self.port)


def parse_address(text: str, default_port: int, *, default_host: str | None = None, port_0: bool = False) -> Address:
    """The address in ``text``; :class:`BadParameter` says what is wrong with it.

    ``default_host`` allows ``:3022`` and ``3022``; ``port_0`` allows port 0 (any free port). A leading ``tcp://`` is
    dropped.
    """
    given = text.strip().removeprefix("tcp://")
    if "://" in given or "/" in given:
        raise BadParameter(f"{quoted(text)} is not an address: a scheme or path has no place here. {_FORM}")
    host, port_text = ("", given) if _PORT.fullmatch(given) else _split(given)
    if not host:
        if default_host is None and port_text is not None and _PORT.fullmatch(port_text):
            raise BadParameter(
                f"{quoted(text)} is a port without a host. Write the host before it: example.com:{port_text}."
            )
        if default_host is None or not port_text:
            raise BadParameter(f"{quoted(text)} names no host. {_FORM}")
        host = default_host
    return Address(parse_host(host), default_port if port_text is None else _port(port_text, port_0))


def parse_reachable(text: str, default_port: int) -> Address:
    """An address that others can connect to: neither ``0.0.0.0`` nor port 0. :class:`BadParameter`."""
    address = parse_address(text, default_port)
    if address.any_host:
        raise BadParameter(
            f"{quoted(text)} is not an address that others can connect to: it stands for all addresses of a machine."
        )
    return address


def parse_server(text: str, default_port: int) -> Address:
    """A server to connect to. ``:3025``, ``0.0.0.0`` and ``[::]`` mean this host: see :attr:`Address.local`."""
    return parse_address(text, default_port, default_host="0.0.0.0")  # noqa: S104 -- not bound


def parse_host(text: str) -> str:
    """An IP address (IPv6 in its shortest form) or a DNS name; :class:`BadParameter` otherwise."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if "%" not in bare:
            return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if _DNS_NAME.fullmatch(bare) is None or re.fullmatch(r"[0-9.]+", bare):
        raise BadParameter(f"{quoted(text)} is neither an IP address nor a DNS name.")
    return bare.rstrip(".")


def is_host_name(name: str) -> bool:
    """Whether ``name`` can name a node or a cluster: it becomes part of the name that users connect to."""
    return _NAME.fullmatch(name) is not None


def check_host_name(name: str) -> str:
    """Returns ``name``. :class:`BadParameter` unless :func:`is_host_name` allows it."""
    if not is_host_name(name):
        raise BadParameter(
            f"{quoted(name[:80])} is not a usable name: take letters, digits and . _ - (first a letter or digit)."
        )
    return name


def _split(text: str) -> tuple[str, str | None]:
    """The host and port as text. The port is ``None`` and the host is empty if not given."""
    if text.startswith(":") and text.count(":") == 1:
        return "", text[1:]
    found = parted(text)
    if found is not None:
        return found
    if text.startswith("["):
        raise BadParameter(f"{quoted(text)} has brackets that do not fit. {_FORM}")
    return text, None


def _port(text: str, port_0: bool) -> int:
    port = port_of(text, 0 if port_0 else 1)
    if port is None:
        raise BadParameter(f"{quoted(text)} is not a port: it is a number from 1 to 65535.")
    return port
