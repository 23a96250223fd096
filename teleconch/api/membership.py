"""A host's membership in a cluster: joined once with a token, kept in ``data_dir``, renewed at half its life.

States::

    new ── join ──> member ── half of its life ──> renewing ──> member
     │  token, pin     │ start from the cache, the auth server may be down
     └─ refused: a     └─ removed from the cluster: joins again if it was started with a token,
        sentence, end     otherwise the auth server's sentence is logged and nothing else changes
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

import teleconch
from teleconch import defaults
from teleconch.api.client import AuthClient
from teleconch.api.connection import endpoint_of, open_connection
from teleconch.api.hostfiles import FORMAT, HostFiles, HostKeys, StoredMembership, certified
from teleconch.api.perspectives import described
from teleconch.api.tls import FirstContact, TLSCredentials, member_tls, newcomer_tls
from teleconch.ca.authority import ca_pin
from teleconch.ca.keys import public_blob
from teleconch.ca.ssh import certificate_summary
from teleconch.ca.tls import identity_of
from teleconch.errors import (
    AccessDenied,
    AlreadyJoined,
    ClockSkew,
    ConnectionProblem,
    LimitExceeded,
    TeleconchError,
    TrustError,
    Unavailable,
    quoted,
)
from teleconch.resources.addresses import no_other_machine
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates, JoinRequest, Ping, RenewRequest
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.resources.times import utc_text

log = Logger()

_PASSING: Final = (ConnectionProblem, Unavailable, LimitExceeded)  # trying again can help
_LOOK_EVERY: Final = 10 * defaults.MINUTE  # at the clock, which may be set or have slept
_PROBE_TIMEOUT: Final = 10.0
_FIRST_RENEWAL: Final = 5 * defaults.MINUTE  # after the join, and as much again by chance
_RETRY_MAX: Final = 10 * defaults.MINUTE  # between tries to renew


class Membership:
    """One role's membership. :meth:`start` first; then everything else may be asked, at any time.

    ``auth_servers`` are ``host:port`` texts or endpoints; ``addresses`` hosts without ports; ``ca_pins`` may be
    empty (a warning says what to set). ``now`` gives epoch seconds, ``reactor`` connections and timers. ``found_at`` is
    the host's address as it is today, for the join alone: proxies may look for the host there. ``token_problem`` is why
    there is no token where one was meant to be.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        data_dir: str | os.PathLike[str],
        role: str,
        nodename: str,
        addresses: Sequence[str],
        auth_servers: Sequence[str | IStreamClientEndpoint],
        token: Secret | None,
        ca_pins: Sequence[str],
        now: Callable[[], float],
        chance: random.Random | None = None,
        version: str = teleconch.__version__,
        found_at: str | None = None,
        token_problem: str = "",
    ) -> None:
        self._reactor = reactor
        self._role = role
        self._nodename = nodename
        self._addresses = tuple(addresses)
        self._found_at = (found_at,) if found_at is not None and found_at not in addresses else ()
        self._auth_servers = auth_servers
        self._token = token
        self._token_problem = token_problem
        self._ca_pins = tuple(ca_pins)
        self._now = now
        self._chance = chance or random.SystemRandom()
        self._version = version
        self._files = HostFiles(data_dir, role)
        self._keys: HostKeys | None = None
        self._stored: StoredMembership | None = None
        self._credentials: TLSCredentials | None = None
        self._running: set[Deferred[None]] = set()
        self._acknowledged = False  # the auth server took this host for a member since the start
        self._doubted = False
        self.uuid = ""
        self.client: AuthClient = _MemberClient(
            self, reactor, auth_servers, member_tls(self.credentials, self.authorities, now), chance=self._chance
        )

    # -- what others ask

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self._member.certificates.cluster

    def host_keys(self) -> tuple[Secret, str]:
        """The SSH host key (OpenSSH PEM) and its certificate (one line), as of now."""
        assert self._keys is not None, "not started"
        return self._keys.ssh_private, self._member.certificates.ssh_cert

    def authorities(self) -> tuple[TrustedAuthority, ...]:
        """The cluster's authorities, as of the last contact."""
        return self._member.certificates.authorities

    def credentials(self) -> TLSCredentials:
        """This host's TLS certificate and key, as of now."""
        assert self._credentials is not None, "not started"
        return self._credentials

    @property
    def tls_files(self) -> tuple[Path, Path]:
        """The same as files in PEM, certificate (followed by the host authority's) and key, for a web server."""
        return self._files.tls_certificate, self._files.tls_key

    @property
    def expires(self) -> float:
        """The certificates' end, epoch seconds."""
        return self._member.certificates.valid_before

    @property
    def _member(self) -> StoredMembership:
        assert self._stored is not None, "not started"
        return self._stored

    # -- start and stop

    async def start(self) -> None:
        """Take the membership from ``data_dir``, or join, trying again where that can help.

        Returns as a member. Raises what only people can put right: AccessDenied, TrustError, ClockSkew,
        AlreadyJoined, BadParameter; Unavailable where ``data_dir`` cannot be used. A refusal has stored nothing but
        keys.
        """
        self.uuid = self._files.uuid()
        self._keys = self._files.keys()
        stored = self._files.load()
        problem = self._unusable(stored)
        if stored is not None and problem is None:
            await self._check_not_elsewhere(stored)
            self._use(stored)
        else:
            if self._token is None and self._token_problem:
                raise AccessDenied(
                    f"{problem or 'This host is not a member of a cluster yet.'} It has no token to join with:"
                    f" {self._token_problem} Make one with `tctl nodes add --roles={self._role}` on the auth server."
                )
            if self._token is None:
                raise problem or AccessDenied(
                    f"This host is not a member of a cluster yet ({self._files.directory} holds no certificates): make"
                    f" a token with `tctl nodes add --roles={self._role}` on the auth server and set it as auth_token."
                )
            await self._join_until_decided()
            self._acknowledged = True
        self._run(self._upkeep())

    def stop(self) -> None:
        """End timers and the connection. Idempotent."""
        for each in tuple(self._running):
            each.cancel()
        self.client.close()

    async def _check_not_elsewhere(self, stored: StoredMembership) -> None:
        """TrustError where the configuration is meant for joining another cluster: it has a token, and a pin that the
        auth server fits and the cluster of ``data_dir`` does not."""
        host_cas = (each for each in stored.certificates.authorities if each.type == "host")
        known = {ca_pin(pem) for each in host_cas for pem in each.tls_certs}
        if self._token is None or not self._ca_pins or known.intersection(self._ca_pins):
            return
        tls = newcomer_tls(FirstContact(self._ca_pins, self._now).check)
        for server in self._auth_servers:
            endpoint = endpoint_of(self._reactor, server, _PROBE_TIMEOUT) if isinstance(server, str) else server
            try:
                connection = await open_connection(self._reactor, endpoint, tls, _PROBE_TIMEOUT)
            except TeleconchError as error:
                log.info("no auth server with the pin of ca_pin at {server}: {error}", server=server, error=str(error))
                continue
            connection.close()
            raise TrustError(
                f"The auth server at {server} has the pin that ca_pin asks for, but {self._files.directory} holds this"
                f" host's credentials in another cluster, {stored.certificates.cluster}: delete that folder to join"
                f" with the token, or set auth_servers and ca_pin of {stored.certificates.cluster} again."
            )

    def _unusable(self, stored: StoredMembership | None) -> TeleconchError | None:
        """Why the host cannot go on with what is stored, as it is to be told where there is no token."""
        if stored is None:
            return None
        given, now = stored.certificates, self._now()
        if now < given.valid_after:
            raise ClockSkew(
                f"By this machine's clock it is {utc_text(now)}, but its certificates begin at"
                f" {utc_text(given.valid_after)}: set the clock (for example with chrony), then start again."
            )
        if now >= given.valid_before:
            return TrustError(
                f"This host's certificates ended {utc_text(given.valid_before)} (by this machine's clock it is"
                f" {utc_text(now)}). If the clock is right, make a token with `tctl nodes add --roles={self._role}` on"
                " the auth server and set it as auth_token."
            )
        # Hosts that joined elsewhere were once called localhost: that they are not any more changes nothing.
        dropped = set(stored.addresses) - set(self._addresses)
        added = set(self._addresses) - set(stored.addresses)
        if stored.nodename != self._nodename or added or any(no_other_machine(name) != "loopback" for name in dropped):
            return AlreadyJoined(
                f"This host joined as {_named(stored.nodename, stored.addresses)}, but its configuration now says"
                f" {_named(self._nodename, self._addresses)}. Its certificates must be issued anew: run"
                f" `tctl rm node/{self.uuid}` on the auth server, make a token with `tctl nodes add"
                f" --roles={self._role}` and set it as auth_token; or set the old names again."
            )
        return None

    # -- join

    async def _join_until_decided(self) -> None:
        failures = 0
        while True:
            try:
                self._adopt(await self._join())
                return
            except _PASSING as error:
                wait = self._backoff(failures, defaults.BACKOFF_MAX)
                failures += 1
                log.warn(
                    "cannot join the cluster yet, trying again in {seconds:.1f} s: {error}",
                    event="auth.join",
                    server_id=self.uuid,
                    seconds=wait,
                    error=str(error),
                )
                await deferLater(self._reactor, wait)

    async def _join(self) -> HostCertificates:
        """As a newcomer; as another role of this host where one has joined already, whose UUID nobody else may use."""
        try:
            return await self._ask_to_join(None)
        except AlreadyJoined:
            beside = self._files.beside()
            if beside is None:
                raise
            return await self._ask_to_join(beside)

    async def _ask_to_join(self, beside: TLSCredentials | None) -> HostCertificates:
        assert self._keys is not None
        assert self._token is not None
        contact = FirstContact(self._ca_pins, self._now)

        def check(chain: Sequence[bytes]) -> None:
            contact.check(chain)
            self._check_cluster(contact.cluster)

        client = AuthClient(self._reactor, self._auth_servers, newcomer_tls(check, beside), chance=self._chance)
        try:
            return await client.join(
                JoinRequest(
                    token=self._token,
                    uuid=self.uuid,
                    nodename=self._nodename,
                    role=self._role,
                    ssh_public_key=self._keys.ssh_public,
                    tls_public_key=self._keys.tls_public,
                    addresses=(*self._addresses, *self._found_at),
                    time=self._now(),
                    version=self._version,
                )
            )
        finally:
            client.close()

    def _check_cluster(self, cluster: str) -> None:
        for role, known in self._files.clusters().items():
            if known != cluster:
                raise TrustError(
                    f"The auth server is of cluster {cluster}, but {self._files.directory.parent} belongs to a member"
                    f" of cluster {known} (role {role}). Use another data_dir; or, to leave {known} for good, delete"
                    " this one's role folders and join with a token."
                )

    def _adopt(self, given: HostCertificates) -> None:
        """Believe, store and use what the auth server gave."""
        assert self._keys is not None
        authorities = [each for each in given.authorities if each.cluster == given.cluster]
        if not certified(given, self._keys) or {each.type for each in authorities} != {"user", "host"}:
            raise TrustError("The auth server gave certificates that are not this host's: are both up to date?")
        certificate = x509.load_pem_x509_certificate(given.tls_cert.encode()).public_bytes(Encoding.DER)
        identity = identity_of(certificate, authorities, given.valid_after)
        if (identity.kind, identity.name, self._role in identity.roles) != ("host", self.uuid, True):
            raise TrustError(f"The auth server gave the certificate of {described(identity)}, who is not this host.")
        self._check_cluster(given.cluster)
        stored = StoredMembership(FORMAT, self._nodename, self._addresses, given)
        self._files.store(stored)
        self._use(stored)
        if self._nodename.lower() not in certificate_summary(public_blob(given.ssh_cert)).principals:
            log.warn(
                "the name {nodename} is another host's, or every machine's: this one is reached by its UUID,"
                " {server_id}. Give it a nodename of its own; or, if the other (the auth server's log names it) is gone"
                " for good, run `tctl rm node/UUID` on the auth server for the other and for this one, and start this"
                " one again with a join token",
                event="auth.join",
                nodename=self._nodename,
                server_id=self.uuid,
            )

    def _use(self, stored: StoredMembership) -> None:
        assert self._keys is not None
        self._stored = stored
        self._credentials = TLSCredentials(stored.certificates.tls_cert, self._keys.tls_private)

    # -- renewal

    async def _upkeep(self) -> None:
        failures = 0
        while True:
            given = self._member.certificates
            # A little before half, and no two hosts in step.
            life = given.valid_before - given.valid_after
            chance = self._chance.random()
            due = given.valid_after + life * (0.5 - 0.05 * chance)
            if life < defaults.DAY:  # a host that has just joined; what it gets now lasts
                due = min(due, given.valid_after + defaults.BACKDATE + _FIRST_RENEWAL * (1 + chance))
            while (wait := due - self._now()) > 0:
                await deferLater(self._reactor, min(wait, _LOOK_EVERY))
            if await self._renew():
                failures = 0
            else:
                await deferLater(self._reactor, self._backoff(failures, _RETRY_MAX))
                failures += 1

    async def _renew(self) -> bool:
        assert self._keys is not None
        request = RenewRequest(self._keys.ssh_public, self._keys.tls_public, self._now(), self._version)
        try:
            self._adopt(await self.client.renew(request))
        except TeleconchError as error:
            log.warn(
                "the certificates of this host, good until {end}, cannot be renewed now: {error}",
                event="cert.renew",
                server_id=self.uuid,
                end=utc_text(self.expires),
                error=str(error),
            )
            if isinstance(error, AccessDenied):
                await self._join_again()
            return False
        self._acknowledged = True
        self.client.renewed()
        log.info("renewed the certificates of this host until {end}", event="cert.renew", end=utc_text(self.expires))
        return True

    async def _join_again(self) -> None:
        """After a removal from the cluster; only with a token, and only if the removal was before the start."""
        if self._token is None or self._acknowledged:
            return
        try:
            self._adopt(await self._join())
        except TeleconchError as error:
            log.warn("this host cannot join again: {error}", event="auth.join", server_id=self.uuid, error=str(error))
        else:
            self._acknowledged = True
            self.client.renewed()
            log.info("this host joined again", event="auth.join", server_id=self.uuid)

    def acknowledged(self) -> None:
        """The auth server answered this host as a member."""
        self._acknowledged = True

    def doubted(self) -> None:
        """The auth server refused this host: find out, once, whether it is a member still."""
        if not self._doubted and not self._acknowledged:
            self._doubted = True
            self._run(self._ask_for_renewal())

    async def _ask_for_renewal(self) -> None:
        await self._renew()

    # -- authorities

    def connected(self) -> None:
        """The client has a new connection: a good moment to learn of new authorities."""
        self._run(self._refresh())

    async def _refresh(self) -> None:
        try:
            authorities = await self.client.authorities()
        except TeleconchError as error:
            log.info("the authorities could not be asked for: {error}", error=str(error))
            if isinstance(error, AccessDenied):
                self.doubted()
            return
        self.acknowledged()
        given = self._member.certificates
        if {each.type for each in authorities if each.cluster == given.cluster} != {"user", "host"}:
            log.warn("the auth server gave no authorities of this cluster", event="auth.api")
        elif authorities != given.authorities:
            stored = evolve(self._member, certificates=evolve(given, authorities=authorities))
            self._stored = stored
            self._files.store(stored)
            log.info("learned of new authorities of the cluster", event="auth.api")

    # -- parts

    def _backoff(self, failures: int, most: float) -> float:
        limit: float = min(most, defaults.BACKOFF_FIRST * 2 ** min(failures, 16))
        return self._chance.random() * limit

    def _run(self, job: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(job)
        self._running.add(running)
        running.addErrback(self._failed).addBoth(lambda _: self._running.discard(running))

    @staticmethod
    def _failed(failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("the upkeep of this host's membership failed", failure=failure)


class _MemberClient(AuthClient):
    """Tells the membership what it needs to know of calls that others make."""

    def __init__(self, membership: Membership, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, connected=membership.connected, **options)
        self._membership = membership

    async def heartbeat(self, node: Node, instance: str) -> Ping:
        try:
            ping = await super().heartbeat(node, instance)
        except AccessDenied:
            self._membership.doubted()
            raise
        self._membership.acknowledged()
        return ping


def _named(nodename: str, addresses: Sequence[str]) -> str:
    return f"{quoted(nodename)} ({', '.join(addresses)})" if addresses else quoted(nodename)
