"""``teleport start``: the roles of one configuration in one process, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from teleconch.atomic import write_file
from teleconch.errors import BadParameter, TeleconchError
from teleconch.service import log as logs
from teleconch.service.init import leave_first_place
from teleconch.service.role import cannot_listen, listener
from teleconch.service.roles import Roles, readiness_of
from teleconch.service.signals import Signals

if TYPE_CHECKING:
    from teleconch.config.addresses import Address
    from teleconch.config.values import Config
    from teleconch.service.ready import Readiness

log = Logger()


def run(
    config: Config,
    *,
    debug: bool = False,
    pid_file: str | None = None,
    diag_addr: Address | None = None,
    insecure: bool = False,
    when_ready: Callable[[Roles], None] | None = None,
    terminal_lost: Callable[[], bool] | None = None,
) -> int:
    """Run until told to stop. Returns the exit status. Raises the TeleconchError that kept it from starting.

    ``insecure`` is accepted for the sake of old command lines: no check can be turned off. ``terminal_lost`` is called
    after a hang-up, for a program that should end with its terminal.
    """
    leave_first_place()
    from twisted.internet import reactor

    os.umask(0o077)
    reopen = logs.begin(config.teleport.log.output, "DEBUG" if debug else config.teleport.log.severity)
    if insecure:
        log.warn("--insecure has no effect: certificates are always verified")
    problems: list[BaseException] = []
    readiness = readiness_of(config)

    def failed(error: BaseException) -> None:
        problems.append(error)
        if reactor.running and len(problems) == 1:
            reactor.stop()

    roles = Roles(reactor, config, readiness, failed)
    signals = Signals(reactor, roles, reopen, terminal_lost)
    signals.listen()
    reactor.callWhenRunning(lambda: reactor.callLater(0, signals.take_stops))  # after the reactor's own
    if when_ready is not None:
        readiness.then(lambda: when_ready(roles))
    _on_reactor(reactor, roles, readiness, diag_addr, failed)
    with _pid_file(pid_file):
        reactor.run()
    for problem in problems:
        if isinstance(problem, TeleconchError):
            raise problem
        raise TeleconchError(
            f"teleport could not start for an unexpected reason ({type(problem).__name__}); the log has it."
        ) from problem
    return 0


def _on_reactor(
    reactor: Any,
    roles: Roles,
    readiness: Readiness,
    diag_addr: Address | None,
    failed: Callable[[BaseException], None],
) -> None:
    reactor.callWhenRunning(roles.startService)
    reactor.addSystemEventTrigger("before", "shutdown", roles.stopService)
    if diag_addr is not None:
        from twisted.internet.error import CannotListenError

        from teleconch.service.ready import diagnostics

        def not_open(failure: Any) -> None:
            failure.trap(CannotListenError)
            failed(cannot_listen(failure.value, diag_addr, "--diag-addr"))

        opened = listener(reactor, diag_addr)
        reactor.callWhenRunning(lambda: opened.listen(diagnostics(readiness)).addErrback(not_open))


@contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    try:
        write_file(Path(path), f"{os.getpid()}\n".encode())  # a new file, so that a link there is not followed
    except OSError as error:
        raise BadParameter(f"The PID file {path} cannot be written: {error.strerror}.") from None
    try:
        yield
    finally:
        Path(path).unlink(missing_ok=True)
