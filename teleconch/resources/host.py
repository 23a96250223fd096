"""What a host and the auth server exchange when the host joins or renews."""

from __future__ import annotations

from attrs import frozen

from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.secret import Secret


@frozen
class JoinRequest:
    """``ssh_public_key`` is one OpenSSH line, ``tls_public_key`` a SubjectPublicKeyInfo in PEM. The host made both keys
    and keeps the private halves. ``addresses`` are hosts without ports from ``advertise_ip`` and ``public_addr``.
    ``time`` is the host's clock in epoch seconds."""

    token: Secret
    uuid: str
    nodename: str
    role: str
    ssh_public_key: str
    tls_public_key: str
    addresses: tuple[str, ...]
    time: float
    version: str


@frozen
class RenewRequest:
    """New keys or the old ones. UUID, role, nodename and addresses are those recorded when the host joined."""

    ssh_public_key: str
    tls_public_key: str
    time: float
    version: str


@frozen
class HostCertificates:
    """``ssh_cert`` is one OpenSSH line; ``tls_cert`` is PEM; times are epoch seconds."""

    cluster: str
    ssh_cert: str
    tls_cert: str
    authorities: tuple[TrustedAuthority, ...]
    valid_after: float
    valid_before: float


@frozen
class Ping:
    """The answer to a heartbeat: when to ping next at the latest, and the auth server's time."""

    interval: float
    time: float
