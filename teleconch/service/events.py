"""Audit events in the log: one line each, at level info if it was done, and a warning if not."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

from teleconch.audit.events import Event

log = Logger()


class LogEmitter:
    """Turns each event into a log event with the event's attributes, and the event itself as ``audit``."""

    def emit(self, event: Event) -> None:
        """Log ``event``. Its texts are values for a constant format; :func:`teleconch.service.log.format_line` escapes
        them."""
        values = {name: ", ".join(held) if type(held) is tuple else held for name, held in event.values().items()}
        told = {"event": event.event, "code": event.code, "success": event.success, "audit": event}
        level = LogLevel.info if event.code.endswith("I") else LogLevel.warn
        log.emit(level, event.sentence, **(values | told))
