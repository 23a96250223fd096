"""The one gate of a node: it decides kind by kind, by the current permit, before any byte flows.

A listener is asked about twice: when it is wanted, and for each connection that it takes, so that an expired
certificate carries nothing more on listeners that are still open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from teleconch.access.kinds import Kind
from teleconch.access.permit import AccessPermit
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import Peer, Port, X11Forward
from teleconch.errors import AccessDenied, TeleconchError

_SCP: Final = b"scp "
_MORE: Final = frozenset(b";&|<>(`\n")  # to the shell: another command may follow
_WORDS: Final = frozenset(b"'\"\\$*?[{")  # words are not what they look like


def asked(command: bytes | None) -> tuple[Kind, ...]:
    """The kinds of a shell or a command. Its flags tell the far end of an scp (``-t`` takes files, ``-f`` gives them);
    if they tell neither, or the shell makes other words of them, it may be both. A shell runs it, so if more follows it
    may be any other command as well."""
    if command is None:
        return (Kind.SHELL,)
    if not command.startswith(_SCP):
        return (Kind.EXEC,)
    flags = b""
    for word in command[len(_SCP) :].split():
        if not word.startswith(b"-") or word == b"--":
            break
        flags += word
    kinds = tuple(kind for letter, kind in ((b"t", Kind.SCP_UPLOAD), (b"f", Kind.SCP_DOWNLOAD)) if letter in flags)
    if not kinds or not _WORDS.isdisjoint(command):
        kinds = (Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD)
    return kinds if _MORE.isdisjoint(command) else (*kinds, Kind.EXEC)


class Gate:
    """``permit`` returns the current permit or raises AccessDenied; ``who`` returns the peer for events."""

    def __init__(self, permit: Callable[[], AccessPermit], who: Callable[[], Peer], emitter: Emitter) -> None:
        self._permit = permit
        self._who = who
        self._emitter = emitter

    def ask(self, *kinds: Kind) -> AccessPermit:
        """The current permit. AccessDenied unless it grants all of ``kinds``."""
        permit = self._permit()
        if not isinstance(permit, AccessPermit):
            raise AccessDenied("There is no permit.")
        for kind in kinds:
            permit.check(kind)
        return permit

    def check(self, kind: Kind, target: str) -> None:
        """AccessDenied, with an event, unless ``kind`` of forwarding is allowed now. ``target`` is for the event."""
        try:
            self.ask(kind)
        except AccessDenied as error:
            self.refused(kind, target, error)
            raise

    def refused(self, kind: Kind, target: str, error: TeleconchError) -> None:
        """Emit an event for what did not happen."""
        self._tell(kind, target, str(error))

    def opened(self, kind: Kind, target: str) -> None:
        """Emit an event for what was opened."""
        self._tell(kind, target, "")

    def _tell(self, kind: Kind, target: str, error: str) -> None:
        event = X11Forward if kind in (Kind.X11, Kind.X11_REQUEST) else Port
        self._emitter.emit(event(peer=self._who(), kind=str(kind), addr=target, error=error))
