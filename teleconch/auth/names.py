"""Who owns a name: each has one owner, written in the same commit as the owner's record.

::

    join ── the name is nobody's, or this host's ───────────────────────▶ owned
      │
      └── it is another's
            ├── two proxies behind one public address ─────────────────▶ owned by both
            ├── the other has the very same nodename, or an IP address ▶ joins without: reached by its UUID
            └── any other name ────────────────────────────────────────▶ AccessDenied

    `tctl rm node/UUID`, and the end of a membership ──────────────────▶ nobody's

A host's record says which names it owns (``granted``); the index below ``/names/`` only leads to the record, so an
entry whose owner is gone has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from attrs import evolve, frozen
from twisted.logger import Logger

from teleconch import defaults
from teleconch.auth.records import HOSTS, HostRecord, NameRecord, Presence, name_key, presence_key
from teleconch.auth.state import Found, State, put
from teleconch.backend.interface import ABSENT, CHANGES_MAX, Change, Delete
from teleconch.errors import AccessDenied, BadParameter, quoted
from teleconch.resources.addresses import host_of, no_other_machine, oddly_spelled, plain_ip, stem
from teleconch.resources.host import JoinRequest
from teleconch.resources.identity import ApiIdentity

log = Logger()

_SHARED_ROLES: Final = ("proxy", "auth")  # several may stand behind one address


@frozen
class Claim:
    """The stems that a host owns once ``changes`` are committed, and who owns its nodename if it may not have that."""

    granted: tuple[str, ...]
    changes: tuple[Change, ...]
    namesake: HostRecord | None = None


class Names:
    """The index of names. ``now`` returns epoch seconds."""

    def __init__(self, state: State, cluster: str, now: Callable[[], float]) -> None:
        self._state = state
        self._cluster = cluster
        self._now = now
        self._own_uuid = ""
        self._own: frozenset[str] = frozenset()

    def reserve(self, uuid: str, names: Iterable[str]) -> None:
        """Reserve the names in the auth server's own certificate for its own host."""
        self._own_uuid = uuid
        self._own = frozenset(stem(name, self._cluster) for name in names)

    def stems(self, host: JoinRequest | HostRecord) -> tuple[str, ...]:
        """The stems of the names that a host asks for, each once, the nodename first."""
        return tuple(dict.fromkeys(stem(name, self._cluster) for name in (host.nodename, *host.addresses)))

    def held(self, record: HostRecord) -> tuple[str, ...]:
        """The stems that a member owns."""
        return self.stems(record) if record.granted is None else record.granted

    def owned(self, name: str, granted: tuple[str, ...]) -> bool:
        """Whether ``name``, in any spelling, is among those that a host was granted."""
        return stem(name, self._cluster) in granted

    def check(self, host: JoinRequest, here: bool) -> None:
        """BadParameter for names that no host may have; AccessDenied for names of this machine and of the auth server,
        unless ``here``: the host is the auth server's own machine."""
        if host.uuid == self._own_uuid and not here:
            raise AccessDenied(
                f"The UUID {host.uuid} is the auth server's own: delete the file host_uuid in this host's data_dir,"
                " then start it again."
            )
        if oddly_spelled(host.nodename) and not host.nodename.isdigit():
            raise BadParameter(
                f"The node name {quoted(host.nodename)} is read as an IP address: give the host another one."
            )
        for address in host.addresses:
            why = no_other_machine(address)
            if oddly_spelled(address):
                raise BadParameter(f"{quoted(address)} is read as another IP address: write it as {plain_ip(address)}.")
            if why and why != "loopback":
                raise BadParameter(
                    f"{quoted(address)} is a {why} address: remove it from public_addr and advertise_ip."
                )
            if why and not here:
                raise AccessDenied(
                    f"{quoted(address)} is a name of every machine, and only a host on the auth"
                    " server's own machine may use"
                    " it: remove it from public_addr and advertise_ip, or listen on another address."
                )

    async def roles_beside(self, host: JoinRequest, caller: ApiIdentity) -> tuple[str, ...]:
        """The other roles in which the UUID is a member, unless the caller is one of them: a stranger with that UUID
        would get all of the member's names. :meth:`check` binds the auth server's own UUID to its machine."""
        if host.uuid == self._own_uuid:
            return ()
        beside = [each for each in await self._records(host.uuid) if each.role != host.role]
        known = (caller.kind, caller.name) == ("host", host.uuid)
        if known and any(each.role in caller.roles and began_with(caller, each) for each in beside):
            return ()
        return tuple(each.role for each in beside)

    async def claim(self, host: JoinRequest, expires: float) -> Claim:
        """What a checked host may own, until ``expires``. AccessDenied if a name belongs to another."""
        nodename, *addresses = self.stems(host)
        granted: list[str] = []
        changes: list[Change] = []
        namesake: HostRecord | None = None
        for name in (nodename, *addresses):
            if _is_nobodys(name):
                continue
            entry = await self._state.find(name_key(name), NameRecord)
            others = await self._others(entry, host.uuid)
            if host.uuid != self._own_uuid and name in self._own and plain_ip(name) is None:
                raise AccessDenied(f"{quoted(name)} is a name of the auth server: give this host other names.")
            if others and not _may_share(host.role, others):
                first = others[0]
                if name == nodename and all(each.nodename.lower() == host.nodename.lower() for each in others):
                    namesake = first
                elif plain_ip(name) is None:
                    raise AccessDenied(_owned(name, first))
                continue
            if host.uuid != self._own_uuid and name in self._own:
                continue
            granted.append(name)
            changes.append(self._entry(name, entry, (*dict.fromkeys(each.uuid for each in others), host.uuid), expires))
        return Claim(tuple(granted), tuple(changes), namesake)

    async def extend(self, record: HostRecord, expires: float) -> Claim:
        """The same names for longer, and no others."""
        granted: list[str] = []
        changes: list[Change] = []
        for name in self.held(record):
            entry = await self._state.find(name_key(name), NameRecord)
            owners = (record.uuid,) if entry is None else entry.record.owners
            if record.uuid in owners:
                granted.append(name)
                changes.append(self._entry(name, entry, owners, expires))
        return Claim(tuple(granted), tuple(changes))

    async def release(self, gone: Iterable[HostRecord], uuid: str) -> list[Change]:
        """The changes that free the names in a host's records, except those that its other roles hold."""
        leaving = list(gone)
        roles = {record.role for record in leaving}
        kept = {name for record in await self._records(uuid) if record.role not in roles for name in self.held(record)}
        changes: list[Change] = []
        for name in dict.fromkeys(name for record in leaving for name in self.held(record)):
            entry = await self._state.find(name_key(name), NameRecord)
            if name in kept or entry is None or uuid not in entry.record.owners:
                continue
            rest = tuple(owner for owner in entry.record.owners if owner != uuid)
            if rest:
                until = entry.record.until
                changes.append(put(entry.key, NameRecord(rest, until), expires=until, expect=entry.revision))
            else:
                changes.append(Delete(entry.key, entry.revision))
        return changes

    async def index_old(self) -> None:
        """In a state from before this index, give hosts their names, first come, first served, and their memberships an
        end."""
        records = [found async for found in self._state.all(HOSTS, HostRecord)]
        old = sorted(
            (found for found in records if found.record.granted is None), key=lambda found: found.record.joined
        )
        if not old:
            return
        owners: dict[str, list[HostRecord]] = {}
        for found in records:
            for name in found.record.granted or ():
                owners.setdefault(name, []).append(found.record)
        memberships: list[Change] = []
        entries: set[str] = set()
        for found in old:
            record, granted = await self._with_address(found.record), []
            for name in self.stems(record):
                others = [each for each in owners.get(name, ()) if each.uuid != record.uuid]
                if _is_nobodys(name) or (others and not _may_share(record.role, others)):
                    continue
                owners.setdefault(name, []).append(record)
                granted.append(name)
            entries.update(granted)
            end = max(record.renewed + defaults.HOST_CERT_TTL, self._now() + defaults.DAY)
            record = evolve(record, granted=tuple(granted), pinged=True)
            memberships.append(put(found.key, record, expires=end, expect=found.revision))
        changes: list[Change] = []
        for name in sorted(entries):
            until = max(each.renewed for each in owners[name]) + defaults.HOST_CERT_TTL + defaults.DAY
            uuids = tuple(dict.fromkeys(each.uuid for each in owners[name]))
            changes.append(put(name_key(name), NameRecord(uuids, until), expires=until))
        changes += memberships  # last: a record that has its names is not looked at again
        for start in range(0, len(changes), CHANGES_MAX):
            await self._state.commit(*changes[start : start + CHANGES_MAX])
        log.info("indexed the names of {count} hosts", count=len(old))

    async def _with_address(self, record: HostRecord) -> HostRecord:
        """The record of a node from before the index, with the address at which it is found now, which its join did not
        tell."""
        presence = await self._state.find(presence_key(record.uuid), Presence)
        if presence is None or record.role != "node":
            return record
        address = plain_ip(host_of(presence.record.node.addr or ""))
        if address is None or no_other_machine(str(address)):
            return record
        return evolve(record, addresses=(*record.addresses, str(address)))

    def _entry(self, name: str, entry: Found[NameRecord] | None, owners: tuple[str, ...], expires: float) -> Change:
        until = expires if entry is None else max(expires, entry.record.until)
        return put(
            name_key(name),
            NameRecord(owners, until),
            expires=until,
            expect=ABSENT if entry is None else entry.revision,
        )

    async def _others(self, entry: Found[NameRecord] | None, uuid: str) -> list[HostRecord]:
        """The records of other hosts that own an entry's name."""
        if entry is None:
            return []
        name = entry.key.removeprefix(name_key(""))
        return [
            record
            for owner in entry.record.owners
            if owner != uuid
            for record in await self._records(owner)
            if name in self.held(record)
        ]

    async def _records(self, uuid: str) -> list[HostRecord]:
        return [found.record async for found in self._state.all(f"{HOSTS}{uuid}/", HostRecord)]


def began_with(identity: ApiIdentity, record: HostRecord) -> bool:
    """Whether a certificate belongs to this membership and not to an earlier one."""
    return identity.begins >= int(record.joined - defaults.BACKDATE)


def _is_nobodys(name: str) -> bool:
    """Whether it is ``localhost`` or the like."""
    return bool(no_other_machine(name)) and not name.isdigit()


def _may_share(role: str, others: Iterable[HostRecord]) -> bool:
    return role in _SHARED_ROLES and all(other.role == role for other in others)


def _owned(name: str, owner: HostRecord) -> str:
    return (
        f"{quoted(name)} is a name of the host {owner.uuid} ({quoted(owner.nodename)},"
        f" {owner.role}), so no other may have it. Give"
        f" this host names of its own; or, if that one is gone for good, run `tctl rm node/{owner.uuid}` on the auth"
        " server, then start this host again."
    )
