"""How a host becomes a member: from what ``data_dir`` holds, or with a token and a pin."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from teleconch.api.backoff import full_jitter
from teleconch.api.client import AuthClient
from teleconch.api.connection import endpoint_of, open_connection
from teleconch.api.held import Held
from teleconch.api.hostfiles import StoredMembership
from teleconch.api.tls import FirstContact, TLSCredentials, newcomer_tls
from teleconch.ca.authority import ca_pin
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
from teleconch.resources.host import HostCertificates, JoinRequest
from teleconch.resources.secret import Secret
from teleconch.resources.times import utc_text

log = Logger()

_PASSING: Final = (ConnectionProblem, Unavailable, LimitExceeded)  # another attempt may succeed
_PROBE_TIMEOUT: Final = 10.0


class Joining:
    """Fills ``held``. The arguments are those of :class:`teleconch.api.membership.Membership`."""

    def __init__(
        self,
        reactor: Any,
        held: Held,
        *,
        auth_servers: Sequence[str | IStreamClientEndpoint],
        token: Secret | None,
        token_problem: str,
        ca_pins: Sequence[str],
        found_at: str | None,
        now: Callable[[], float],
        chance: random.Random,
        version: str,
    ) -> None:
        self._reactor = reactor
        self._held = held
        self._auth_servers = auth_servers
        self._token = token
        self._token_problem = token_problem
        self._ca_pins = tuple(ca_pins)
        self._found_at = (found_at,) if found_at is not None and found_at not in held.addresses else ()
        self._now = now
        self._chance = chance
        self._version = version

    @property
    def has_token(self) -> bool:
        """Whether there is anything to join with."""
        return self._token is not None

    async def become_member(self) -> bool:
        """Use the membership in ``data_dir``, or join, and try again after errors that may pass. Returns whether it
        joined. Raises what :meth:`teleconch.api.membership.Membership.start` raises."""
        held = self._held
        stored = held.load()
        problem = self._unusable(stored)
        if stored is not None and problem is None:
            await self._check_not_elsewhere(stored)
            held.use(stored)
            return False
        if self._token is None and self._token_problem:
            raise AccessDenied(
                f"{problem or 'This host is not a member of a cluster yet.'} It has no token to join with:"
                f" {self._token_problem} Make one with `tctl nodes add --roles={held.role}` on the auth server."
            )
        if self._token is None:
            raise problem or AccessDenied(
                f"This host is not a member of a cluster yet ({held.files.directory} holds no certificates): make"
                f" a token with `tctl nodes add --roles={held.role}` on the auth server and set it as auth_token."
            )
        await self._join_until_decided()
        return True

    async def _check_not_elsewhere(self, stored: StoredMembership) -> None:
        """TrustError if the configuration is meant for joining another cluster: it has a token, and a pin that fits the
        auth server but not the cluster in ``data_dir``."""
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
                f"The auth server at {server} has the pin that ca_pin asks for, but {self._held.files.directory} holds"
                f" this host's credentials in another cluster, {stored.certificates.cluster}: delete that folder to"
                f" join with the token, or set auth_servers and ca_pin of {stored.certificates.cluster} again."
            )

    def _unusable(self, stored: StoredMembership | None) -> TeleconchError | None:
        """Why the host cannot go on with what is stored, as the error to raise if there is no token; ``None`` if it
        can. ClockSkew."""
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
                f" {utc_text(now)}). If the clock is right, make a token with `tctl nodes add"
                f" --roles={self._held.role}` on the auth server and set it as auth_token."
            )
        # Hosts that joined from elsewhere used to be called localhost too. That they no longer are makes no difference.
        held = self._held
        dropped = set(stored.addresses) - set(held.addresses)
        added = set(held.addresses) - set(stored.addresses)
        if stored.nodename != held.nodename or added or any(no_other_machine(name) != "loopback" for name in dropped):
            return AlreadyJoined(
                f"This host joined as {_named(stored.nodename, stored.addresses)}, but its configuration now says"
                f" {_named(held.nodename, held.addresses)}. Its certificates must be issued anew: run"
                f" `tctl rm node/{held.uuid}` on the auth server, make a token with `tctl nodes add"
                f" --roles={held.role}` and set it as auth_token; or set the old names again."
            )
        return None

    # -- with a token

    async def _join_until_decided(self) -> None:
        failures = 0
        while True:
            try:
                await self.join()
                return
            except _PASSING as error:
                wait = full_jitter(self._chance, failures)
                failures += 1
                log.warn(
                    "cannot join the cluster yet, trying again in {seconds:.1f} s: {error}",
                    server_id=self._held.uuid,
                    seconds=wait,
                    error=str(error),
                )
                await deferLater(self._reactor, wait)

    async def join(self) -> None:
        """Join once and hold the result: as a newcomer or, if another role of this host has joined already, with that
        role's certificate, since nobody else may use its UUID."""
        try:
            given = await self._ask_to_join(None)
        except AlreadyJoined:
            beside = self._held.files.beside()
            if beside is None:
                raise
            given = await self._ask_to_join(beside)
        self._held.adopt(given)

    async def _ask_to_join(self, beside: TLSCredentials | None) -> HostCertificates:
        assert self._token is not None
        held = self._held
        contact = FirstContact(self._ca_pins, self._now)

        def check(chain: Sequence[bytes]) -> None:
            contact.check(chain)
            held.check_cluster(contact.cluster)

        client = AuthClient(self._reactor, self._auth_servers, newcomer_tls(check, beside), chance=self._chance)
        try:
            return await client.api.join(
                JoinRequest(
                    token=self._token,
                    uuid=held.uuid,
                    nodename=held.nodename,
                    role=held.role,
                    ssh_public_key=held.keys.ssh_public,
                    tls_public_key=held.keys.tls_public,
                    addresses=(*held.addresses, *self._found_at),
                    time=self._now(),
                    version=self._version,
                )
            )
        finally:
            client.close()


def _named(nodename: str, addresses: Sequence[str]) -> str:
    return f"{quoted(nodename)} ({', '.join(addresses)})" if addresses else quoted(nodename)
