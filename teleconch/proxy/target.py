"""What a user asked for, parsed from the subsystem ``proxy:host:port[@cluster]`` and from ``direct-tcpip``."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from teleconch.errors import BadParameter
from teleconch.text import shown

SUBSYSTEM_PREFIX: Final = "proxy:"
_LONGEST: Final = 512
# Teleport 4.2's clients send proxy:host:port@default@cluster: "default" is a namespace.
_TARGET = re.compile(r"(?P<host>.+?)(?::(?P<port>[0-9]{0,5}))?(?:@(?:default@)?(?P<cluster>[^:@]*))?", re.ASCII)


@frozen
class Target:
    """``port`` is 0 if the user gave none; ``cluster`` is empty if none was named."""

    host: str
    port: int = 0
    cluster: str = ""

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{brief(self.host)}{port}" + (f"@{brief(self.cluster)}" if self.cluster else "")


def brief(text: str) -> str:
    """``text`` from a peer, fit for a terminal and a log line, and of bounded length."""
    return shown(text if len(text) <= 255 else text[:252] + "...", mark="?")


def parse_host(raw: bytes) -> str:
    """A host, as a peer sent it. BadParameter if it cannot be a node's name or a label."""
    try:
        host = raw.decode("utf-8")
    except UnicodeDecodeError:
        host = ""
    if not host or len(host) > _LONGEST or not host.isprintable():
        raise BadParameter("The name of the node is not readable: give a nodename, a UUID or a label like role=db.")
    return host.removeprefix("[").removesuffix("]") if host.startswith("[") else host


def parse_subsystem(name: bytes) -> Target:
    """``proxy:host:port[@cluster]``. BadParameter."""
    text = parse_host(name)
    found = _TARGET.fullmatch(text.removeprefix(SUBSYSTEM_PREFIX))
    if not text.startswith(SUBSYSTEM_PREFIX) or found is None:
        raise BadParameter("Ask for proxy:HOST:PORT, as in `ssh -p 3023 LOGIN@PROXY -s proxy:%h:%p`.")
    return target(parse_host(found["host"].encode()), int(found["port"] or 0), found["cluster"] or "")


def target(host: str, port: int, cluster: str = "") -> Target:
    """A target with a valid port. BadParameter."""
    if not 0 <= port <= 65535:
        raise BadParameter(f"{port} is not a port: leave it out, or give the node's own.")
    return Target(host, port, cluster)
