"""The one gate of a node: it decides kind by kind, by the permit of this moment, before any byte flows.

A listener is asked about twice: when it is wanted, and for each connection that it takes, so that a certificate that
has ended carries nothing more on listeners that still stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import Logger

from teleconch.access.kinds import Kind
from teleconch.access.permit import AccessPermit
from teleconch.errors import AccessDenied, TeleconchError

_SCP: Final = b"scp "
_MORE: Final = frozenset(b";&|<>(`\n")  # to the shell: what stands there may be another command
_WORDS: Final = frozenset(b"'\"\\$*?[{")  # words are not what they look like

log = Logger()


def asked(command: bytes | None) -> tuple[Kind, ...]:
    """What a shell or a command is. The far end of an scp is told by its flags (``-t`` takes files, ``-f`` gives them);
    where they tell neither, or the shell makes other words of them, it may be both. A shell runs it, so that it may be
    any other command as well where more follows."""
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
    """``permit`` gives the permit of this moment or raises AccessDenied; ``fields`` go into each line of the log."""

    def __init__(self, permit: Callable[[], AccessPermit], fields: Mapping[str, str]) -> None:
        self._permit = permit
        self._fields = dict(fields)

    def ask(self, *kinds: Kind) -> AccessPermit:
        """The permit of this moment. AccessDenied unless it grants all of ``kinds``."""
        permit = self._permit()
        if not isinstance(permit, AccessPermit):
            raise AccessDenied("There is no permit.")
        for kind in kinds:
            permit.check(kind)
        return permit

    def check(self, kind: Kind, target: str) -> None:
        """AccessDenied, logged, unless ``kind`` of forwarding is allowed now. ``target`` is for the log."""
        try:
            self.ask(kind)
        except AccessDenied as error:
            self.refused(kind, target, error)
            raise

    def refused(self, kind: Kind, target: str, error: TeleconchError) -> None:
        """A line for what did not happen."""
        log.warn(
            "{kind} to {addr} refused: {error}",
            kind=str(kind),
            event=_event(kind),
            success=False,
            addr=target,
            error=str(error),
            **self._fields,
        )

    def opened(self, kind: Kind, target: str) -> None:
        """A line for what was opened."""
        log.info("{kind} to {addr}", kind=str(kind), event=_event(kind), success=True, addr=target, **self._fields)


def _event(kind: Kind) -> str:
    return "x11-forward" if kind in (Kind.X11, Kind.X11_REQUEST) else "port"
