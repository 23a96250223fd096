"""What ``tsh status`` shows of a login."""

from __future__ import annotations

import json
import time

from attrs import frozen
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from teleconch.ca.keys import public_blob
from teleconch.ca.ssh import ROLES, certificate_summary
from teleconch.client.profile import Profile, Profiles
from teleconch.errors import NotFound

_PERMITS = "permit-"


@frozen
class LoginStatus:
    """One profile. ``valid_before`` is None after a logout."""

    profile: Profile
    current: bool
    roles: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    valid_before: float | None = None

    def lines(self, now: float) -> list[str]:
        """As in Teleport 4.2, with the cluster's name."""
        profile = self.profile
        pairs = [
            ("Profile URL:", f"https://{profile.web_proxy_addr}"),
            ("Logged in as:", profile.user),
            ("Cluster:", profile.cluster),
        ]
        if self.valid_before is None:
            pairs[1] = ("Logged out:", f"type `{profile.login_command}`")
        else:
            pairs += [
                ("Roles:", ", ".join(self.roles)),
                ("Logins:", ", ".join(self.logins)),
                ("Valid until:", valid_text(self.valid_before, now)),
                ("Extensions:", ", ".join(self.extensions)),
            ]
        mark = "> " if self.current else "  "
        return [f"{mark if i == 0 else '  '}{title:<13} {value}".rstrip() for i, (title, value) in enumerate(pairs)]


def valid_text(valid_before: float, now: float) -> str:
    """``2017-04-25 15:02:30 -0700 PDT [valid for 1h0m0s]``"""
    when = time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(valid_before))
    left = int(valid_before - now)
    if left <= 0:
        return f"{when} [EXPIRED]"
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    text = f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
    return f"{when} [valid for {text}]"


def status_of(profiles: Profiles, profile: Profile, current: bool) -> LoginStatus:
    """What the stored certificate says. BadParameter if it is damaged."""
    try:
        _, cert = profiles.ssh_key(profile)
    except NotFound:
        return LoginStatus(profile, current)
    summary = certificate_summary(public_blob(cert))
    return LoginStatus(
        profile=profile,
        current=current,
        roles=_roles(cert),
        logins=tuple(summary.principals),
        extensions=tuple(name for name in summary.extensions if name.startswith(_PERMITS)),
        valid_before=summary.valid_before,
    )


def _roles(cert: str) -> tuple[str, ...]:
    certificate = load_ssh_public_identity(cert.encode("ascii"))
    assert isinstance(certificate, SSHCertificate)
    try:
        value = json.loads(certificate.extensions.get(ROLES, b"{}"))
        return tuple(str(role) for role in value.get("roles", ()))
    except (ValueError, AttributeError, TypeError):
        return ()
