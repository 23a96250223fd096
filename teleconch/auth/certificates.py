"""Which certificates are issued: names, roles and lifetimes. ``ca`` does the signing."""

from __future__ import annotations

import math
import uuid as uuids
from collections.abc import Callable, Iterable
from typing import Final

from attrs import frozen

from teleconch import defaults
from teleconch.auth.authorities import Authorities
from teleconch.ca.keys import new_tls_key
from teleconch.ca.ssh import host_names, issue_host_cert, issue_openssh_host_cert, issue_user_cert
from teleconch.ca.tls import issue_host_tls, issue_user_tls
from teleconch.errors import AccessDenied, BadParameter, quoted
from teleconch.resources.addresses import stem
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.host import HostCertificates
from teleconch.resources.login import SignedHost, UserCertificates
from teleconch.resources.names import check_name, check_uuid, is_host_principal
from teleconch.resources.secret import Secret
from teleconch.resources.user import User

SIGNED_TTL_MAX: Final = 3650 * defaults.DAY  # what an administrator may ask for
ADDRESSES_MAX: Final = 32
PUBLIC_KEY_MAX: Final = 16 * 1024
EXTENSIONS: Final = ("permit-agent-forwarding", "permit-port-forwarding", "permit-pty")


@frozen
class TLSIdentity:
    """The key and certificate that an auth server or ``tctl`` uses, as PEM, and the authorities to trust."""

    uuid: str
    role: str
    private_key: Secret
    certificate: str
    authorities: tuple[TrustedAuthority, ...]
    valid_before: float


