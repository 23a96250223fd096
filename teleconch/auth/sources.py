"""What watchers are told: all values of a kind, then each change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from twisted.logger import Logger

from teleconch.api.interface import Receiver, Watch
from teleconch.defaults import PAGE_SIZE
from teleconch.errors import NotFound, Unavailable, quoted
from teleconch.resources.kind import Change, Kind

log = Logger()

T = TypeVar("T")


class Source(Generic[T]):
    """The values of one kind, as last reported, and their receivers. Open it once it holds everything."""

    def __init__(self, kind: Kind[T]) -> None:
        self.kind = kind
        self.told: dict[str, T] = {}
        self._receivers: list[_Receiving[T]] = []
        self._open = False

    def open(self) -> None:
        """Take receivers from now on."""
        self._open = True

    def close(self) -> None:
        """Take no more receivers, and end every watch."""
        self._open = False
        for receiving in tuple(self._receivers):
            receiving.end()

    def watch(self, receiver: Receiver[T]) -> Watch:
        """Report everything to ``receiver``, then each change. Unavailable while the source is not open."""
        if not self._open:
            raise Unavailable("The auth server is starting or stopping; try again in a moment.")
        receiving = _Receiving(receiver, self._receivers.remove)
        self._receivers.append(receiving)
        everything = [Change(key, value) for key, value in sorted(self.told.items())]
        for start in range(0, len(everything), PAGE_SIZE):
            receiving.tell(everything[start : start + PAGE_SIZE])
        receiving.whole()
        return receiving

    def tell(self, changes: Iterable[Change[T]]) -> None:
        """Report changes to all receivers, except the removal of what was never reported."""
        news = []
        for change in changes:
            if change.value is not None:
                self.told[change.key] = change.value
            elif self.told.pop(change.key, None) is None:
                continue
            news.append(change)
        if news:
            for receiving in tuple(self._receivers):
                receiving.tell(news)


class _Receiving(Generic[T]):
    """One receiver, until it stops, fails, or its source closes."""

    def __init__(self, receiver: Receiver[T], done: Callable[[_Receiving[T]], None]) -> None:
        self._receiver = receiver
        self._done = done
        self._over = False

    def tell(self, changes: list[Change[T]]) -> None:
        self._call(lambda: self._receiver.changes(tuple(changes)))

    def whole(self) -> None:
        self._call(self._receiver.whole)

    def _call(self, tell: Callable[[], None]) -> None:
        if self._over:
            return
        try:
            tell()
        except Exception:  # noqa: BLE001 - another's code: its failure must not reach the other receivers
            log.failure("a receiver of changes failed; it is told nothing more")
            self.end()

    def end(self) -> None:
        """End the watch from the source's side."""
        if not self._over:
            self.stop()
            try:
                self._receiver.watch_ended()
            except Exception:  # noqa: BLE001 - another's code, as above
                log.failure("a receiver of changes failed at its end")

    def stop(self) -> None:
        if not self._over:
            self._over = True
            self._done(self)


class Watches:
    """The sources of this auth server, by kind."""

    def __init__(self, *sources: Source[Any]) -> None:
        self._sources = {source.kind.name: source for source in sources}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds that can be watched here."""
        return tuple(self._sources)

    async def watch(self, kind: Kind[T], receiver: Receiver[T]) -> Watch:
        """NotFound for a kind that this auth server does not report; Unavailable while it starts or stops."""
        source = self._sources.get(kind.name)
        if source is None:
            raise NotFound(f"This auth server cannot report {quoted(kind.name)}: is it up to date?")
        return source.watch(receiver)
