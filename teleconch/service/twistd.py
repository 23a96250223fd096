"""``twistd teleport-ROLE -c FILE``: one role of a file, as a Twisted service."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python import usage
from twisted.python.logfile import LogFile

from teleconch.config.load import read_config
from teleconch.errors import TeleconchError
from teleconch.service import log as logs
from teleconch.service.init import leave_first_place
from teleconch.service.roles import Roles, readiness_of
from teleconch.service.signals import Signals, stop
from teleconch.text import shown

log = Logger()

LINE_END = "\n"
DEFAULT_FILE = "/etc/teleport.yaml"


class Options(usage.Options):
    """The options that twistd has for each role."""

    optParameters: ClassVar[list[Any]] = [["config", "c", DEFAULT_FILE, "Configuration file (teleport.yaml)."]]


def role_service(options: Options, role: str) -> IService:
    """The service that runs ``role``. If the configuration is wrong, its problems go to stderr and the process exits
    with status 1 before anything starts. (Twistd would exit with 0 for wrong usage, and show a traceback for anything
    else.)"""
    from twisted.internet import reactor

    try:
        config = read_config(options["config"], only=role).only(role)
    except TeleconchError as error:
        sys.stderr.write(f"ERROR: {shown(str(error), keep=LINE_END)}\n")
        sys.exit(1)
    leave_first_place()
    for file, line, sentence in config.warnings:
        log.warn("{file}:{line}: {sentence}", file=file, line=line, sentence=sentence)
    os.umask(0o077)
    roles = _TwistdRoles(reactor, config, readiness_of(config), _failed)
    reopen: Callable[[], None] = _no_file
    rotate = None
    elsewhere: Mapping[str, Any] = options.parent or {}
    if not any(elsewhere.get(given) for given in ("logfile", "syslog", "logger")):
        roles.log_observer, reopen = logs.opened(config.teleport.log.output, config.teleport.log.severity)
    elif elsewhere.get("logfile") not in (None, "", "-") and not (elsewhere.get("syslog") or elsewhere.get("logger")):
        file = LogFile.fromFullPath(elsewhere["logfile"])  # as twistd would make it, but known here
        roles.log_observer, reopen, rotate = textFileLogObserver(file), partial(logs.reopen, file), file.rotate
    signals = Signals(reactor, roles, reopen)
    signals.listen(rotate)
    reactor.callWhenRunning(lambda: reactor.callLater(0, signals.take_stops))  # after the reactor's own
    return roles


def _no_file() -> None:
    """Twistd logs elsewhere, so there is no file to reopen."""


class _TwistdRoles(Roles):
    """Logs as ``teleport start`` does, unless twistd was told where to log."""

    log_observer: ILogObserver | None = None

    def setServiceParent(self, parent: Any) -> None:
        if self.log_observer is not None:
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def _failed(error: BaseException) -> None:
    """Say why, stop the reactor, and make twistd exit with status 1 (there is no other way to tell it)."""
    from twisted.internet import reactor

    log.critical("teleport cannot start: {error}", error=str(error))
    atexit.register(_end_with_failure)
    # Twistd starts services before the reactor, which cannot be stopped before it runs.
    reactor.callWhenRunning(lambda: reactor.callLater(0, stop, reactor))


def _end_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