class Certificates:
    """Issues with the cluster's authorities. ``randomness(n)`` returns n random bytes."""

    def __init__(
        self, authorities: Authorities, cluster: str, now: Callable[[], float], randomness: Callable[[int], bytes]
    ) -> None:
        self._authorities = authorities
        self._cluster = cluster
        self._now = now
        self._randomness = randomness

    def host(
        self,
        *,
        uuid: str,
        role: str,
        nodename: str,
        addresses: tuple[str, ...],
        ssh_public_key: str,
        tls_public_key: str,
        owned: Callable[[str], bool],
        until: float,
    ) -> HostCertificates:
        """Both certificates of a member, with its UUID and those of its names that are ``owned``. They expire no later
        than its membership (``until``). BadParameter for names or keys that cannot be used."""
        _check_keys(ssh_public_key, tls_public_key)
        by_uuid = (uuid, f"{uuid}.{self._cluster}".lower())
        names = self.check_host_names(uuid, role, nodename, addresses)
        names = tuple(name for name in names if name in by_uuid or owned(name))
        valid_after, valid_before = self._life(min(defaults.HOST_CERT_TTL, until - self._now()))
        authority = self._authorities.get("host")
        return HostCertificates(
            cluster=self._cluster,
            ssh_cert=issue_host_cert(
                authority,
                uuid=uuid,
                nodename=nodename,
                roles=(role,),
                addresses=addresses,
                public_key=ssh_public_key,
                valid_after=valid_after,
                valid_before=valid_before,
                serial=self._serial(),
                principals=names,
            ),
            tls_cert=issue_host_tls(
                authority,
                uuid=uuid,
                roles=(role,),
                dns_names=_with_server_name(role, names),
                public_key=tls_public_key,
                valid_after=valid_after,
                valid_before=valid_before,
                serial=self._serial(),
            ),
            authorities=self._authorities.trusted(),
            valid_after=valid_after,
            valid_before=valid_before,
        )

    def own(self, *, uuid: str, role: str, names: Iterable[str] = ()) -> TLSIdentity:
        """A fresh key and certificate for the auth server itself (role ``auth``) or its ``tctl`` (``admin``)."""
        check_uuid(uuid)
        names = tuple(dict.fromkeys([uuid, f"{uuid}.{self._cluster}", *(name.lower() for name in names)]))
        for name in names:
            _check_host_name(name)
        private, public = new_tls_key()
        valid_after, valid_before = self._life(defaults.HOST_CERT_TTL)
        certificate = issue_host_tls(
            self._authorities.get("host"),
            uuid=uuid,
            roles=(role,),
            dns_names=_with_server_name(role, names),
            public_key=public,
            valid_after=valid_after,
            valid_before=valid_before,
            serial=self._serial(),
        )
        return TLSIdentity(uuid, role, private, certificate, self._authorities.trusted(), valid_before)

    def user(self, user: User, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        """Both certificates of a user, with the same expiry. AccessDenied for a user without logins."""
        if not user.logins:
            raise AccessDenied(
                f"The user {user.name} has no logins, so there is nothing to log in to; ask the administrator to add"
                f" one (`tctl get user/{user.name}`, then `tctl create -f`)."
            )
        _check_keys(ssh_public_key, tls_public_key)
        valid_after, valid_before = self._life(ttl)
        authority = self._authorities.get("user")
        return UserCertificates(
            user=user.name,
            cluster=self._cluster,
            logins=user.logins,
            roles=user.roles,
            extensions=EXTENSIONS,
            ssh_cert=issue_user_cert(
                authority,
                user=user.name,
                logins=user.logins,
                roles=user.roles,
                traits=user.traits,
                public_key=ssh_public_key,
                extensions=EXTENSIONS,
                valid_after=valid_after,
                valid_before=valid_before,
                serial=self._serial(),
            ),
            tls_cert=issue_user_tls(
                authority,
                user=user.name,
                roles=user.roles,
                public_key=tls_public_key,
                valid_after=valid_after,
                valid_before=valid_before,
                serial=self._serial(),
            ),
            authorities=self._authorities.trusted(),
            valid_before=valid_before,
        )

    def openssh_host(self, names: tuple[str, ...], ssh_public_key: str, tls_public_key: str, ttl: float) -> SignedHost:
        """Certificates for a host that is not a member: an OpenSSH server with these names. Its TLS certificate has no
        role."""
        names = tuple(dict.fromkeys(name.lower() for name in names))
        if not 0 < len(names) <= ADDRESSES_MAX:
            raise BadParameter(f"Give 1 to {ADDRESSES_MAX} host names.")
        for name in names:
            _check_host_name(name)
        _check_keys(ssh_public_key, tls_public_key)
        valid_after, valid_before = self._life(checked_ttl(ttl, SIGNED_TTL_MAX))
        authority = self._authorities.get("host")
        return SignedHost(
            ssh_cert=issue_openssh_host_cert(
                authority,
                names=names,
                public_key=ssh_public_key,
                valid_after=valid_after,
                valid_before=valid_before,
                serial=self._serial(),
            ),
            tls_cert=issue_host_tls(
                authority,
                uuid=str(uuids.UUID(bytes=self._randomness(16), version=4)),
                roles=(),
                dns_names=names,
                public_key=tls_public_key,
                valid_after=valid_after,
                valid_before=valid_before,
                serial=self._serial(),
            ),
            authorities=self._authorities.trusted(),
        )

    def check_host_names(self, uuid: str, role: str, nodename: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Every name of a host. BadParameter for one that cannot be used or that belongs to somebody else."""
        check_uuid(uuid)
        check_name(nodename, "Node name")
        if len(addresses) > ADDRESSES_MAX + 1:  # a node adds the address at which it is found
            raise BadParameter(f"A host has at most {ADDRESSES_MAX} addresses; remove some from public_addr.")
        names = host_names(uuid, nodename, self._cluster, addresses)
        for name in names:
            if name not in (uuid, f"{uuid}.{self._cluster}".lower()):
                _check_host_name(name)
                self._check_not_a_uuid(name)
        return names

    def _check_not_a_uuid(self, name: str) -> None:
        """BadParameter for a UUID as a name: that would make a certificate for another host."""
        for part in (name, stem(name, self._cluster)):
            try:
                uuids.UUID(part)
            except ValueError:
                continue
            raise BadParameter(
                f"{quoted(name)} looks like a host UUID; give the host a nodename and addresses of its own."
            )

    def _life(self, ttl: float) -> tuple[float, float]:
        """Start and end in whole epoch seconds, as certificates hold them."""
        now = self._now()
        return float(int(now - defaults.BACKDATE)), float(int(now + ttl))

    def _serial(self) -> int:
        return int.from_bytes(self._randomness(8), "big") >> 1 or 1  # 63 bits; X.509 allows no 0


def checked_ttl(ttl: float, longest: float) -> float:
    """Returns ``ttl``. BadParameter unless it is between one minute and ``longest`` (seconds)."""
    if not (math.isfinite(ttl) and defaults.USER_CERT_TTL_MIN <= ttl <= longest):
        raise BadParameter(f"A certificate's life (--ttl) is 1m to {int(longest) // defaults.HOUR}h.")
    return ttl


def _check_keys(ssh_public_key: str, tls_public_key: str) -> None:
    if max(len(ssh_public_key), len(tls_public_key)) > PUBLIC_KEY_MAX:
        raise BadParameter("The public key is too long; use an ed25519 key for SSH and a P-256 key for TLS.")


def _check_host_name(name: str) -> None:
    if not is_host_principal(name):
        raise BadParameter(f"{quoted(name)} is not a host name: use letters, digits and . _ @ -, or an IP address.")
    if name.rstrip(".") == defaults.API_SERVER_NAME:
        raise BadParameter(f"{quoted(name)} is the auth servers' own name; choose another nodename or address.")


def _with_server_name(role: str, names: Iterable[str]) -> tuple[str, ...]:
    return (*names, defaults.API_SERVER_NAME) if role == "auth" else tuple(names)
