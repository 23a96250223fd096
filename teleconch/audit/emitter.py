"""Where events go."""

from __future__ import annotations

from typing import Protocol

from teleconch.audit.events import Event


class Emitter(Protocol):
    """What the roots hand to everyone who decides."""

    def emit(self, event: Event) -> None:
        """Take an event, at once. Raises nothing: a decision that was taken stands."""


class Memory:
    """Keeps events, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Tee:
    """Gives each event to several."""

    def __init__(self, *emitters: Emitter) -> None:
        self._emitters = emitters

    def emit(self, event: Event) -> None:
        for emitter in self._emitters:
            emitter.emit(event)
