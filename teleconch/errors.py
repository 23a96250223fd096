"""Errors by kind. A ``code`` crosses the wire; the message is a sentence that says what to do next.

A boundary (API wire, SSH channel, command line) translates once: kind -> code, exit status or disconnect reason.
"""

from __future__ import annotations

from collections.abc import Sequence


def quoted(value: object) -> str:
    """``value`` in quotation marks, for a sentence that a person reads. A string is shown as it was typed, with a
    single backslash for a backslash and escapes for unprintable characters. Anything else is shown as Python does."""
    if not isinstance(value, str):
        return repr(value)
    mark = '"' if "'" in value and '"' not in value else "'"
    if not value.isprintable():
        from teleconch.text import shown  # rarely needed, and programs that start with each session import this module

        value = shown(value)
    return f"{mark}{value}{mark}"


class TeleconchError(Exception):
    """Something was refused or failed. ``str(error)`` is a complete sentence for the person who reads it."""

    code = "error"


class NotFound(TeleconchError):
    """What was named does not exist."""

    code = "not-found"


class AlreadyExists(TeleconchError):
    """The thing to be made exists already."""

    code = "already-exists"


class CompareFailed(TeleconchError):
    """The stored value has changed since it was read: read again and decide again."""

    code = "compare-failed"


class BadParameter(TeleconchError):
    """A value that was given cannot be used."""

    code = "bad-parameter"


class AccessDenied(TeleconchError):
    """The caller may not do this."""

    code = "access-denied"


class LimitExceeded(TeleconchError):
    """Too many or too much; the request may work later."""

    code = "limit-exceeded"


class ClockSkew(TeleconchError):
    """Two machines disagree about the time by more than certificates allow."""

    code = "clock-skew"


class TrustError(TeleconchError):
    """A peer could not prove who it is: wrong pin, unknown authority, bad certificate."""

    code = "trust"


class AlreadyJoined(TeleconchError):
    """A host with this UUID is in the cluster already, with other keys, or runs elsewhere at this moment."""

    code = "already-joined"


class ConnectionProblem(TeleconchError):
    """A peer could not be reached, or the connection broke. Another attempt may succeed."""

    code = "connection"


class Unavailable(TeleconchError):
    """The service is there but cannot answer now (state cannot be written, start not complete)."""

    code = "unavailable"


class ConfigError(TeleconchError):
    """A configuration file has errors. ``problems`` holds them as ``(file, line, sentence)``; ``warnings`` holds what
    is only odd, in the same form."""

    code = "config"

    def __init__(self, problems: list[tuple[str, int, str]], warnings: Sequence[tuple[str, int, str]] = ()) -> None:
        self.problems = problems
        self.warnings = tuple(warnings)
        super().__init__("\n".join(f"{file}:{line}: {text}" for file, line, text in problems))


def _kinds(base: type[TeleconchError]) -> list[type[TeleconchError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _kinds(child))]


def from_code(code: str, message: str) -> TeleconchError:
    """The error that a peer reported by ``code``; an unknown code becomes a plain :class:`TeleconchError`."""
    for kind in _kinds(TeleconchError):
        if kind.code == code and kind is not ConfigError:
            return kind(message)
    return TeleconchError(message)
