"""Membership: a host joins with a token and keys that it made, and renews under the identity that it joined with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from teleconch import defaults
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import CertRenew, NodeJoin, NodeLeave
from teleconch.auth.certificates import Certificates
from teleconch.auth.join_rate import JoinRate
from teleconch.auth.names import Names, began_with
from teleconch.auth.records import HostRecord, Presence, host_key, presence_key
from teleconch.auth.state import Found, State, decided, put
from teleconch.auth.tokens import Tokens
from teleconch.backend.interface import ABSENT, Delete
from teleconch.ca.keys import public_blob
from teleconch.errors import AccessDenied, AlreadyJoined, BadParameter, ClockSkew, TeleconchError, quoted
from teleconch.resources.addresses import no_other_machine
from teleconch.resources.host import HostCertificates, JoinRequest, RenewRequest
from teleconch.resources.identity import ANONYMOUS, ApiIdentity
from teleconch.resources.names import check_uuid
from teleconch.resources.times import duration_text
from teleconch.resources.token import HOST_ROLES
from teleconch.turns import AtOnce

log = Logger()

CALLS_AT_ONCE: Final = 10  # calls of one method by one host; each of its processes makes one at a time
_MEMBERS: Final = ("node", "proxy")
_VERSION_MAX: Final = 64
_LOGGED_MAX: Final = 255  # characters of a value that has not been checked yet


class Hosts:
    """Join and renew."""

    def __init__(
        self,
        state: State,
        tokens: Tokens,
        certificates: Certificates,
        names: Names,
        now: Callable[[], float],
        emitter: Emitter,
    ) -> None:
        self._state = state
        self._tokens = tokens
        self._certificates = certificates
        self._names = names
        self._rate = JoinRate(now)
        self._renewals = few_at_once("renew")
        self._now = now
        self._emitter = emitter

    async def join(self, request: JoinRequest, caller: ApiIdentity = ANONYMOUS) -> HostCertificates:
        """Make a host that shows a token a member. A refusal writes nothing.

        AccessDenied (token unknown, expired or for another role; names owned by others), ClockSkew, AlreadyJoined,
        BadParameter, LimitExceeded (too many joins with this token from the caller's address).
        """
        told = NodeJoin(
            server_id=request.uuid[:_LOGGED_MAX],
            nodename=request.nodename[:_LOGGED_MAX],
            role=request.role[:_LOGGED_MAX],
            addr_remote=caller.address,
        )
        try:
            self._check(request)
            await self._tokens.check(request.token, request.role)
            _check_clock(request.time, self._now())
            self._names.check(request, caller.here)
            if not caller.here:
                self._rate.take(request.token, caller.address)
            certificates, namesake = await decided(lambda: self._admit(request, caller))
        except TeleconchError as error:
            self._emitter.emit(evolve(told, error=str(error)))
            raise
        self._emitter.emit(told)
        if namesake is not None:
            log.warn(
                "{nodename} ({server_id}) is reached by its UUID only: the name is that of the host {owner}",
                server_id=request.uuid,
                nodename=request.nodename,
                owner=namesake.uuid,
            )
        return certificates

    async def renew(self, request: RenewRequest, caller: ApiIdentity) -> HostCertificates:
        """New certificates for a member, with the names recorded when it joined. AccessDenied if it is not a member;
        LimitExceeded."""
        told = CertRenew(server_id=caller.name, role=", ".join(caller.roles), addr_remote=caller.address)
        try:
            with self._renewals.one((caller.name, caller.roles)):
                certificates = await self._renew(request, caller)
        except TeleconchError as error:
            self._emitter.emit(evolve(told, error=str(error)))
            raise
        self._emitter.emit(told)
        skew = request.time - self._now()
        if not abs(skew) <= defaults.CLOCK_SKEW_MAX:
            log.warn("the clock of {server_id} is {skew} s off", server_id=caller.name, skew=skew)
        return certificates

    async def _renew(self, request: RenewRequest, identity: ApiIdentity) -> HostCertificates:
        role = host_role(identity)
        _check_text(request.version, "Version", _VERSION_MAX)

        async def attempt() -> HostCertificates:
            member = await find_member(self._state, identity, role)
            record = evolve(
                member.record,
                ssh_public_key=request.ssh_public_key,
                tls_public_key=request.tls_public_key,
                renewed=self._now(),
                pinged=True,
            )
            end = self._end(record)
            names = await self._names.extend(record, end)
            record = evolve(record, granted=names.granted)
            certificates = self._issue(record, names.granted, identity.here, end)
            await self._state.commit(
                put(member.key, record, expires=end, expect=member.revision),
                *names.changes,
            )
            return certificates

        return await decided(attempt)

    async def check_member(self, identity: ApiIdentity) -> None:
        """AccessDenied for a node or proxy that was removed. The auth server's own identities have no membership."""
        for role in identity.roles:
            if role in _MEMBERS:
                await find_member(self._state, identity, role)

    async def forget(self, uuid: str, role: str) -> None:
        """End the membership of one role of a host, if there is one."""

        async def attempt() -> bool:
            member = await self._state.find(host_key(uuid, role), HostRecord)
            if member is None:
                return False
            names = await self._names.release([member.record], uuid)
            await self._state.commit(Delete(member.key, member.revision), *names)
            return True

        if await decided(attempt):
            self._emitter.emit(NodeLeave(server_id=uuid, role=role))

    def _check(self, request: JoinRequest) -> None:
        if request.role not in HOST_ROLES:
            raise BadParameter(f"A host joins as {', '.join(HOST_ROLES)}, not as {quoted(request.role)}.")
        _check_text(request.version, "Version", _VERSION_MAX)
        self._certificates.check_host_names(request.uuid, request.role, request.nodename, request.addresses)
        if not math.isfinite(request.time):
            raise BadParameter("The host must send its time, in seconds since 1970.")

    def _issue(
        self, host: JoinRequest | HostRecord, granted: tuple[str, ...], here: bool, until: float
    ) -> HostCertificates:
        """Certificates with the names that the host owns. Names that every machine has (such as localhost) are included
        only for the auth server's own machine. They expire with the membership, when the names are free for others."""
        return self._certificates.host(
            uuid=host.uuid,
            role=host.role,
            nodename=host.nodename,
            addresses=host.addresses,
            ssh_public_key=host.ssh_public_key,
            tls_public_key=host.tls_public_key,
            owned=lambda name: (
                self._names.owned(name, granted)
                or (here and name in map(str.lower, host.addresses) and no_other_machine(name) == "loopback")
            ),
            until=until,
        )

    def _end(self, record: HostRecord) -> float:
        """When a membership ends: with its certificates, or soon if the node has never pinged."""
        if record.role == "node" and not record.pinged:
            return record.joined + defaults.FIRST_PING_WITHIN
        return record.renewed + defaults.HOST_CERT_TTL

    async def _admit(self, request: JoinRequest, caller: ApiIdentity) -> tuple[HostCertificates, HostRecord | None]:
        """Record the member, unless it is recorded already: if its keys and names are the same, the first answer was
        lost."""
        key = host_key(request.uuid, request.role)
        member = await self._state.find(key, HostRecord)
        here = caller.here
        if member is None:
            beside = await self._names.roles_beside(request, caller)
            if beside:
                raise AlreadyJoined(
                    f"A host with the UUID {request.uuid} has joined already as {' and '.join(beside)}, and this one"
                    " did not show that it is the same: give both roles one data_dir, and start that one first. If this"
                    " machine was cloned from that one, delete the file host_uuid in its data_dir and start again."
                )
            now = self._now()
            record = HostRecord(
                uuid=request.uuid,
                role=request.role,
                nodename=request.nodename,
                addresses=request.addresses,
                ssh_public_key=request.ssh_public_key,
                tls_public_key=request.tls_public_key,
                joined=now,
                renewed=now,
            )
            end = self._end(record)
            names = await self._names.claim(request, end)
            certificates = self._issue(request, names.granted, here, end)
            await self._state.commit(
                put(key, evolve(record, granted=names.granted), expires=end, expect=ABSENT), *names.changes
            )
            return certificates, names.namesake
        uuid, nodename = request.uuid, member.record.nodename
        if not _same_keys(member.record, request):
            raise AlreadyJoined(
                f"A host with the UUID {uuid} has joined already, as {quoted(nodename)}"
                f" ({await self._last_seen(uuid)}), with"
                " other keys. If this machine was cloned from that one, delete the file host_uuid in its data_dir and"
                f" start again; if it was reinstalled, run `tctl rm node/{uuid}` on the auth server first."
            )
        if (nodename, member.record.addresses) != (request.nodename, request.addresses):
            raise AlreadyJoined(
                f"This host has joined already, as {quoted(nodename)} with other names or addresses"
                f" ({await self._last_seen(uuid)}); to change them, run `tctl rm node/{uuid}` on the auth server, then"
                " start this host again with a join token."
            )
        return self._issue(request, self._names.held(member.record), here, self._end(member.record)), None

    async def _last_seen(self, uuid: str) -> str:
        presence = await self._state.find(presence_key(uuid), Presence)
        if presence is None:
            return f"not seen in the last {duration_text(defaults.PRESENCE_TTL)}"
        return f"last seen {duration_text(self._now() - presence.record.last_seen)} ago"


async def find_member(state: State, identity: ApiIdentity, role: str) -> Found[HostRecord]:
    """The record of a member. AccessDenied, with a sentence that says what to do, for a host that was removed; also if
    it, or another host with its UUID, has joined again, since a certificate from before the removal is nobody's."""
    uuid = identity.name
    member = await state.find(host_key(check_uuid(uuid), role), HostRecord)
    if member is None or not began_with(identity, member.record):
        raise AccessDenied(
            f"The host {uuid} was removed from the cluster (role {role}); to have it back, make a join token with"
            f" `tctl nodes add --roles={role}`, put it into auth_token and start the host again."
        )
    return member


def few_at_once(method: str) -> AtOnce:
    """A bound for what a host writes about itself: all its calls write one record, so if many ran at once, each would
    be retried for each of the others."""
    return AtOnce(f"Several calls of {method} by this host are in progress: wait for their answers.", CALLS_AT_ONCE)


def host_role(identity: ApiIdentity) -> str:
    """The role in which a host is a member. AccessDenied for anyone else."""
    roles = [role for role in identity.roles if role in HOST_ROLES]
    if identity.kind != "host" or len(roles) != 1:
        raise AccessDenied("Only a host that has joined the cluster may do this.")
    return roles[0]


def _same_keys(record: HostRecord, request: JoinRequest) -> bool:
    return public_blob(record.ssh_public_key) == public_blob(request.ssh_public_key) and "".join(
        record.tls_public_key.split()
    ) == "".join(request.tls_public_key.split())


def _check_clock(theirs: float, ours: float) -> None:
    skew = theirs - ours
    if abs(skew) > defaults.CLOCK_SKEW_MAX:
        raise ClockSkew(
            f"This machine's clock is {duration_text(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the auth"
            " server's; set the clock of both (for example with chrony), then start again."
        )


def _check_text(text: str, what: str, longest: int) -> None:
    if len(text) > longest or not text.isprintable():
        raise BadParameter(f"{what} is at most {longest} printable characters.")
