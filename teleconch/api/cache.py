"""A copy that is kept on disk, for a member that must go on without the auth server after a restart.

The file holds everything as it was at one moment. It is replaced as a whole and has mode 0600. It is only a copy: a
file that is damaged, or has another schema, is ignored with a line in the log, and the next watch rewrites it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from teleconch.api.codec import decode_kept, encode_kept
from teleconch.api.copy import Copy
from teleconch.atomic import make_directory, write_file
from teleconch.errors import BadParameter
from teleconch.resources.kind import Change, Kind

log = Logger()

T = TypeVar("T")

SCHEMA: Final = 1  # raise it when a kept value changes so that an older or newer program would misread it
SAVE_AFTER: Final = 1.0  # seconds, so that many changes are written once


class Cache(Copy[T]):
    """All of ``kind``, in ``folder``/KIND.json."""

    def __init__(self, kind: Kind[T], folder: Path, clock: IReactorTime) -> None:
        super().__init__()
        self.path = folder / f"{kind.name}.json"
        self._kind = kind
        self._clock = clock
        self._current = False
        self._saving: IDelayedCall | None = None

    def load(self) -> None:
        """Read what was kept, if it can be used."""
        try:
            self.values = decode_kept(self._kind, SCHEMA, self.path.read_bytes())
            self.complete = True
        except FileNotFoundError:
            pass
        except (OSError, BadParameter) as error:
            log.warn("{path} is not used, and will be written anew: {error}", path=str(self.path), error=str(error))

    def begin(self) -> None:
        super().begin()
        self._current = False

    def apply(self, changes: Iterable[Change[T]]) -> None:
        super().apply(changes)
        self._save_soon()

    def whole(self) -> None:
        super().whole()
        self._current = True
        self._save_soon()

    def lost(self) -> None:
        self.save()
        self._current = False

    def _save_soon(self) -> None:
        if self._current and self._saving is None:
            self._saving = self._clock.callLater(SAVE_AFTER, self.save)

    def save(self) -> None:
        """Write what changed since the last time. While a watch is still beginning there is nothing to write."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        if saving.active():
            saving.cancel()
        try:
            make_directory(self.path.parent)
            write_file(self.path, encode_kept(self._kind, SCHEMA, self.values))
        except OSError as error:
            log.error("{path} cannot be written: {error}", path=str(self.path), error=str(error))
