"""Which nodes are there: heartbeats, and the nodes as they last reported.

::

    heartbeat ── same instance ────────────────────────────────▶ seen
        │
        ├── a new instance (the node was restarted) ───────────▶ seen; the old instance is remembered as replaced
        │
        └── an instance that was replaced
                ├── and the one in its place still pings ──────▶ AlreadyJoined: two processes with one UUID
                └── and that one has fallen silent ────────────▶ seen; they change places
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from teleconch import defaults
from teleconch.api.perspectives import described
from teleconch.audit.emitter import Emitter
from teleconch.audit.events import APIDenied, NodeLeave
from teleconch.auth.hosts import few_at_once, find_member, host_role
from teleconch.auth.names import Names
from teleconch.auth.nodes import check_node, public_hosts
from teleconch.auth.records import HOSTS, PRESENCE, HostRecord, Presence, presence_key
from teleconch.auth.state import Found, State, decided, put
from teleconch.backend.interface import ABSENT, CHANGES_MAX, RANGE_MAX, Change, Check, Delete
from teleconch.ca.ssh import host_names
from teleconch.errors import AccessDenied, AlreadyJoined, BadParameter, NotFound, TeleconchError, quoted
from teleconch.resources.addresses import host_of, no_other_machine, plain_ip
from teleconch.resources.host import Ping
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.names import check_name, check_uuid
from teleconch.resources.node import Node, NodePage, NodeStatus

log = Logger()

OFFLINE_AFTER: Final = defaults.PING_INTERVAL * defaults.OFFLINE_AFTER_PINGS
_REPLACED_MAX: Final = 8  # instances remembered
_INSTANCE_MAX: Final = 64


class PresenceBook:
    """Heartbeats in, nodes out."""

    def __init__(self, state: State, names: Names, cluster: str, now: Callable[[], float], emitter: Emitter) -> None:
        self._state = state
        self._names = names
        self._cluster = cluster
        self._now = now
        self._emitter = emitter
        self._heartbeats = few_at_once("heartbeat")
        self._goodbyes = few_at_once("goodbye")

    async def heartbeat(self, node: Node, instance: str, caller: ApiIdentity) -> Ping:
        """Record that a node is alive. AccessDenied for another's UUID, names or address, or for a host that was
        removed; AlreadyJoined; BadParameter; LimitExceeded."""
        with self._heartbeats.one((caller.name, caller.roles)):
            try:
                check_node(node)
                check_speaks_for_itself(caller, node)
                _check_instance(instance)
                presence = await decided(lambda: self._beat(caller, node, instance))
            except TeleconchError as error:
                where = {"server_id": caller.name, "addr_remote": caller.address}
                self._emitter.emit(APIDenied(method="heartbeat", error=str(error), **where))
                raise
        return Ping(interval=float(defaults.PING_INTERVAL), time=presence.last_seen)

    async def _beat(self, identity: ApiIdentity, node: Node, instance: str) -> Presence:
        role = host_role(identity)
        member = await find_member(self._state, identity, role)
        if node.nodename != member.record.nodename or node.cluster != self._cluster:
            raise AccessDenied(
                f"This host joined as {quoted(member.record.nodename)} in {quoted(self._cluster)},"
                f" not as {quoted(node.nodename)} in"
                f" {quoted(node.cluster)}; to rename it, run `tctl rm node/{node.uuid}` on the auth"
                " server, then start it"
                " again with a join token."
            )
        self._check_public_addrs(node, member.record)
        self._check_addr(node, member.record, identity)
        before = await self._find(node.uuid)
        now = self._now()
        presence = Presence(evolve(node, roles=(role,), names=member.record.granted), now, instance)
        if before is not None:
            presence = evolve(presence, replaced=_succession(before.record, instance, now))
        await self._state.commit(
            put(
                presence_key(node.uuid),
                presence,
                expires=now + defaults.PRESENCE_TTL,
                expect=ABSENT if before is None else before.revision,
            ),
            *await self._still_member(member, now),  # so that a node that is being removed does not come back
        )
        if before is not None and presence.replaced != before.record.replaced:
            log.info("{server_id} runs in a new process", server_id=node.uuid)
        return presence

    async def _still_member(self, member: Found[HostRecord], now: float) -> tuple[Change, ...]:
        """The changes that fail unless the membership still stands. With the first ping, it lasts as long as its
        certificates."""
        record = member.record
        if record.pinged or record.role != "node":
            return (Check(member.key, member.revision),)
        end = max(record.renewed + defaults.HOST_CERT_TTL, now)
        names = await self._names.extend(record, end)
        record = evolve(record, granted=names.granted, pinged=True)
        return (put(member.key, record, expires=end, expect=member.revision), *names.changes)

    def _check_addr(self, node: Node, member: HostRecord, identity: ApiIdentity) -> None:
        """AccessDenied unless ``addr`` leads proxies to this very host: by a name that it joined with, or by the
        address that its ping comes from. Loopback is this host only on the auth server's own machine."""
        host = host_of(node.addr or "")
        why = no_other_machine(host)
        if why == "loopback" and identity.here:
            return
        address, ping = plain_ip(host), plain_ip(identity.address)
        if not why and (
            self._names.owned(host, self._names.stems(member)) or (address is not None and address == ping)
        ):
            return
        whence = f", and its pings come from {identity.address}" if identity.address else ""
        what = f"is a {why} address" if why else f"is not an address with which this host joined{whence}"
        raise AccessDenied(
            f"The proxies may not look for this host at {quoted(host)}: it {what}. Set advertise_ip"
            " to the address where they"
            f" reach it, run `tctl rm node/{node.uuid}` on the auth server, then start this host again with a join"
            " token."
        )

    def _check_public_addrs(self, node: Node, member: HostRecord) -> None:
        """AccessDenied for names that are not in the host's certificate. A node that took another's name would make it
        ambiguous, and nobody could reach the other by it."""
        own = host_names(node.uuid, node.nodename, self._cluster, member.addresses)
        foreign = [host for host in public_hosts(node) if host not in own]
        if foreign:
            raise AccessDenied(
                f"This host did not join as {quoted(foreign[0])}, so it may not be reached by that name; to add it, set"
                f" public_addr, run `tctl rm node/{node.uuid}` on the auth server, then start it again with a join"
                " token."
            )

    async def goodbye(self, instance: str, caller: ApiIdentity) -> None:
        """A node is stopping: it is offline from now on. Without effect if another process has taken its place.
        LimitExceeded."""
        host_role(caller)
        _check_instance(instance)

        async def attempt() -> None:
            before = await self._find(caller.name)
            if before is None or before.record.instance != instance or before.record.stopped:
                return
            await self._state.commit(
                put(
                    before.key,
                    evolve(before.record, stopped=True),
                    expires=before.record.last_seen + defaults.PRESENCE_TTL,
                    expect=before.revision,
                )
            )

        with self._goodbyes.one((caller.name, caller.roles)):
            await decided(attempt)

    async def list_nodes(self, after: str, limit: int) -> NodePage:
        """Nodes in order of UUID, after ``after`` ("": from the start). BadParameter."""
        if after:
            check_uuid(after)
        if limit < 1:
            raise BadParameter("A page has at least one node.")
        limit = min(limit, defaults.PAGE_SIZE, RANGE_MAX)
        stored = await self._state.range(PRESENCE, presence_key(after) if after else "", limit, Presence)
        now = self._now()
        nodes = tuple(status_of(each.record, now) for each in stored)
        return NodePage(nodes, nodes[-1].node.uuid if len(nodes) == limit else None)

    async def get_node(self, uuid: str) -> NodeStatus:
        """One node. NotFound."""
        presence = await self._find(check_uuid(uuid))
        if presence is None:
            raise NotFound(f"There is no node {uuid}; `tctl nodes ls` lists the nodes.")
        return status_of(presence.record, self._now())

    async def delete_node(self, uuid: str) -> None:
        """Forget a node and its membership in every role. NotFound."""
        check_uuid(uuid)

        async def attempt() -> list[Change]:
            members = [member async for member in self._state.all(f"{HOSTS}{uuid}/", HostRecord)]
            presence = await self._find(uuid)
            if presence is None and not members:
                raise NotFound(f"There is no host {uuid}; `tctl nodes ls` lists the nodes.")
            changes: list[Change] = [Delete(member.key, member.revision) for member in members]
            # The absence is expected too: a ping that came first would leave a node without membership.
            changes.append(Delete(presence_key(uuid), ABSENT if presence is None else presence.revision))
            changes += await self._names.release((member.record for member in members), uuid)
            await self._state.commit(*changes[:CHANGES_MAX])
            return changes[CHANGES_MAX:]

        left = await decided(attempt)
        while left:  # entries of names: without the records that they lead to, they have no effect already
            await self._state.commit(*left[:CHANGES_MAX])
            left = left[CHANGES_MAX:]
        self._emitter.emit(NodeLeave(server_id=uuid))

    async def _find(self, uuid: str) -> Found[Presence] | None:
        return await self._state.find(presence_key(uuid), Presence)


