"""A host's membership in a cluster: joined once with a token, kept in ``data_dir``, renewed at half its life.

States::

    new ── join ──> member ── half of its life ──> renewing ──> member
     │  token, pin     │ start from data_dir, the auth server may be down
     └─ refused: a     └─ removed from the cluster: joins again if it was started with a token,
        sentence, end     otherwise the auth server's sentence is logged and nothing else changes
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

import teleconch
from teleconch.api.client import AuthClient
from teleconch.api.held import Held
from teleconch.api.interface import AuthAPI
from teleconch.api.join import Joining
from teleconch.api.tls import member_tls
from teleconch.api.upkeep import Upkeep
from teleconch.resources.secret import Secret


class Membership(Held):
    """One role's membership. Call :meth:`start` first; everything else may be read after that, at any time.

    ``auth_servers`` are ``host:port`` strings or endpoints; ``addresses`` are hosts without ports; ``ca_pins`` may be
    empty (a warning then says what to set). ``now`` returns epoch seconds; ``reactor`` provides connections and timers.
    ``found_at`` is the host's current address, used for the join alone: proxies may look for the host there.
    ``token_problem`` says why there is no token although one was configured. ``client`` is the auth API as this host;
    whoever pings with it calls :meth:`acknowledged` after an answer, and :meth:`refused` with an error.
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
        super().__init__(data_dir, role, nodename, addresses)
        chance = chance or random.SystemRandom()
        self._connection = AuthClient(
            reactor,
            auth_servers,
            member_tls(self.credentials, self.authorities, now),
            chance=chance,
            connected=lambda: self._upkeep.connected(),
        )
        self.client: AuthAPI = self._connection.api
        self._joining = Joining(
            reactor,
            self,
            auth_servers=auth_servers,
            token=token,
            token_problem=token_problem,
            ca_pins=ca_pins,
            found_at=found_at,
            now=now,
            chance=chance,
            version=version,
        )
        self._upkeep = Upkeep(
            reactor,
            self,
            self._joining,
            self.client,
            self._connection.renewed,
            now=now,
            chance=chance,
            version=version,
        )
        self.acknowledged = self._upkeep.acknowledged
        self.refused = self._upkeep.refused

    async def start(self) -> None:
        """Take the membership from ``data_dir``, or join, and try again after errors that may pass.

        The host is a member when this returns. Raises what only people can put right: AccessDenied, TrustError,
        ClockSkew, AlreadyJoined, BadParameter; Unavailable if ``data_dir`` cannot be used. After a refusal only keys
        have been stored.
        """
        joined = await self._joining.become_member()
        self._upkeep.start(joined)

    def stop(self) -> None:
        """End timers and the connection. Idempotent."""
        self._upkeep.stop()
        self._connection.close()
