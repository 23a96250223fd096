"""Where log lines go and what they look like: time, level, sentence, then an audit event's fields.

Text that peers chose is escaped and cut in this one place, so that a line stays one line of bounded length and cannot
control a terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple, TextIO, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
    formatTime,
    globalLogBeginner,
)

from teleconch.audit.events import NAMES, Event
from teleconch.errors import BadParameter
from teleconch.service.log_file import LogFile
from teleconch.text import shown

LEVELS = {"DEBUG": LogLevel.debug, "INFO": LogLevel.info, "WARN": LogLevel.warn, "ERROR": LogLevel.error}
# What is shown after the sentence of a line that is not an audit event's, unless the sentence has it already.
FIELDS = ("user", "login", "server_id", "sid", "addr_remote", "addr_local", "method", "target", "role")
SENTENCE_MAX = 4096  # characters; one request from a stranger must not fill a disk
FIELD_MAX = 512
log = Logger()

_ELSEWHERE = ("event", "code", "success", "error")  # the level and the sentence show success and error
_AMBIGUOUS = re.compile(r'[ "=\\]')


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _value(value: object) -> str:
    """The value as text, quoted if a reader could mistake its words for other fields."""
    text = _cut(", ".join(map(str, value)) if isinstance(value, tuple) else str(value), FIELD_MAX)
    if text and not _AMBIGUOUS.search(text):
        return shown(text)
    return '"' + shown(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _sentence(event: LogEvent) -> str:
    """What ``formatEvent`` makes of an event; without its own parser if Python's gives the same result."""
    form = event.get("log_format")
    if type(form) is str and "(" not in form:
        try:
            return form.format_map(event)
        except Exception:  # noqa: BLE001 - formatEvent turns the error into a sentence
            return formatEvent(event)
    return formatEvent(event)


@lru_cache(2)
def _time(second: int) -> str:
    return formatTime(second)


def _fields(event: LogEvent) -> Iterator[tuple[str, object]]:
    """The names, as in Teleport, and values of the fields after the sentence."""
    audited = event.get("audit")
    if isinstance(audited, Event):
        told = audited.fields()
        yield "event", told["event"]
        yield from ((name, value) for name, value in told.items() if name not in _ELSEWHERE)
        yield "code", told["code"]
    elif event.get("log_namespace", "").startswith("teleconch."):
        form = event.get("log_format") or ""
        for name in FIELDS:
            if event.get(name) not in (None, "") and "{" + name not in form:
                yield NAMES.get(name, name), event[name]


def format_line(event: LogEvent) -> str:
    """The line for an event; a failure's traceback follows, indented."""
    level = event.get("log_level")
    fields = "".join(f" {name}={_value(value)}" for name, value in _fields(event))
    sentence = shown(_cut(_sentence(event), SENTENCE_MAX))
    line = f"{_time(int(event['log_time']))} {level.name.upper() if level else 'INFO':5} {sentence}{fields}\n"
    failure = event.get("log_failure")
    if failure is not None:
        line += "".join(f"    {shown(part)}\n" for part in failure.getTraceback().splitlines())
    return line


class Output(NamedTuple):
    """Where lines go. ``reopen`` reopens a log file, and logs a failure to do so; if there is no file it does
    nothing."""

    observer: ILogObserver
    reopen: Callable[[], None]


def reopen(file: Any) -> None:
    """Reopen a log file. If that fails, the log says so and goes on in the old file."""
    try:
        file.reopen()
    except OSError as error:
        log.error(
            "the log file {path} cannot be reopened ({error}): going on in the old one",
            path=file.path,
            error=error.strerror,
        )


def _stream(output: str) -> TextIO | LogFile:
    if output in ("", "stderr"):
        return sys.stderr
    if output == "stdout":
        return sys.stdout
    try:
        return LogFile(output)
    except OSError as error:
        raise BadParameter(
            f"The log file {output} cannot be written: {error.strerror}. Change teleport.log.output."
        ) from None


def opened(output: str, severity: str) -> Output:
    """An output for events of ``severity`` and above: ``stdout``, ``stderr``, ``syslog`` or a file. BadParameter."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=LEVELS[severity])
    predicates: list[Any] = [predicate, _no_factories]
    for noisy in ("twisted.web", "twisted.internet", "twisted.conch", "klein", "log_legacy"):
        predicate.setLogLevelForNamespace(noisy, max(LogLevel.warn, LEVELS[severity], key=_order))
    if output == "syslog":
        import syslog

        syslog.openlog("teleport", syslog.LOG_PID, syslog.LOG_DAEMON)
        priorities = {
            LogLevel.debug: syslog.LOG_DEBUG,
            LogLevel.info: syslog.LOG_INFO,
            LogLevel.warn: syslog.LOG_WARNING,
        }

        def write(event: LogEvent) -> None:
            syslog.syslog(priorities.get(event.get("log_level"), syslog.LOG_ERR), format_line(event).rstrip("\n"))

        return Output(FilteringLogObserver(cast("ILogObserver", write), predicates), _nothing)
    stream = _stream(output)
    observer = FilteringLogObserver(FileLogObserver(cast("TextIO", stream), format_line), predicates)
    return Output(observer, partial(reopen, stream) if isinstance(stream, LogFile) else _nothing)


def _nothing() -> None:
    """There is no file to reopen."""


def _no_factories(event: LogEvent) -> Any:
    """Drop Twisted's own lines about factories, which mean nothing to an administrator."""
    noise = str(event.get("log_format", "")).startswith(("Starting factory", "Stopping factory"))
    return PredicateResult.no if noise else PredicateResult.maybe


def _order(level: object) -> int:
    return list(LEVELS.values()).index(level) if level in LEVELS.values() else len(LEVELS)


def begin(output: str, severity: str) -> Callable[[], None]:
    """Log from now on. Returns a function that reopens the log. Call it once per process."""
    made = opened(output, severity)
    globalLogBeginner.beginLoggingTo([made.observer], redirectStandardIO=False, discardBuffer=False)
    return made.reopen
