"""How the options of several roles combine, and what they grant.

As Teleport's documents have it: the shortest time wins, the agent and ports are forwarded if any role says so, and a
session ends with its certificate if any role says so. A role that says nothing of an option has no part in it. What
Teleport 4.2 does not have follows the same two rules: what may be done is what any role lets be done (``file_copy``,
``permit_x11``, as ``port_forwarding``), and what a session is held to is the strictest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Final, TypeVar

from teleconch.resources.role import Options

T = TypeVar("T")


class Grant(StrEnum):
    """What an option of a role lets a session do; the value says it in a sentence."""

    LOCAL = "port forwarding from your machine"
    REMOTE = "port forwarding to your machine"
    AGENT = "agent forwarding"
    X11 = "X11 forwarding"
    UPLOAD = "copying files to the host"
    DOWNLOAD = "copying files from the host"


_PORTS: Final = {
    "yes": frozenset((Grant.LOCAL, Grant.REMOTE)),
    "local": frozenset((Grant.LOCAL,)),
    "remote": frozenset((Grant.REMOTE,)),
    "no": frozenset[Grant](),
}
_FILES: Final = {
    "both": frozenset((Grant.UPLOAD, Grant.DOWNLOAD)),
    "upload": frozenset((Grant.UPLOAD,)),
    "download": frozenset((Grant.DOWNLOAD,)),
    "none": frozenset[Grant](),
}
_WORDS: Final = {"port_forwarding": _PORTS, "file_copy": _FILES}
_STRICTEST_FIRST: Final = ("strict", "best_effort", "off")


def grants(options: Options) -> frozenset[Grant]:
    """What ``options`` let a session do. Where no role says, ports and files are open and the agent and X11 are not: so
    does Teleport 4.2 read a role without these options."""
    found = _PORTS[options.port_forwarding or "yes"] | _FILES[options.file_copy or "both"]
    if options.forward_agent:
        found |= {Grant.AGENT}
    if options.permit_x11:
        found |= {Grant.X11}
    return found


def option_for(needed: frozenset[Grant]) -> str:
    """The name of the option that lets all of ``needed`` be done, which is of one option."""
    for name, words in _WORDS.items():
        if any(needed & meaning for meaning in words.values()):
            return name
    return "forward_agent" if Grant.AGENT in needed else "permit_x11"


def widened(option: str, said: str | None, needed: frozenset[Grant]) -> str:
    """The word of ``option`` for all that ``said`` lets be done, and ``needed``."""
    words = _WORDS.get(option)
    if words is None:
        return "yes"
    wanted = needed if said is None else needed | words[said]
    return next(word for word, meaning in words.items() if meaning == wanted)


def merged(each: Iterable[Options]) -> Options:
    """The options of a user with several roles. ``None`` where no role says anything: the cluster's word then holds."""
    roles = tuple(each)

    def said(name: str) -> list[Any]:
        return [value for value in (getattr(options, name) for options in roles) if value is not None]

    idle = said("client_idle_timeout")
    return Options(
        max_session_ttl=_of(min, said("max_session_ttl")),
        forward_agent=_of(any, said("forward_agent")),
        port_forwarding=_union(_PORTS, said("port_forwarding")),
        file_copy=_union(_FILES, said("file_copy")),
        permit_x11=_of(any, said("permit_x11")),
        client_idle_timeout=_of(min, [seconds for seconds in idle if seconds] or idle),  # 0 is never
        disconnect_expired_cert=_of(any, said("disconnect_expired_cert")),
        cert_format=_of(min, said("cert_format")),  # oldssh: a client that is that old needs it
        record=_of(lambda words: min(words, key=_STRICTEST_FIRST.index), said("record")),
        max_sessions=_of(min, said("max_sessions")),
        max_connections=_of(min, said("max_connections")),
        require_session_mfa=_of(any, said("require_session_mfa")),
        session_mfa_window=_window(roles),
    )


def _window(roles: tuple[Options, ...]) -> float | None:
    """The shortest; a role that asks each time is stricter than any."""
    asking = [options.session_mfa_window for options in roles if options.require_session_mfa]
    windows = [seconds for seconds in asking if seconds is not None]
    return min(windows) if windows and len(windows) == len(asking) else None


def _of(choose: Callable[[list[T]], Any], values: list[T]) -> Any:
    return choose(values) if values else None


def _union(words: dict[str, frozenset[Grant]], said: list[str]) -> Any:
    """The word for all that any of ``said`` lets be done."""
    if not said:
        return None
    union = frozenset[Grant]().union(*(words[word] for word in said))
    return next(word for word, meaning in words.items() if meaning == union)
