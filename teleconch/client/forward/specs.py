"""What ``-L``, ``-R`` and ``-D`` say, as OpenSSH's client reads it (ssh(1))."""

from __future__ import annotations

from attrs import frozen

from teleconch.errors import BadParameter
from teleconch.resources.address import join_address

PORT_MAX = 65535
PATH_MAX = 107  # sun_path, less the final zero


@frozen
class Place:
    """A TCP port of a host, or a Unix socket if ``path`` is set. As a place to listen on, ``host`` None is loopback
    and empty is every address."""

    host: str | None = None
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        host = "localhost" if self.host is None else self.host or "*"
        return join_address(host, self.port)


@frozen
class Forward:
    """Listen there, lead to ``target``; None: wherever the SOCKS client says."""

    listen: Place
    target: Place | None


def parse_forward(flag: str, text: str) -> Forward:
    """``-L`` and ``-R``: ``[BIND:]PORT:HOST:PORT`` with a Unix socket's path in place of either pair; for ``-R``
    also ``[BIND:]PORT``. BadParameter."""
    parts = _split(flag, text)
    remote = flag == "-R"
    if remote and len(parts) <= 2 and not any("/" in part for part in parts):
        return Forward(_listen(flag, text, parts, zero=True), None)
    if parts and "/" in parts[-1]:
        target, rest = Place(path=_path(flag, parts[-1])), parts[:-1]
    elif len(parts) >= 3:
        host = parts[-2]
        if not host:
            raise _wrong(flag, text)
        target, rest = Place(host, _port(flag, text, parts[-1])), parts[:-2]
    else:
        raise _wrong(flag, text)
    return Forward(_listen(flag, text, rest, zero=remote), target)


def parse_dynamic(flag: str, text: str) -> Forward:
    """``-D``: ``[BIND:]PORT``. BadParameter."""
    return Forward(_listen(flag, text, _split(flag, text)), None)


def _wrong(flag: str, text: str) -> BadParameter:
    form = "[BIND:]PORT" if flag == "-D" else "[BIND:]PORT:HOST:PORT"
    return BadParameter(f"{flag} {text}: give it as {form}, with IPv6 addresses in [ ].")


def _split(flag: str, text: str) -> list[str]:
    parts, rest = [], text.strip()
    while True:
        if rest.startswith("["):
            inside, bracket, rest = rest[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise _wrong(flag, text)
            parts.append(inside)
            if not rest:
                return parts
            rest = rest[1:]
        else:
            part, colon, rest = rest.partition(":")
            parts.append(part)
            if not colon:
                return parts


def _listen(flag: str, text: str, parts: list[str], zero: bool = False) -> Place:
    if len(parts) == 1 and "/" in parts[0] and flag != "-D":
        return Place(path=_path(flag, parts[0]))
    if len(parts) == 1:
        return Place(None, _port(flag, text, parts[0], zero))
    if len(parts) == 2:
        host = None if parts[0] == "localhost" else "" if parts[0] == "*" else parts[0]
        return Place(host, _port(flag, text, parts[1], zero))
    raise _wrong(flag, text)


def _port(flag: str, text: str, port: str, zero: bool = False) -> int:
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and (not zero) <= int(port) <= PORT_MAX):
        raise _wrong(flag, text)
    return int(port)


def _path(flag: str, path: str) -> str:
    if len(path.encode("utf-8", "surrogateescape")) > PATH_MAX or "\0" in path:
        raise BadParameter(f"{flag}: the path of a socket has at most {PATH_MAX} bytes.")
    return path
