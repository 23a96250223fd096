"""Where a cluster's proxy is: ``host[:https_port[,ssh_port]]``, as after ``--proxy``."""

from __future__ import annotations

from typing import NamedTuple

from teleconch.defaults import PROXY_PORT, WEB_PORT
from teleconch.errors import BadParameter, quoted
from teleconch.resources.address import join_address, parted, port_of


class ProxyAddress(NamedTuple):
    """``host`` in lower case, without brackets; a port is ``None`` if the user named none."""

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
    """What comes after ``--proxy``; ``https://`` before it and a path after it do no harm. BadParameter."""
    bare, comma, ssh = text.strip().removeprefix("https://").split("/", 1)[0].partition(",")
    host, web = parted(bare) or ("", None)
    if not host or "%" in host or (comma and web is None):
        raise BadParameter(f"--proxy={text}: give the proxy as HOST, HOST:HTTPS_PORT or HOST:HTTPS_PORT,SSH_PORT.")
    return ProxyAddress(host.lower(), _port(web, text), _port(ssh, text))


def _port(text: str | None, whole: str) -> int | None:
    if not text:
        return None
    port = port_of(text)
    if port is None:
        raise BadParameter(f"--proxy={whole}: {text} is not a port; ports go from 1 to 65535.")
    return port


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of ``host[:port]`` or ``[host]:port``. BadParameter.

    The host can be nothing else: what a proxy says of its address ends up in commands (``tsh config``).
    """
    host, after = parted(address) or ("", None)
    port = port_of(after) if after else default_port
    if not host or "%" in host or port is None:
        raise BadParameter(f"{quoted(address)} is not an address like host:{default_port}.")
    return host, port
