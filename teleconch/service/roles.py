"""All roles of one process: started in order, stopped in reverse order, ready together or not at all."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from teleconch.config.values import Config
from teleconch.errors import AlreadyJoined, TeleconchError
from teleconch.service.dispatch import straighten
from teleconch.service.events import LogEmitter
from teleconch.service.ready import Readiness
from teleconch.service.role import JoinHow, Role, join_how

if TYPE_CHECKING:
    from teleconch.service.auth import AuthRole

log = Logger()


class Roles(Service):
    """Runs the roles that ``config`` enables. ``failed(error)`` is called once if one of them cannot start."""

    def __init__(
        self, reactor: Any, config: Config, readiness: Readiness, failed: Callable[[BaseException], None]
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._readiness = readiness
        self._failed = failed
        self._emitter = LogEmitter()
        self._started: list[Role] = []
        self._starting: Deferred[None] | None = None
        self._stopping: list[Role] = []
        self._hurried = False
        self.auth: AuthRole | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        straighten(self._reactor)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._not_started)

    async def _start(self) -> None:
        how = join_how(self._config)
        names = self._config.roles
        if "auth" in names:
            from teleconch.service.auth import AuthRole

            self.auth = AuthRole(self._reactor, self._config, self._emitter)
            await self._run(self.auth)
            if len(names) > 1:
                how = await self.auth.join_token()
        others = [self._member(name, how) for name in names if name != "auth"]
        await gatherResults([Deferred.fromCoroutine(self._run(role)) for role in others], consumeErrors=True)
        if self.auth is not None and others:
            await self.auth.forget_token(how)
        _raise_file_limit()
        gc.collect()
        gc.freeze()  # later collections, which make all connections wait, skip what has been loaded so far
        self._readiness.role_ready("start")

    def _member(self, name: str, how: JoinHow) -> Role:
        # Each role's packages are imported only if it runs, to save memory and start-up time.
        if name == "node":
            from teleconch.service.node import NodeRole

            return NodeRole(self._reactor, self._config, how, self._emitter)
        from teleconch.service.proxy import ProxyRole

        return ProxyRole(self._reactor, self._config, how, self._emitter)

    async def _run(self, role: Role) -> None:
        self._started.append(role)
        role.refused = partial(self._readiness.refused, role.name)
        try:
            await role.start()
        except AlreadyJoined:
            if self.auth is None:
                raise
            # The configuration gave this very host other names. Whoever owns the auth server's data may do that, and
            # could not run `tctl rm` first: if this failed, the auth server would not stay up either.
            await self.auth.forget_member(role.name)
            await role.stop()
            await role.start()
        self._readiness.role_ready(role.name)

    def _not_started(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, FirstError):  # from gatherResults, around what the first role raised
            error = error.subFailure.value
        if isinstance(error, CancelledError) and not self.running:
            return  # told to stop while still waiting, for example for the auth server
        if not isinstance(error, TeleconchError):
            log.failure("the start failed", failure=failure)
        assert error is not None
        self._failed(error)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    def be_patient(self) -> None:
        """Let sessions end by themselves at the coming stop."""
        for role in self._started:
            role.be_patient()

    def hurry(self) -> None:
        """From now on, stop without waiting for what users are doing."""
        self._hurried = True
        for role in self._stopping:
            role.hurry()

    async def _stop(self) -> None:
        log.info("teleport is stopping")
        self._readiness.stopping()
        if self._starting is not None:
            self._starting.cancel()
        while self._started:
            role = self._started.pop()
            self._stopping = [role]
            if self._hurried:
                role.hurry()
            try:
                await role.stop()
            except Exception:  # noqa: BLE001 - the other roles must still be stopped
                log.failure("the role {role} did not stop cleanly", role=role.name)


def _raise_file_limit() -> None:
    """Allow as many open files as the system does, since each connection needs one. This is done last: the node's
    launcher is already running, so its sessions keep the usual soft limit, which programs that use select() rely on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def readiness_of(config: Config) -> Readiness:
    """A Readiness that waits for each role, and for the start as a whole."""
    return Readiness((*config.roles, "start"))
