"""A small number of places that very many may wait for."""

from __future__ import annotations

from twisted.internet.defer import DeferredSemaphore


class Places(DeferredSemaphore):
    """A semaphore whose :meth:`release` does not recurse, even if many waiters in turn get a place, find nothing to do,
    and release it within the same call."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self._released = 0
        self._releasing = False

    def release(self) -> None:
        """Free a place; the first waiter gets it."""
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
