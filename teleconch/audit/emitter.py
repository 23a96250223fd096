"""Where events go."""

from __future__ import annotations

from typing import Protocol

from teleconch.audit.events import Event


class Emitter(Protocol):
    """What the roots hand to all code that decides."""

    def emit(self, event: Event) -> None:
        """Take an event, at once. Never raises: a decision that was made stands."""


class Memory:
    """Keeps events, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)