def status_of(presence: Presence, now: float) -> NodeStatus:
    """A node as others see it at ``now`` (epoch seconds)."""
    return NodeStatus(
        node=presence.node,
        last_seen=presence.last_seen,
        online=not presence.stopped and now - presence.last_seen <= OFFLINE_AFTER,
        expires=presence.last_seen + defaults.PRESENCE_TTL,
    )


def check_speaks_for_itself(caller: ApiIdentity, node: Node) -> None:
    """AccessDenied unless ``node`` is the caller: a host pings only for itself and in its own role."""
    for value, own in (
        (quoted(node.uuid), node.uuid == caller.name),
        (f"cluster {quoted(node.cluster)}", node.cluster == caller.cluster),
        (quoted(", ".join(node.roles)), set(node.roles) <= set(caller.roles)),
    ):
        if not own:
            raise AccessDenied(f"A heartbeat for {value} cannot come from {described(caller)}.")


def _succession(before: Presence, instance: str, now: float) -> tuple[str, ...]:
    """The replaced instances, once ``instance`` has pinged. AlreadyJoined if the one that replaced it still lives."""
    if instance == before.instance:
        return before.replaced
    if instance in before.replaced and not before.stopped and now - before.last_seen <= OFFLINE_AFTER:
        node = before.node
        raise AlreadyJoined(
            f"Another process pings as {quoted(node.nodename)} with this host's UUID ({node.uuid}),"
            f" from {node.addr}. If this"
            " machine is a clone, delete host_uuid in its data_dir and start it again with a join token; if teleport"
            " runs twice here, stop one."
        )
    others = [each for each in before.replaced if each != instance]
    return (before.instance, *others)[:_REPLACED_MAX]


def _check_instance(instance: str) -> None:
    if len(instance) > _INSTANCE_MAX:
        raise BadParameter(f"The instance of a host has at most {_INSTANCE_MAX} characters.")
    check_name(instance, "Instance")
