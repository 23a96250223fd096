"""What a command goes to the cluster with: a remembered login or an identity file, and whether it is still valid."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm

from teleconch.ca.keys import public_blob
from teleconch.ca.ssh import CertificateSummary, certificate_summary, check_host_certificate, signed_key
from teleconch.client.address import ProxyAddress
from teleconch.client.identity import Identity, read_identity, read_openssh
from teleconch.client.profile import Profile, Profiles
from teleconch.errors import AccessDenied, BadParameter, NotFound, TeleconchError
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.names import is_login
from teleconch.resources.secret import Secret
from teleconch.ssh import signatures


class Standing(NamedTuple):
    """A user at a proxy, with an SSH certificate that is valid now.

    ``identity`` is set if it came from ``-i``; ``only_ssh`` is that file if it holds an SSH key alone.
    """

    profile: Profile
    private_key: Secret
    certificate: str
    summary: CertificateSummary
    authorities: tuple[TrustedAuthority, ...]
    identity: Identity | None = None
    only_ssh: str | None = None

    def host_check(self, host: str, insecure: bool, now: Callable[[], float]) -> Callable[[bytes], None]:
        """Returns a check of the key that a server shows, which raises TrustError if it is not ``host``'s.

        ``insecure``: any key will do.
        """

        def check(blob: bytes) -> None:
            if not insecure:
                check_host_certificate(blob, authorities=self.authorities, host=host, now=now())

        return check


def find_standing(
    profiles: Profiles, proxy: ProxyAddress | None, user: str | None, file: str | None, cluster: str | None, now: float
) -> Standing:
    """The user of the identity ``file``, else the login at ``proxy``, in ``cluster`` if one is named. NotFound,
    AccessDenied, BadParameter."""
    found = remembered(profiles, proxy, user, now) if file is None else from_file(file, profiles, proxy, now)
    if cluster and cluster != found.profile.cluster:
        raise BadParameter(
            f"This proxy serves the cluster {found.profile.cluster}, not {cluster}: log in to that cluster's proxy."
        )
    return found


def remembered(profiles: Profiles, proxy: ProxyAddress | None, user: str | None, now: float) -> Standing:
    """The login at ``proxy`` (None: the current one). NotFound or AccessDenied with the login command to type."""
    profile = profiles.find(proxy)
    if user is not None and user != profile.user:
        profile = profile._replace(user=user)
    key, cert = profiles.ssh_key(profile)
    summary = certificate_summary(public_blob(cert))
    check_time(summary, now, f"log in again with `{profile.login_command}`")
    return Standing(profile, key, cert, summary, profiles.authorities(profile))


def from_file(path: str, profiles: Profiles, proxy: ProxyAddress | None, now: float) -> Standing:
    """The user of an identity file, at ``proxy`` or else the current one. BadParameter, AccessDenied, NotFound."""
    pair = read_openssh(path)
    if pair is not None:
        return _from_openssh(path, pair, profiles, proxy, now)
    identity = read_identity(Path(path))
    summary = certificate_summary(public_blob(identity.ssh_cert))
    check_time(summary, now, "have a new one made with `tctl auth sign`")
    cluster = identity.authorities[0].cluster
    known = profiles.find(None) if proxy is None else next((p for p in profiles.all() if p.matches(proxy)), None)
    if known is None:
        assert proxy is not None
        known = Profile(proxy.web, _ssh_address(proxy, identity), "", cluster)
    elif proxy is not None:
        known = known.at(proxy)
    profile = known._replace(user=summary.key_id, cluster=cluster)
    return Standing(profile, identity.ssh_private_key, identity.ssh_cert, summary, identity.authorities, identity)


def _from_openssh(
    path: str, pair: tuple[Secret, str], profiles: Profiles, proxy: ProxyAddress | None, now: float
) -> Standing:
    """A key with its certificate in ``-cert.pub``: it says who the user is, and an earlier login whom to trust."""
    key, cert = pair
    blob = public_blob(cert)
    try:
        public = signatures.public_blob(signatures.load_private_key(key.reveal()))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadParameter(f"{path} is a key that tsh cannot use: it is damaged or needs a passphrase.") from None
    if signed_key(blob) != public:
        raise BadParameter(f"{path}-cert.pub is not the certificate of the key {path}: have both made again.")
    summary = certificate_summary(blob)
    check_time(summary, now, "have a new one made with `tctl auth sign`")
    known = profiles.find(None) if proxy is None else next((p for p in profiles.all() if p.matches(proxy)), None)
    authorities = () if known is None else profiles.authorities(known)
    if known is None or not authorities:
        raise NotFound(
            f"{path} does not say whose hosts to trust: log in to that proxy once with `tsh login`, or have one file"
            " with everything made with `tctl auth sign --format=file`."
        )
    profile = (known if proxy is None else known.at(proxy))._replace(user=summary.key_id)
    return Standing(profile, key, cert, summary, authorities, only_ssh=path)


def _ssh_address(proxy: ProxyAddress, identity: Identity) -> str:
    """Where SSH is at a proxy without a profile: as the user says, as the proxy says, else at Teleport's port.

    Whether it is the right proxy is checked when it is reached.
    """
    if proxy.ssh_port is not None:
        return proxy.ssh
    from teleconch.client.trust import Trust
    from teleconch.client.web import WebClient

    certs = tuple(cert for authority in identity.authorities for cert in authority.tls_certs)
    try:
        return WebClient(proxy, Trust(authorities=certs)).ping().ssh_proxy_addr
    except TeleconchError:
        return proxy.ssh


def check_time(summary: CertificateSummary, now: float, remedy: str) -> None:
    """Check that a certificate is valid at ``now``. AccessDenied, ending in ``remedy``."""
    if now >= summary.valid_before:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.valid_before))
        raise AccessDenied(f"The certificate of {summary.key_id} expired at {when}: {remedy}.")
    if now < summary.valid_after:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.valid_after))
        raise AccessDenied(
            f"The certificate of {summary.key_id} is valid only from {when}: this machine's clock is behind."
        )


def os_login() -> str:
    """The name of the OS user who runs this."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER", "")


def choose_login(summary: CertificateSummary, asked: str | None) -> str:
    """The login on the node: ``asked``, else the OS user's, else the only one there is. AccessDenied, NotFound."""
    logins = tuple(name for name in summary.principals if is_login(name))
    if asked is not None:
        if asked not in logins:
            raise AccessDenied(
                f"{summary.key_id} may not log in as {asked}; the certificate allows {', '.join(logins)}."
                " If that changed lately, log in again with `tsh login --force`."
            )
        return asked
    own = os_login()
    if own in logins:
        return own
    if len(logins) == 1:
        return logins[0]
    raise NotFound(f"Say as whom to log in: `tsh ssh LOGIN@NODE` with one of {', '.join(logins)}.")
