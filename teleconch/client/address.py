"""Where a cluster's proxy is: ``host[:https_port[,ssh_port]]``, as after ``--proxy``."""

from __future__ import annotations

import re

from attrs import frozen

from teleconch.defaults import PROXY_PORT, WEB_PORT
from teleconch.errors import BadParameter, quoted

_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:,\[\]/]+))(?::(?P<web>\d*)(?:,(?P<ssh>\d*))?)?", re.ASCII
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}|", re.ASCII)
_BARE_SIX = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", re.ASCII)


@frozen
class ProxyAddress:
    """``host`` in lower case, without brackets; a port is ``None`` where the user named none."""

    host: str
    web_port: int | None = None
    ssh_port: int | None = None

    @property
    def web(self) -> str:
        """``host:port`` of HTTPS."""
        return join_address(self.host, self.web_port or WEB_PORT)

    @property
    def ssh(self) -> str:
        """``host:port`` of SSH."""
        return join_address(self.host, self.ssh_port or PROXY_PORT)


def parse_proxy(text: str) -> ProxyAddress:
    """What stands after ``--proxy``; ``https://`` before it and a path behind it do no harm. BadParameter."""
    bare = text.strip().removeprefix("https://").split("/", 1)[0]
    if _BARE_SIX.fullmatch(bare):
        bare = f"[{bare}]"
    match = _ADDRESS.fullmatch(bare)
    host = match and (match["six"] or match["host"])
    if not match or not host or not (match["six"] or _HOST.fullmatch(host)):
        raise BadParameter(f"--proxy={text}: give the proxy as HOST, HOST:HTTPS_PORT or HOST:HTTPS_PORT,SSH_PORT.")
    return ProxyAddress(host.lower(), _port(match["web"], text), _port(match["ssh"], text))


def _port(text: str | None, whole: str) -> int | None:
    if not text:
        return None
    if len(text) > 5 or not 0 < int(text) < 65536:
        raise BadParameter(f"--proxy={whole}: {text} is not a port; ports go from 1 to 65535.")
    return int(text)


def join_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of ``host[:port]`` or ``[host]:port``. BadParameter.

    The host can be nothing but one: what a proxy says of its address ends in commands (``tsh config``).
    """
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = address, ""
    host = host.removeprefix("[").removesuffix("]")
    if not (_HOST.fullmatch(host) or _BARE_SIX.fullmatch(host)) or not (
        _PORT.fullmatch(port) and int(port or 1) < 65536
    ):
        raise BadParameter(f"{quoted(address)} is not an address like host:{default_port}.")
    return host, int(port) if port else default_port
