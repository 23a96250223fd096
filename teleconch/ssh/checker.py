"""Credentials that SSH users show, and the checker of certificates (twisted.cred)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from twisted.conch.error import ValidPublicKey
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from zope.interface import implementer

from teleconch.errors import AccessDenied
from teleconch.ssh import signatures

if TYPE_CHECKING:
    from teleconch.resources.authority import TrustedAuthority
    from teleconch.resources.identity import SSHIdentity


class ICertificateCredentials(ICredentials):
    """What :class:`CertificateCredentials` has."""


class IInteractiveCredentials(ICredentials):
    """What :class:`InteractiveCredentials` has."""


@implementer(ICertificateCredentials)
@frozen
class CertificateCredentials:
    """``signature`` is ``None`` while the certificate is only offered; ``data`` is what a signature must cover."""

    login: str
    algorithm: bytes
    blob: bytes = field(repr=False)
    signature: bytes | None = field(repr=False)
    data: bytes = field(repr=False)
    peer: Any


@implementer(IInteractiveCredentials)
@frozen
class InteractiveCredentials:
    """Someone who can be asked (keyboard-interactive, RFC 4256).

    ``ask(instruction, [(prompt, echo), ...])`` returns the answers. ``earlier`` are the credentials whose checker
    raised ``NotEnoughAuthentication`` on this connection, signatures checked.
    """

    login: str
    ask: Callable[[str, Sequence[tuple[str, bool]]], Awaitable[tuple[str, ...]]] = field(repr=False)
    earlier: tuple[CertificateCredentials, ...]
    peer: Any


@implementer(ICredentialsChecker)
class CertificateChecker:
    """Lets in whoever signs with a certificate from a user authority.

    The avatar id is ``(identity, login, peer)``. An offer without a signature raises Conch's ``ValidPublicKey`` if the
    certificate would do, and never yields an identity (CVE-2024-45337).
    """

    credentialInterfaces = (ICertificateCredentials,)

    def __init__(self, authorities: Callable[[], Iterable[TrustedAuthority]], now: Callable[[], float]) -> None:
        self._authorities = authorities
        self._now = now

    def requestAvatarId(  # type: ignore[override]  # cred takes any avatar id, and one at once
        self, credentials: CertificateCredentials
    ) -> tuple[SSHIdentity, str, Any]:
        """AccessDenied for every refusal."""
        from teleconch.ca.ssh import check_user_certificate

        given = credentials
        if given.algorithm not in signatures.algorithms_of(signatures.key_type(given.blob)):
            raise AccessDenied("This kind of key is not accepted here; log in with tsh to get a certificate.")
        if not given.algorithm.endswith(signatures.CERT_SUFFIX):
            raise AccessDenied("A plain key was offered; log in with tsh to get a certificate.")
        # The certificate first: its authority is looked up before anything is computed with a stranger's key.
        identity = check_user_certificate(
            given.blob,
            authorities=[authority for authority in self._authorities() if authority.type == "user"],
            login=given.login,
            now=self._now(),
            source_ip=getattr(given.peer, "host", None),
        )
        if given.signature is None:
            raise ValidPublicKey
        if not signatures.verify(given.blob, given.signature, given.data, given.algorithm):
            raise AccessDenied("The signature is wrong.")
        return identity, given.login, given.peer
