"""Places that are few, for which very many may wait."""

from __future__ import annotations

from twisted.internet.defer import DeferredSemaphore


class Places(DeferredSemaphore):
    """A semaphore whose :meth:`release` does not nest: of those who wait, many may get a place, find that there is
    nothing to do, and release it within the same call."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self._released = 0
        self._releasing = False

    def release(self) -> None:
        """A place is free: the first who waits has it."""
        self._released += 1
        if self._releasing:
            return
        self._releasing = True
        try:
            while self._released:
                self._released -= 1
                super().release()
        finally:
            self._releasing = False
