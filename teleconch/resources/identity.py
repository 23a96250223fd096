"""The caller, as a checked certificate describes them. Values of these types are made in ``ca`` only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen


@frozen
class ApiIdentity:
    """The peer of an auth API connection, from its verified TLS certificate.

    ``anonymous``: no certificate. ``host``: ``name`` is the host UUID; ``roles`` are auth, node or proxy, or ``admin``
    for the identity that the auth server keeps in its own ``data_dir``. ``user``: ``name`` is the user. ``begins`` and
    ``expires`` are the certificate's, in epoch seconds; ``expires`` is ``None`` only for ``anonymous``. ``address`` is
    where the call comes from, and ``here`` says whether that is the auth server's own machine; without a connection
    neither is known.
    """

    kind: Literal["anonymous", "host", "user"]
    name: str
    roles: tuple[str, ...]
    cluster: str
    expires: float | None
    address: str = field(default="", eq=False)
    here: bool = field(default=False, eq=False)
    begins: float = field(default=math.inf, eq=False)


@frozen
class SSHIdentity:
    """A user, from a verified SSH user certificate. ``valid_before`` is epoch seconds.

    ``extensions`` holds the certificate's ``permit-*`` names.
    """

    user: str
    logins: tuple[str, ...]
    roles: tuple[str, ...]
    traits: Mapping[str, tuple[str, ...]]
    cluster: str
    extensions: frozenset[str]
    valid_before: float
    serial: int
    certificate: bytes = field(repr=False)


ANONYMOUS = ApiIdentity("anonymous", "", (), "", None)
