"""The way through an HTTP proxy (RFC 9110 section 9.3.6, CONNECT), as the environment asks for it.

``HTTPS_PROXY`` is for the cluster's HTTPS port, ``ALL_PROXY`` for its SSH port too: many HTTP proxies let nobody
through to ports other than 443. ``NO_PROXY`` lists what is reached directly; this machine itself always is. Names
in lower case mean the same, as with curl; those in capitals win. Only ``http://`` proxies are known; ALL_PROXY, which
desktops set for programs that know SOCKS, is skipped if it names another kind.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from attrs import field, frozen

from teleconch.errors import BadParameter, ConnectionProblem
from teleconch.resources.address import join_address

_ANSWER_MAX: Final = 16 * 1024
_URL: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?:(?P<user>[^@/]*)@)?(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:@/\[\]\s]+))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


@frozen
class HTTPProxy:
    """``variable`` is where it was found, for sentences; ``authorization`` the header's value, or empty."""

    variable: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"the HTTP proxy {join_address(self.host, self.port)} ({self.variable})"


def http_proxy(
    variables: tuple[str, ...], host: str, port: int, environment: Mapping[str, str] = os.environ
) -> HTTPProxy | None:
    """The proxy for ``host:port``, from the first variable that is set; None to connect directly. BadParameter."""
    for variable in variables:
        found = _value(environment, variable)
        if found and not _is_passed_over(variable, found):
            return None if _is_direct(host, port, _value(environment, "NO_PROXY")) else _parse(variable, found)
    return None


def why_direct(variables: tuple[str, ...], host: str, port: int, environment: Mapping[str, str] = os.environ) -> str:
    """If :func:`http_proxy` found none: a sentence in brackets, after a blank, that says which variable would change
    that; empty if none would."""
    if _is_direct(host, port, ""):
        return ""
    given = {variable: found for variable in variables if (found := _value(environment, variable))}
    for variable, found in given.items():
        if not _is_passed_over(variable, found):
            return f" ({host} is reached directly, not through {variable}, since NO_PROXY lists it.)"
    if given:
        return " (ALL_PROXY was not used, since it does not name a proxy of the kind http://HOST:PORT.)"
    return (
        " (HTTPS_PROXY is used for the HTTPS port only; if this port, too, is reached through an HTTP proxy, set"
        " ALL_PROXY=http://HOST:PORT.)"
    )


def _is_passed_over(variable: str, url: str) -> bool:
    return variable == "ALL_PROXY" and "://" in url and not url.lower().startswith("http://")


def _value(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.lower()) or "").strip()


def _parse(variable: str, url: str) -> HTTPProxy:
    match = _URL.fullmatch(url)
    port = int((match and match["port"]) or 80)
    if match is None or (match["scheme"] or "http").lower() != "http" or not 0 < port < 65536:
        raise BadParameter(
            f"tsh cannot use the proxy that {variable} names: it needs one like http://[USER:PASSWORD@]HOST:PORT. Name"
            " one of these, or list the cluster's proxy in NO_PROXY to reach it directly."
        )
    user = match["user"]
    authorization = ""
    if user is not None:
        name, _, password = user.partition(":")
        authorization = "Basic " + b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return HTTPProxy(variable, match["six"] or match["host"], port, authorization)


def _is_direct(host: str, port: int, exceptions: str) -> bool:
    """As curl and Go read ``NO_PROXY``: names and all that end in them, addresses, networks; each may have a port."""
    host = host.rstrip(".").lower()
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in exceptions.replace(",", " ").lower().split():
        name, entry_port = _split(entry)
        if name == "*":
            return True
        if entry_port and int(entry_port) != port:
            continue
        if address is None:
            name = name.removeprefix("*").strip(".")
            if name and (host == name or host.endswith(f".{name}")):
                return True
        elif _contains(name, address):
            return True
    return False


def _split(entry: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*)):([0-9]{1,5})", entry)
    return (match[1] or match[2] or "", match[3]) if match else (entry.strip("[]"), "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _contains(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def ask_through(connected: socket.socket, proxy: HTTPProxy, host: str, port: int, deadline: float) -> None:
    """Make ``connected``, which leads to ``proxy``, lead to ``host:port``. No byte that comes from there is consumed.

    ``deadline`` is in seconds of ``time.monotonic``. ConnectionProblem, OSError (TimeoutError at the deadline).
    """
    target = join_address(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: tsh"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    connected.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    answer = _head(connected, proxy, deadline)
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]{0,80}))?\r?\n", answer)
    if match is None:
        raise ConnectionProblem(f"What answers as {proxy} does not speak HTTP; correct {proxy.variable}.")
    if match[1].startswith(b"2"):
        return
    reason = f"{match[1].decode()} {(match[2] or b'').decode('latin-1')}".strip()
    if match[1] == b"407":
        raise ConnectionProblem(
            f"{_upper(proxy)} wants to know who you are ({reason}): set {proxy.variable}=http://USER:PASSWORD@HOST:PORT."
        )
    raise ConnectionProblem(
        f"{_upper(proxy)} does not lead to {target} ({reason}): have that address allowed there, or list {host} in"
        " NO_PROXY to reach it directly."
    )


def _upper(proxy: HTTPProxy) -> str:
    text = str(proxy)
    return text[0].upper() + text[1:]


def _head(connected: socket.socket, proxy: HTTPProxy, deadline: float) -> bytes:
    """The answer up to its empty line, and not a byte more: what follows is the server's."""
    head = b""
    while len(head) < _ANSWER_MAX:
        connected.settimeout(max(0.01, deadline - time.monotonic()))
        seen = connected.recv(4096, socket.MSG_PEEK)
        if not seen:
            raise ConnectionProblem(f"{_upper(proxy)} closed the connection without an answer.")
        whole = head + seen
        end = re.search(rb"\r?\n\r?\n", whole)
        take = len(seen) if end is None else end.end() - len(head)
        head += connected.recv(take)
        if end is not None:
            return head
        if time.monotonic() >= deadline:
            raise TimeoutError
    raise ConnectionProblem(f"{_upper(proxy)} gave an endless answer.")
