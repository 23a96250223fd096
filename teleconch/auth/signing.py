"""Certificates that an administrator makes, for a user or an OpenSSH host."""

from __future__ import annotations

from teleconch.audit.emitter import Emitter
from teleconch.audit.events import CertCreate
from teleconch.auth.certificates import SIGNED_TTL_MAX, Certificates, checked_ttl
from teleconch.auth.users import Users
from teleconch.resources.login import SignedHost, UserCertificates


class Signing:
    """Signs what ``tctl auth sign`` asks for."""

    def __init__(self, users: Users, certificates: Certificates, emitter: Emitter) -> None:
        self._users = users
        self._certificates = certificates
        self._emitter = emitter

    async def sign_user(self, name: str, ssh_public_key: str, tls_public_key: str, ttl: float) -> UserCertificates:
        """Certificates for a user. NotFound; BadParameter."""
        checked_ttl(ttl, SIGNED_TTL_MAX)
        user = await self._users.get_user(name)
        certificates = self._certificates.user(user, ssh_public_key, tls_public_key, ttl)
        self._emitter.emit(CertCreate(cert_type="user", names=(name,), ttl=ttl, user=name))
        return certificates

    async def sign_host(
        self, names: tuple[str, ...], ssh_public_key: str, tls_public_key: str, ttl: float
    ) -> SignedHost:
        """Certificates for a host that does not join. BadParameter."""
        signed = self._certificates.openssh_host(names, ssh_public_key, tls_public_key, ttl)
        self._emitter.emit(CertCreate(cert_type="host", names=names, ttl=ttl))
        return signed
