"""``twistd teleport-ROLE -c FILE``: one role of a file, as a Twisted service."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

from teleconch.config.load import read_config
from teleconch.errors import TeleconchError
from teleconch.service import log as logs
from teleconch.service.roles import Roles, readiness_of

log = Logger()

LINE_END = "\n"
DEFAULT_FILE = "/etc/teleport.yaml"


class Options(usage.Options):
    """Twistd's options of each role."""

    optParameters: ClassVar[list[Any]] = [["config", "c", DEFAULT_FILE, "Configuration file (teleport.yaml)."]]


def role_service(options: Options, role: str) -> IService:
    """The service that runs ``role``. A configuration that is wrong ends the process with status 1: its problems on
    stderr, nothing started. (Twistd would end with 0 for wrong usage, and show a traceback for anything else.)"""
    from twisted.internet import reactor

    try:
        config = read_config(options["config"]).only(role)
    except TeleconchError as error:
        sys.stderr.write(f"ERROR: {logs.printable(str(error), keep=LINE_END)}\n")
        sys.exit(1)
    for file, line, sentence in config.warnings:
        log.warn("{file}:{line}: {sentence}", file=file, line=line, sentence=sentence)
    os.umask(0o077)
    roles = _TwistdRoles(reactor, config, readiness_of(config), _failed)
    elsewhere: Mapping[str, object] = options.parent or {}
    if not any(elsewhere.get(given) for given in ("logfile", "syslog", "logger")):
        roles.log_observer = logs.observer(config.teleport.log.output, config.teleport.log.severity)
    return roles


class _TwistdRoles(Roles):
    """Logs as ``teleport start`` does, unless twistd was told where to log."""

    log_observer: ILogObserver | None = None

    def setServiceParent(self, parent: Any) -> None:
        if self.log_observer is not None:
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def _failed(error: BaseException) -> None:
    """Say why, stop the reactor, and have twistd end with status 1 (it has no other way to be told)."""
    from twisted.internet import reactor

    log.critical("teleport cannot start: {error}", error=str(error))
    atexit.register(_end_with_failure)
    reactor.stop()


def _end_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
