"""The cluster's two authorities. The first auth server makes both at once; from then on they are followed as stored,
whichever auth server changes them."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from teleconch.audit.emitter import Emitter
from teleconch.audit.events import CACreate
from teleconch.auth.following import Following
from teleconch.auth.records import AUTHORITIES, authority_key
from teleconch.auth.state import State, put
from teleconch.backend.interface import ABSENT, Backend
from teleconch.ca.authority import new_authority, trusted
from teleconch.errors import CompareFailed, Unavailable, quoted
from teleconch.resources.authority import AuthorityType, CertAuthority, TrustedAuthority

log = Logger()


class Authorities:
    """The authorities, with their private keys, from :meth:`start` to :meth:`stop`."""

    def __init__(self, state: State, cluster: str, clock: IReactorTime, emitter: Emitter) -> None:
        self._state = state
        self._cluster = cluster
        self._now = clock.seconds
        self._emitter = emitter
        self._stored = Following(state, AUTHORITIES, CertAuthority, clock, self._changed)
        self._both: dict[AuthorityType, CertAuthority] = {}

    async def start(self) -> None:
        """Read the authorities, or make them if there are none. Unavailable if they belong to another cluster."""
        both = await self._read()
        if not both:
            new = [new_authority(type, self._cluster, self._now()) for type in ("user", "host")]
            try:
                await self._state.commit(*(put(authority_key(each.type), each, expect=ABSENT) for each in new))
                self._emitter.emit(CACreate(cluster=self._cluster))
            except CompareFailed:
                pass  # another auth server was faster: its authorities count
            both = await self._read()
        for type in ("user", "host"):
            if type not in both:
                raise Unavailable(f"The state lacks the {type} authority; restore it from a backup.")
            if both[type].cluster != self._cluster:
                raise Unavailable(
                    f"The state belongs to the cluster {quoted(both[type].cluster)}, but the configuration names"
                    f" {quoted(self._cluster)}; set cluster_name back, or give another data_dir for a new cluster."
                )
        self._both = both
        await self._stored.start()

    async def stop(self) -> None:
        """Stop following the store."""
        await self._stored.stop()

    def _changed(self, _: object) -> None:
        both = {each.type: each for each in self._stored.records.values() if each.cluster == self._cluster}
        if both.keys() != {"user", "host"}:
            log.error("the state lacks an authority of {cluster}; the last ones stay", cluster=self._cluster)
        elif both != self._both:
            self._both = both
            log.info("another auth server changed the authorities of {cluster}", cluster=self._cluster)

    async def _read(self) -> dict[AuthorityType, CertAuthority]:
        return {found.record.type: found.record async for found in self._state.all(AUTHORITIES, CertAuthority)}

    def get(self, type: AuthorityType) -> CertAuthority:
        """One authority, with its private keys."""
        if type not in self._both:
            raise Unavailable("The auth server is starting; try again in a moment.")
        return self._both[type]

    def trusted(self) -> tuple[TrustedAuthority, ...]:
        """The public parts of both."""
        return trusted(self.get("user")), trusted(self.get("host"))


async def stored_cluster(backend: Backend) -> str | None:
    """The name of the cluster that this state belongs to; ``None`` for a state without authorities."""
    stored = await State(backend).find(authority_key("host"), CertAuthority)
    return None if stored is None else stored.record.cluster
