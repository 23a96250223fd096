"""The values of logins, sign-ups and signings."""

from __future__ import annotations

from attrs import frozen

from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.secret import Secret


@frozen
class LoginRequest:
    """``otp`` is empty if the cluster asks for no second factor. ``ttl`` is in seconds, or ``None`` for the default.
    ``source`` is the address that the request came from."""

    user: str
    password: Secret
    otp: str
    ssh_public_key: str
    tls_public_key: str
    ttl: float | None
    source: str = ""


@frozen
class UserCertificates:
    """``ssh_cert`` is one OpenSSH line, ``tls_cert`` PEM, both until ``valid_before`` (epoch seconds)."""

    user: str
    cluster: str
    logins: tuple[str, ...]
    roles: tuple[str, ...]
    extensions: tuple[str, ...]
    ssh_cert: str
    tls_cert: str
    authorities: tuple[TrustedAuthority, ...]
    valid_before: float


@frozen
class Signup:
    """What the sign-up page shows. ``otp_url`` (``otpauth://totp/...``) is ``None`` without a second factor."""

    user: str
    cluster: str
    otp_url: Secret | None
    otp_secret: Secret | None


@frozen
class SignupToken:
    """A new sign-up token (also for a reset) and its expiry in epoch seconds."""

    user: str
    value: Secret
    expires: float


@frozen
class ClusterStatus:
    """``ca_pins`` are ``sha256:<hex>`` of the host TLS authorities' public keys; ``time`` is auth's clock."""

    cluster: str
    version: str
    second_factor: str
    authorities: tuple[TrustedAuthority, ...]
    ca_pins: tuple[str, ...]
    time: float


@frozen
class SignedHost:
    """A host certificate made by ``tctl auth sign --host``."""

    ssh_cert: str
    tls_cert: str
    authorities: tuple[TrustedAuthority, ...]
