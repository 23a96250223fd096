"""The node as one Twisted service: listener, sessions and pings."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from random import SystemRandom
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

import teleconch
from teleconch.api.interface import Hosts
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import NodeHeld
from teleconch.errors import BadParameter, TeleconchError
from teleconch.node.forward import bind
from teleconch.node.heartbeat import Heartbeat
from teleconch.node.labels import LabelCommand, Labels
from teleconch.node.launch.pulse import is_whose
from teleconch.node.place import Place
from teleconch.node.process import Launcher
from teleconch.node.server import NodeRealm
from teleconch.node.start import NO_RULES, IReactorNode, LoginRules
from teleconch.resources.address import join_address, split_address
from teleconch.resources.authority import TrustedAuthority, user_authorities
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.ssh import messages
from teleconch.ssh.checker import CertificateChecker
from teleconch.ssh.hostkey import CurrentKeys
from teleconch.ssh.problems import SSHProblem
from teleconch.ssh.server import ServerOptions, SSHServerFactory

STOP_DEADLINE: Final = 10.0  # seconds that running sessions get when the node stops
PARTING_DEADLINE: Final = 1.0  # and then clients, to leave on their own

HELD_UP: Final = "A FUSE file system of yours held up this node."

log = Logger()


class Member(Protocol):
    """What a node needs of its host's membership in the cluster (``api.membership.Membership`` is one)."""

    @property
    def uuid(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def client(self) -> Hosts: ...
    def host_keys(self) -> tuple[Secret, str]: ...
    def authorities(self) -> tuple[TrustedAuthority, ...]: ...
    def acknowledged(self) -> None: ...
    def refused(self, error: TeleconchError) -> None: ...


class NodeServer(Service):
    """``endpoint`` is where the SSH server listens; ``addr`` is the ``host:port`` that proxies should dial, or ``None``
    for what the listener got. ``member`` has joined already; its auth server may be down. ``commands`` are labels whose
    values programs print; ``accept_env`` are patterns of variables that clients may set; ``gateway_ports`` says where
    ``ssh -R`` listens (sshd's words, ``forward.bind``). ``emitter`` takes the audit events. ``refused`` is called with
    a sentence when the auth server refuses a ping, and with an empty one when it accepts a ping. BadParameter."""

    name = "node"

    def __init__(
        self,
        reactor: IReactorNode,
        member: Member,
        endpoint: IStreamServerEndpoint,
        *,
        nodename: str,
        emitter: Emitter,
        addr: str | None = None,
        public_addrs: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        commands: Sequence[LabelCommand] = (),
        accept_env: Sequence[str] = (),
        gateway_ports: str = bind.NO,
        rules: LoginRules = NO_RULES,
        roles: Sequence[str] = ("node",),
        options: ServerOptions | None = None,
        stop_deadline: float | None = STOP_DEADLINE,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] | None = None,
        refused: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._reactor = reactor
        self._member = member
        self._endpoint = endpoint
        self._nodename = nodename
        self._addr = addr
        self._public_addrs = tuple(public_addrs)
        if rules.pam_service is not None and os.geteuid() != 0:
            raise BadParameter("PAM needs a node that runs as root: run it so, or set ssh_service.pam.enabled to no.")
        self._labels = Labels(reactor, labels or {}, commands, lambda: self.heartbeat.changed())
        self._roles = tuple(roles)
        self._stop_deadline = stop_deadline
        self._waiting: Deferred[None] | None = None  # for sessions to end
        self._now = now
        self._port: IListeningPort | None = None
        self.launcher = Launcher(reactor, rules)
        self.launcher.held = self._was_held
        self.place = Place(
            reactor,
            self.launcher,
            member.uuid,
            member.cluster,
            lambda: str(uuid.uuid4()),
            emitter,
            accept_env=tuple(accept_env),
            gateway_ports=gateway_ports,
        )
        checker = CertificateChecker(lambda: user_authorities(member.authorities(), member.cluster), now)
        self.factory = SSHServerFactory(
            reactor,
            Portal(NodeRealm(self.place, now), [checker]),
            CurrentKeys(member.host_keys),
            options,
            log_name="node",
            emitter=emitter,
            server_id=member.uuid,
        )
        self._refused = refused
        self.heartbeat = Heartbeat(
            reactor,
            member.client,
            self.describe,
            instance=secrets.token_hex(16),
            random=random or SystemRandom().random,
            now=now,
            reached=self._acknowledged,
            refused=self._was_refused,
        )
        self.listening: Deferred[IListeningPort] = Deferred()

    def _acknowledged(self) -> None:
        self._member.acknowledged()
        self._refused("")

    def _was_refused(self, error: TeleconchError) -> None:
        self._member.refused(error)
        self._refused(str(error))

    # --- what others ask ---------------------------------------------------------------------------------------------

    def describe(self) -> Node:
        """What the next ping tells."""
        return Node(
            uuid=self._member.uuid,
            nodename=self._nodename,
            cluster=self._member.cluster,
            addr=self.addr,
            public_addrs=self._public_addrs,
            labels=self._labels.current(),
            version=teleconch.__version__,
            roles=self._roles,
        )

    @property
    def addr(self) -> str:
        """``host:port`` as told to the cluster."""
        given, port = split_address(self._addr or "", lowest=0) or ("", None)
        if self._addr is not None and port != 0:
            return self._addr
        if self._port is None:
            return ""
        own: Any = self._port.getHost()
        return join_address(given or own.host, own.port)

    def _was_held(self, user: str, seconds: int) -> None:
        """The launcher has freed this process from a file system of ``user`` (``pulse.whose``): end what they have
        here."""
        logins = {login for login, uid in self.launcher.uids.items() if is_whose(user, login, uid)}
        ended = [each for each in self.place.users if each.login in logins]
        self.place.emitter.emit(
            NodeHeld(
                login=", ".join(sorted(logins)) or user,
                user=", ".join(sorted({each.identity.user for each in ended})),
                server_id=self._member.uuid,
                connections=len(ended),
                seconds=seconds,
                error="a FUSE file system held up this node",
            )
        )
        for each in ended:
            each.conn.transport.fail(SSHProblem(HELD_UP, messages.DISCONNECT_BY_APPLICATION))
            each.conn.transport.abortConnection()  # their pipes go now, whether or not the client takes the sentence

    # --- life --------------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.place.programs.sweep()
        self.launcher.start()
        Deferred.fromCoroutine(self._listen()).addErrback(self._not_listening)

    async def _listen(self) -> None:
        port = await self._endpoint.listen(self.factory)
        if not self.running:
            await _stopped(port)
            return
        self._port = port
        own: Any = port.getHost()
        log.info(
            "node {nodename} listens on {here}; proxies reach it at {addr}",
            nodename=self._nodename,
            here=join_address(own.host, own.port),
            addr=self.addr,
        )
        self.heartbeat.start()
        self._labels.start()
        self.listening.callback(port)

    def _not_listening(self, failure: Failure) -> None:
        self.listening.errback(failure)  # whoever started us decides

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await _stopped(port)
        self._labels.stop()
        goodbye = Deferred.fromCoroutine(self.heartbeat.stop())
        sessions = Deferred.fromCoroutine(self._end_sessions())
        await DeferredList([goodbye, sessions], consumeErrors=True)
        try:
            # A client that reads a DISCONNECT drops what it has not written yet: let it go by itself first.
            await self.place.users.empty().addTimeout(PARTING_DEADLINE, self._reactor)
        except DeferredTimeout:
            pass
        for connection in list(self.factory.connections):
            connection.loseConnection()
        await self.launcher.stop()
        self.place.programs.remove()

    async def _end_sessions(self) -> None:
        """Wait for sessions to end by themselves, then hang them up."""
        if self.place.live:
            log.info("waiting for {count} sessions to end", count=len(self.place.live))
        self._waiting = waiting = self.place.live.empty()
        if self._stop_deadline is not None:
            waiting.addTimeout(self._stop_deadline, self._reactor)
        try:
            await waiting
        except (DeferredTimeout, CancelledError):
            log.warn("{count} sessions still run as the node stops; hanging them up", count=len(self.place.live))
        for session in self.place.live:
            session.hang_up("the node stops")

    def be_patient(self) -> None:
        """At the coming stop, sessions may take as long as they like."""
        self._stop_deadline = None

    def hurry(self) -> None:
        """Hang up what still runs, at the stop that is coming or under way."""
        self._stop_deadline = 0
        if self._waiting is not None:
            self._waiting.cancel()

    def stopService(self) -> Deferred[None]:
        """Close the listener, say goodbye, let sessions end; fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())


async def _stopped(port: IListeningPort) -> None:
    stopping = port.stopListening()
    if stopping is not None:
        await stopping
